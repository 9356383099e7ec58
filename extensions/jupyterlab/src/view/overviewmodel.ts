/** What the Overview pane shows, from a picture and the clock of its rounds. DOM-free. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { Curve, Mark, RunPicture } from '../api/types';
import { type Clock, workerHours } from './clock';
import { si } from './core';
import { idleOf, isLive, isTraining } from './rounds';

/** What the x axis counts. */
export type Across = 'rounds' | 'time' | 'hours' | 'megabytes';

export interface Cost {
  /** Hours of workers so far, and whether each of them had a GPU. */
  hours: number | null;
  onGpus: boolean;
  megabytes: number | null;
  /** Loss of the first round less the mean of the last ones. */
  gained: number | null;
  perHour: number | null;
  perMegabyte: number | null;
  bytesPerToken: number | null;
}

const RECENT = 5;

/** The mean of the last known values, which one noisy round does not move much. */
export function recentMean(curve: Curve, count: number = RECENT): number | null {
  const known = curve.y.filter((y): y is number => y !== null).slice(-count);
  return known.length ? known.reduce((sum, y) => sum + y, 0) / known.length : null;
}

export function lastKnown(curve: Curve): number | null {
  for (let i = curve.y.length - 1; i >= 0; i -= 1) {
    const y = curve.y[i];
    if (y !== null && y !== undefined) {
      return y;
    }
  }
  return null;
}

export function bytesSent(picture: RunPicture): number | null {
  let sum = 0;
  let known = false;
  for (const worker of picture.workers) {
    if (worker.bytes_out !== null) {
      known = true;
      sum += worker.bytes_out;
    }
  }
  return known && sum > 0 ? sum : null;
}

/** Workers that have been live: one that was attached and has still to join costs nothing yet. */
function numJoined(picture: RunPicture): number {
  return picture.workers.filter(worker => worker.round !== null || isLive(worker.state)).length;
}

export function costOf(picture: RunPicture, clock: Clock): Cost {
  const { round } = picture;
  const ofClock = round === null ? null : workerHours(clock, picture.marks, numJoined(picture), round);
  const hours = ofClock ?? (picture.elapsed_s === null ? null : (picture.elapsed_s * numJoined(picture)) / 3600);
  const bytes = bytesSent(picture);
  const megabytes = bytes === null ? null : bytes / 1e6;
  const first = picture.loss.y.find((y): y is number => y !== null);
  const last = recentMean(picture.loss);
  const gained = first === undefined || last === null || picture.loss.y.length < 2 ? null : first - last;
  return {
    hours,
    onGpus: picture.workers.length > 0 && picture.workers.every(worker => worker.device.startsWith('cuda')),
    megabytes,
    gained,
    perHour: gained === null || !hours ? null : gained / hours,
    perMegabyte: gained === null || !megabytes ? null : gained / megabytes,
    bytesPerToken: bytes === null || !picture.tokens ? null : bytes / picture.tokens
  };
}

/** The ways to count x that the data allow. */
export function axesOf(picture: RunPicture, clock: Clock): Across[] {
  const axes: Across[] = ['rounds'];
  if (!clock.isEmpty) {
    axes.push('time', 'hours');
  }
  if (bytesSent(picture) !== null) {
    axes.push('megabytes');
  }
  return axes;
}

/**
 * How far a round is along the axis, or null when that is not known.
 *
 * Megabytes grow evenly with the rounds: every round sends the same tensors, so only pauses of a dead worker are smoothed over.
 */
export function along(picture: RunPicture, clock: Clock, across: Across): (round: number) => number | null {
  if (across === 'rounds') {
    return round => round;
  }
  if (across === 'time') {
    return round => clock.at(round);
  }
  if (across === 'hours') {
    const workers = numJoined(picture);
    return round => workerHours(clock, picture.marks, workers, round);
  }
  const bytes = bytesSent(picture);
  const rounds = picture.rounds_done;
  return round => (bytes === null || rounds === 0 ? null : ((bytes / 1e6) * Math.min(rounds, round + 1)) / rounds);
}

/** A curve over another axis; points whose place is not known are left out. */
export function mapped(curve: Curve, place: (round: number) => number | null): Curve {
  const x: number[] = [];
  const y: (number | null)[] = [];
  curve.x.forEach((round, i) => {
    const at = place(round);
    if (at !== null) {
      x.push(at);
      y.push(curve.y[i] ?? null);
    }
  });
  return { x, y };
}

export function placedMarks(marks: readonly Mark[], place: (round: number) => number | null): (Mark & { x: number })[] {
  return marks
    .filter(mark => ['death', 'return', 'aside', 'back', 'joined', 'diverged'].includes(mark.kind))
    .flatMap(mark => {
      const x = place(mark.round);
      return x === null ? [] : [{ ...mark, x }];
    });
}

/** Bytes a second that training workers send now. */
function sendingNow(picture: RunPicture): number {
  return picture.workers.reduce((sum, worker) => sum + (isTraining(worker.state) ? (worker.bytes_per_s ?? 0) : 0), 0);
}

function deathsOf(picture: RunPicture): number {
  return picture.workers.reduce((sum, worker) => sum + worker.deaths, 0);
}

/** What is said below the number of workers: who is idle and what went wrong, or what they send. */
export function workersNote(picture: RunPicture, trans: TranslationBundle): string {
  const [idle, deaths, sending] = [idleOf(picture), deathsOf(picture), sendingNow(picture)];
  const history = [
    idle ? trans.__('%1 idle', idle) : '',
    deaths ? trans._n('%1 death', '%1 deaths', deaths) : '',
    picture.reroutes ? trans.__('%1 re-routed', picture.reroutes) : ''
  ].filter(Boolean);
  return history.join(', ') || (picture.over || sending === 0 ? trans.__('none died') : trans.__('sending %1', si(sending, 'B/s')));
}
