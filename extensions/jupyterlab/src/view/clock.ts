/** When each round was done, in seconds of the run's own clock: what turns rounds into time, worker-hours and megabytes. */

import type { Mark, RunEvent, RunPicture } from '../api/types';

/** Rounds ascending and the seconds since the run began to train; between two known rounds the line is straight. */
export class Clock {
  private readonly x: number[] = [];
  private readonly y: number[] = [];
  /** Seconds between stops and resumes, which a picture's elapsed time contains. */
  private paused = 0;

  get isEmpty(): boolean {
    return this.x.length === 0;
  }

  put(round: number, seconds: number): void {
    let place = this.x.length;
    while (place > 0 && this.x[place - 1] > round) {
      place -= 1;
    }
    if (place > 0 && this.x[place - 1] === round) {
      this.y[place - 1] = seconds;
      return;
    }
    this.x.splice(place, 0, round);
    this.y.splice(place, 0, seconds);
  }

  takePicture(picture: RunPicture): void {
    if (picture.round !== null && picture.elapsed_s !== null && picture.state === 'running') {
      this.put(picture.round, Math.max(0, picture.elapsed_s - this.paused));
    }
  }

  /** Events of the kinds `round` and `run.state`; a pause between a stop and a resume is not counted. */
  takeEvents(events: readonly RunEvent[]): void {
    let begun: number | null = null;
    this.paused = 0;
    let endedAt: number | null = null;
    for (const event of events) {
      if (event.kind === 'run.state') {
        const state = event.body.state;
        if (state === 'running') {
          begun ??= event.time;
          this.paused += endedAt === null ? 0 : event.time - endedAt;
          endedAt = null;
        } else if (state === 'stopped' || state === 'failed') {
          endedAt ??= event.time;
        }
      } else if (event.kind === 'round' && event.round !== null && begun !== null) {
        this.put(event.round, Math.max(0, event.time - begun - this.paused));
      }
    }
  }

  /** Seconds at the end of `round`; the start of round 0 is at 0. Null when nothing is known. */
  at(round: number): number | null {
    const { x, y } = this;
    if (!x.length) {
      return null;
    }
    let low = -1;
    let high = x.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (x[middle] <= round) {
        low = middle;
      } else {
        high = middle;
      }
    }
    if (low < 0) {
      return (y[0] * (round + 1)) / (x[0] + 1);
    }
    if (high >= x.length) {
      // Beyond the last known round at the pace so far.
      return y[low] + ((round - x[low]) * y[low]) / (x[low] + 1);
    }
    return y[low] + ((y[high] - y[low]) * (round - x[low])) / (x[high] - x[low]);
  }
}

/** Hours of workers up to the end of `round`: the integral of the number of live workers over the clock. */
export function workerHours(clock: Clock, marks: readonly Mark[], workers: number, round: number): number | null {
  const end = clock.at(round);
  if (end === null) {
    return null;
  }
  // Who was attached is among the workers, and was not there from the beginning.
  let live = workers - marks.filter(mark => mark.kind === 'joined').length;
  let from = 0;
  let seconds = 0;
  const aside = new Set<string>();
  for (const mark of [...marks].sort((a, b) => a.round - b.round)) {
    if (mark.round > round || !['death', 'return', 'aside', 'back', 'joined'].includes(mark.kind)) {
      continue;
    }
    if (mark.kind === 'death' && aside.has(mark.worker)) {
      continue; // it was not there any more
    }
    const at = Math.min(end, clock.at(mark.round) ?? end);
    seconds += live * Math.max(0, at - from);
    from = Math.max(from, at);
    if (mark.kind === 'aside') {
      aside.add(mark.worker);
    } else {
      aside.delete(mark.worker);
    }
    live = Math.min(workers, Math.max(0, live + (mark.kind === 'death' || mark.kind === 'aside' ? -1 : 1)));
  }
  return (seconds + live * Math.max(0, end - from)) / 3600;
}
