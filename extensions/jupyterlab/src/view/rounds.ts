/** What each worker did in each of the latest rounds: filled from pictures as they come and from events read back. */

import type { Curve, RunEvent, RunPicture, WorkerPicture } from '../api/types';

/** A figure that is kept for each worker and round. */
export type Measure = 'norm' | 'agreement' | 'work';

/** Bytes a second from one worker to another, by kind of traffic. */
export interface Link {
  from: string;
  to: string;
  boundary: number;
  sync: number;
}

/** Rounds over which bytes are averaged, as many as `round_s` is the mean of: replicas that exchange seldom send nothing in most. */
const LINK_ROUNDS = 20;

/** What a worker sent to each of the others in a round, as its event says. */
interface Sent {
  seq: number;
  round: number;
  links: Record<string, unknown>;
}

class Lane {
  readonly at: Int32Array;
  readonly values: Record<Measure, Float32Array>;
  /** Rounds whose work was told by an event; a guess never replaces it. */
  readonly told: Uint8Array;

  constructor(size: number) {
    this.at = new Int32Array(size).fill(-1);
    this.values = { norm: nan(size), agreement: nan(size), work: nan(size) };
    this.told = new Uint8Array(size);
  }

  /** The place of `round`, emptied if an older round was there; -1 if a newer one is. */
  place(round: number): number {
    const place = round % this.at.length;
    if (this.at[place] > round) {
      return -1;
    }
    if (this.at[place] < round) {
      this.at[place] = round;
      this.told[place] = 0;
      for (const values of Object.values(this.values)) {
        values[place] = NaN;
      }
    }
    return place;
  }
}

function nan(size: number): Float32Array {
  return new Float32Array(size).fill(NaN);
}

/**
 * A window over the latest `size` rounds, of flat memory: one ring a worker.
 *
 * A picture tells the last round of every worker (and some before it); work done between two pictures is spread evenly over
 * the rounds between them, until an event says exactly what was done.
 */
export class RoundWindow {
  private readonly lanes = new Map<string, Lane>();
  private readonly before = new Map<string, { round: number; work: number }>();
  private readonly sent = new Map<string, Sent[]>();
  private newest = -1;

  constructor(readonly size: number = 240) {}

  /** The newest round that anything is known of; -1 if none. */
  get last(): number {
    return this.newest;
  }

  /** The first round of the window. */
  get first(): number {
    return Math.max(0, this.newest - this.size + 1);
  }

  takePicture(picture: RunPicture): void {
    if (picture.round !== null && picture.round < this.newest - this.size) {
      // A resumed run can begin again far back.
      this.clear();
    }
    for (const worker of picture.workers) {
      this.takeCurve(worker.name, 'norm', worker.grad_norm);
      this.takeCurve(worker.name, 'agreement', worker.agreement);
      if (worker.round === null || worker.work_flops === null) {
        continue;
      }
      const before = this.before.get(worker.name);
      if (before && worker.round > before.round && worker.work_flops >= before.work) {
        const each = (worker.work_flops - before.work) / (worker.round - before.round);
        for (let round = Math.max(before.round + 1, worker.round - this.size + 1); round <= worker.round; round += 1) {
          this.guessWork(worker.name, round, each);
        }
      }
      this.before.set(worker.name, { round: worker.round, work: worker.work_flops });
    }
  }

  takeEvents(events: readonly RunEvent[]): void {
    for (const event of events) {
      if (event.kind !== 'worker.round' || event.worker === null || event.round === null) {
        continue;
      }
      this.put(event.worker, event.round, 'norm', number(event.body.grad_norm));
      this.put(event.worker, event.round, 'agreement', number(event.body.agreement));
      const place = this.put(event.worker, event.round, 'work', number(event.body.work_flops));
      if (place >= 0) {
        this.lane(event.worker).told[place] = 1;
      }
      if (isRecord(event.body.links)) {
        this.takeSent(event.worker, { seq: event.seq, round: event.round, links: event.body.links });
      }
    }
  }

  value(worker: string, round: number, measure: Measure): number | null {
    const lane = this.lanes.get(worker);
    if (!lane || round < 0 || lane.at[round % this.size] !== round) {
      return null;
    }
    const value = lane.values[measure][round % this.size];
    return Number.isNaN(value) ? null : value;
  }

  /** The rounds of the window in which any worker did something, ascending. */
  rounds(): number[] {
    const seen = new Uint8Array(this.size);
    const first = this.first;
    for (const lane of this.lanes.values()) {
      for (const round of lane.at) {
        if (round >= first && round <= this.newest) {
          seen[round - first] = 1;
        }
      }
    }
    const rounds: number[] = [];
    seen.forEach((is, i) => {
      if (is) {
        rounds.push(first + i);
      }
    });
    return rounds;
  }

  /** What each live worker sends to whom, in bytes a second, over its last rounds; `round_s` turns bytes a round into a rate. */
  links(picture: RunPicture): Link[] {
    const seconds = picture.round_s;
    if (!seconds) {
      return [];
    }
    const live = new Set(picture.workers.filter(worker => isTraining(worker.state)).map(worker => worker.name));
    const links: Link[] = [];
    for (const [from, rounds] of this.sent) {
      if (!live.has(from)) {
        continue;
      }
      const sums = new Map<string, Link>();
      for (const { links: peers } of rounds) {
        for (const [to, kinds] of Object.entries(peers)) {
          if (!live.has(to) || !isRecord(kinds)) {
            continue;
          }
          const sum = sums.get(to) ?? { from, to, boundary: 0, sync: 0 };
          sum.boundary += (number(kinds.forward_bytes) ?? 0) + (number(kinds.backward_bytes) ?? 0);
          sum.sync += number(kinds.sync_bytes) ?? 0;
          sums.set(to, sum);
        }
      }
      const during = seconds * rounds.length;
      for (const { to, boundary, sync } of sums.values()) {
        if (boundary + sync > 0) {
          links.push({ from, to, boundary: boundary / during, sync: sync / during });
        }
      }
    }
    return links;
  }

  clear(): void {
    this.lanes.clear();
    this.before.clear();
    this.sent.clear();
    this.newest = -1;
  }

  private takeSent(worker: string, sent: Sent): void {
    const before = this.sent.get(worker) ?? [];
    if (before.length && sent.seq <= before[before.length - 1].seq) {
      return;
    }
    // Rounds from its own on were trained before a resumed run went back.
    this.sent.set(worker, [...before.filter(({ round }) => round < sent.round && round > sent.round - LINK_ROUNDS), sent]);
  }

  private takeCurve(worker: string, measure: Measure, curve: Curve): void {
    // Backwards, to the end of the window: a curve covers the whole run.
    for (let i = curve.x.length - 1; i >= 0 && curve.x[i] >= this.first; i -= 1) {
      this.put(worker, curve.x[i], measure, curve.y[i]);
    }
  }

  private guessWork(worker: string, round: number, work: number): void {
    const lane = this.lane(worker);
    const place = round % this.size;
    if (lane.at[place] === round && lane.told[place]) {
      return;
    }
    this.put(worker, round, 'work', work);
  }

  private put(worker: string, round: number, measure: Measure, value: number | null): number {
    const place = this.lane(worker).place(round);
    if (place >= 0 && value !== null) {
      this.lane(worker).values[measure][place] = value;
      this.newest = Math.max(this.newest, round);
    }
    return place;
  }

  private lane(worker: string): Lane {
    let lane = this.lanes.get(worker);
    if (!lane) {
      lane = new Lane(this.size);
      this.lanes.set(worker, lane);
    }
    return lane;
  }
}

/** Whether it trains now: a worker that serves keeps the figures of its last round, which are not news. */
export function isTraining(state: string): boolean {
  return state === 'warming' || state === 'active';
}

const LIVE = new Set(['warming', 'active', 'serving']);

export function isLive(state: string): boolean {
  return LIVE.has(state);
}

/** How many steps the gradients of a stage are late, on average over its workers; null under the synchronous schedule. */
export function stageDelay(workers: readonly WorkerPicture[]): number | null {
  const known = workers.flatMap(worker => (typeof worker.delay === 'number' ? [worker.delay] : []));
  return known.length ? known.reduce((sum, delay) => sum + delay, 0) / known.length : null;
}

/** Workers that take part and have next to nothing to do. */
export function idleOf(picture: RunPicture): number {
  return picture.over ? 0 : picture.workers.filter(isIdle).length;
}

export function isIdle(worker: WorkerPicture): boolean {
  return worker.idle === true && isTraining(worker.state);
}

function number(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
