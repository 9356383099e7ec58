/** What all runs take on the disk, largest first, with the way to make room. */

import { Dialog } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';
import { si } from '@pluralis-lab/views/numbers.js';

import type { DiskUse, RunRow } from '../api/types';
import { CommandIDs } from '../ids';
import { button } from '../panel/button';
import { isLive, stateText } from '../runs/rows';
import type { ILab } from '../tokens';

/** Questions to the server under way at once: each walks a run's folder. */
const AT_ONCE = 3;

export async function showDiskUse(lab: ILab, commands: CommandRegistry): Promise<void> {
  const { trans } = lab;
  await lab.runs.refresh();
  const body = new Widget();
  body.addClass('plab-disk-use');
  const note = el('p', { role: 'status', text: trans.__('Measuring…') });
  const lines = el('tbody');
  const heads = [trans.__('Run'), trans.__('State'), trans.__('Checkpoints'), trans.__('Events'), trans.__('Evidence'), trans.__('Logs'), trans.__('Total'), ''];
  body.node.append(note, el('table', { class: 'plab-table' }, el('thead', {}, el('tr', {}, ...heads.map(text => el('th', { scope: 'col', text })))), lines));
  const dialog = new Dialog({ title: trans.__('Disk use of training runs'), body, buttons: [Dialog.okButton({ label: trans.__('Close') })] });
  const measured: { row: RunRow; disk: DiskUse }[] = [];
  const waiting = (lab.runs.rows ?? []).filter(row => row.state !== 'damaged');
  const failed: string[] = [];

  const draw = () => {
    measured.sort((a, b) => b.disk.total - a.disk.total);
    lines.replaceChildren(
      ...measured.map(({ row, disk }) => {
        const remove = button(trans.__('Delete…'), '', () => {
          dialog.resolve(0);
          void commands.execute(CommandIDs.deleteRun, { run: row.id });
        });
        remove.hidden = lab.readOnly() || isLive(row);
        remove.setAttribute('aria-label', trans.__('Delete run %1', row.name));
        const sizes = [disk.checkpoints, disk.events, disk.evidence, disk.logs, disk.total].map(size => el('td', { class: 'plab-number', text: si(size, 'B') }));
        return el('tr', {}, el('th', { scope: 'row', text: row.name }), el('td', { text: stateText(row, trans) }), ...sizes, el('td', {}, remove));
      })
    );
    const total = measured.reduce((sum, one) => sum + one.disk.total, 0);
    const rest = waiting.length ? trans.__('; %1 still to be measured', waiting.length) : failed.length ? `; ${failed[0]}` : '';
    setText(note, trans._n('%1 run takes %2', '%1 runs take %2', measured.length, si(total, 'B')) + rest);
  };
  const work = async () => {
    for (let row = waiting.shift(); row && !dialog.isDisposed; row = waiting.shift()) {
      try {
        measured.push({ row, disk: (await lab.api.run(row.id)).disk });
      } catch (error) {
        failed.push(error instanceof Error ? error.message : String(error));
      }
      draw();
    }
  };
  draw();
  void Promise.all(Array.from({ length: AT_ONCE }, work));
  await dialog.launch();
}
