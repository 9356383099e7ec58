/** What can be chosen for a worker that is added: its device, its stage, who owns it, what it brings. No page. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { si } from '@pluralis-lab/views/numbers.js';

import type { Device, RunRow, WorkerPicture } from '../api/types';
import type { Option } from '../asking/fields';
import { isLive } from '../view/rounds';

export function deviceOptions(devices: readonly Device[], trans: TranslationBundle): Option[] {
  return devices.map(({ device, name, memory_bytes }) => ({
    value: device,
    text: device === 'cpu' ? trans.__('cpu: the processor') : [`${device}: ${name}`, memory_bytes === null ? '' : si(memory_bytes, 'B')].filter(Boolean).join(', ')
  }));
}

/** The first one leaves the choice to the run. How many workers a stage has is said where a picture tells it. */
export function stageOptions(stages: number, workers: readonly WorkerPicture[] | null, trans: TranslationBundle): Option[] {
  const each = Array.from({ length: stages }, (_, stage) => {
    const there = workers?.filter(worker => worker.stage === stage);
    const live = there?.filter(worker => isLive(worker.state)).length ?? 0;
    return { value: String(stage), text: there ? trans.__('stage %1: %2 of %3 live', stage, live, there.length) : trans.__('stage %1', stage) };
  });
  return [{ value: '', text: trans.__('the thinnest: where there are fewest') }, ...each];
}

/**
 * The founder first, who owns what nobody else is named for.
 *
 * @param accounts - those of this home that can sign, null as long as they are not known; then the run's participants are offered.
 */
export function accountOptions(row: Pick<RunRow, 'account' | 'participants'>, accounts: readonly string[] | null, trans: TranslationBundle): Option[] {
  const others = [...new Set(accounts ?? row.participants)].filter(name => name && name !== row.account).sort();
  const founder = row.account ? trans.__('%1, the founder', row.account) : trans.__('the founder');
  return [{ value: '', text: founder }, ...others.map(name => ({ value: name, text: name }))];
}

/** Whether a worker of this stage ('': the run chooses) can bring a text: only stage 0 draws, and only where the spec says how much. */
export function mayBring(row: Pick<RunRow, 'own_data'>, stage: string): boolean {
  return row.own_data > 0 && (stage === '' || stage === '0');
}

/** The source that the server takes, for what was typed: "" for nothing, and a bare path is one. */
export function sourceOf(typed: string): string {
  const text = typed.trim();
  return !text || text === 'path:' ? '' : text.startsWith('path:') ? text : `path:${text}`;
}
