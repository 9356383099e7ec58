/** Which run a command is about: the one it was given, the chosen one, or the answer to a question. */

import { InputDialog } from '@jupyterlab/apputils';

import type { RunRow } from '../api/types';
import type { ILab } from '../tokens';
import { isRunId } from './code';
import { sortRows, stateText } from './rows';

/** Gives null when the question was dismissed; throws where there is no run to choose. */
export async function chooseRun(
  lab: ILab,
  given: unknown,
  question: string,
  fits: (row: RunRow) => boolean = () => true,
  without: string[] = []
): Promise<string | null> {
  if (isRunId(given)) {
    return given;
  }
  if (given !== undefined) {
    throw new Error(lab.trans.__('“%1” is not a run’s id', JSON.stringify(given).slice(0, 80)));
  }
  const selected = lab.runs.find(lab.selected ?? '');
  if (selected && fits(selected) && !without.includes(selected.id) && without.length === 0) {
    return selected.id;
  }
  await lab.runs.refresh();
  const rows = sortRows(lab.runs.rows ?? []).filter(row => fits(row) && !without.includes(row.id));
  if (!rows.length) {
    throw new Error(lab.runs.problem || lab.trans.__('There is no run for this.'));
  }
  const items = rows.map(row => `${row.name} · ${stateText(row, lab.trans)} · ${row.rounds_done}/${row.steps}`);
  const answer = await InputDialog.getItem({ title: question, items });
  return answer.button.accept && answer.value !== null ? (rows[items.indexOf(answer.value)]?.id ?? null) : null;
}
