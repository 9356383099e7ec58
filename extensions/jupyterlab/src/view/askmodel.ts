/** Whether the model of a run can be asked now, and what may be asked of it. DOM-free. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { RunPicture } from '../api/types';
import { isLive } from './rounds';

/** Why the model cannot go on with a text now, for a reader; "" when it can. */
export function whyNoText(picture: Pick<RunPicture, 'engine' | 'over' | 'stages' | 'workers'>, trans: TranslationBundle): string {
  if (picture.engine === 'virtual') {
    return trans.__('A simulation has no worker processes that could be asked.');
  }
  if (picture.over) {
    return trans.__('The run has no live workers; resume it to ask its model.');
  }
  const live = new Set(picture.workers.filter(worker => isLive(worker.state)).map(worker => worker.stage));
  for (let stage = 0; stage < picture.stages; stage += 1) {
    if (!live.has(stage)) {
      return trans.__('Stage %1 has no live worker yet; the model can be asked as soon as each stage has one.', stage);
    }
  }
  return '';
}

/** A number that was typed, or null where it is none from `least` to `most`. */
export function numberIn(text: string, least: number, most: number, isWhole: boolean): number | null {
  const value = text.trim() === '' ? NaN : Number(text);
  return Number.isFinite(value) && value >= least && value <= most && (!isWhole || Number.isInteger(value)) ? value : null;
}
