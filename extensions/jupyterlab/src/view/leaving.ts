/** Which workers can be let go, and why one cannot be now. DOM-free. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { RunPicture, WorkerPicture } from '../api/types';
import { isLive } from './rounds';

const GONE = new Set(['dead', 'stopped']);
/** It has still to hear whom it works with. */
const NOT_UP = new Set(['starting', 'joining', 'aside']);

/** Whether it came to the run later: the spec names `replicas` a stage, and who is attached or joins gets a number behind them. */
export function isAttached(worker: WorkerPicture, picture: Pick<RunPicture, 'replicas'>): boolean {
  return worker.replica >= picture.replicas;
}

/** Workers that somebody may want to let go: they came later and are still there. */
export function leavable(picture: RunPicture): WorkerPicture[] {
  return picture.over || picture.engine === 'virtual' ? [] : picture.workers.filter(worker => isAttached(worker, picture) && !GONE.has(worker.state));
}

/** Why it cannot leave now, for a reader; "" where it can. */
export function whyNotNow(worker: WorkerPicture, picture: RunPicture, trans: TranslationBundle): string {
  if (NOT_UP.has(worker.state)) {
    return trans.__('%1 is not up yet: it can be let go when it is.', worker.name);
  }
  const isNeeded = !picture.workers.some(other => other.stage === worker.stage && other.name !== worker.name && isLive(other.state));
  return isNeeded ? trans.__('%1 is the only one that has stage %2: add another one there first.', worker.name, worker.stage) : '';
}
