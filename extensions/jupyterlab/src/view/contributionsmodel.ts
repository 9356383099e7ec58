/** What the Contributions pane shows: work as a stream, and figures of workers by rounds. DOM-free. */

import type { Curve, Receipt, RunPicture, WorkerPicture } from '../api/types';
import type { RoundWindow } from './rounds';

export interface Layer {
  name: string;
  tone: number;
  y: number[];
}

export interface Stream {
  x: number[];
  layers: Layer[];
}

/** Tones of watch.css: seven for the biggest, the eighth (grey) for all others together. */
export const OTHERS_TONE = 7;
const MOST_LAYERS = 7;

export function tonesOf(picture: RunPicture): Map<string, number> {
  return new Map(picture.participants.map((one, i) => [one.name, i % 8]));
}

/** Keep the biggest layers; the others become one, so that a stream of 500 workers can be read. */
export function merged(all: { name: string; tone: number; y: number[] }[], others: string): Layer[] {
  if (all.length <= MOST_LAYERS + 1) {
    return all;
  }
  const sum = (layer: { y: number[] }): number => layer.y.reduce((total, y) => total + y, 0);
  const biggest = new Set([...all].sort((a, b) => sum(b) - sum(a)).slice(0, MOST_LAYERS));
  const rest = all.filter(layer => !biggest.has(layer));
  const length = all[0]?.y.length ?? 0;
  const y = Array.from({ length }, (_, i) => rest.reduce((total, layer) => total + (layer.y[i] ?? 0), 0));
  // The kept ones may share a tone of the cycle of eight: they are told apart again by their order.
  const kept = all.filter(layer => biggest.has(layer)).map((layer, i) => ({ ...layer, tone: i % MOST_LAYERS }));
  return [...kept, { name: others, tone: OTHERS_TONE, y }];
}

/** Shares of the closed epochs by participant; `epochs` as the picture has them, or longer ones from the ledger. */
export function epochStream(
  picture: RunPicture,
  epochs: readonly { epoch: number; shares: Record<string, number | null> }[],
  others: string
): Stream {
  const tones = tonesOf(picture);
  const names = [...new Set([...picture.participants.map(one => one.name), ...epochs.flatMap(epoch => Object.keys(epoch.shares))])];
  const layers = names.map((name, i) => ({
    name,
    tone: tones.get(name) ?? i % 8,
    y: epochs.map(epoch => epoch.shares[name] ?? 0)
  }));
  return { x: epochs.map(epoch => epoch.epoch), layers: merged(layers, others) };
}

/** FLOPs of each of the window's rounds, by participant or by worker; rounds of which no work is known are left out. */
export function roundStream(picture: RunPicture, window: RoundWindow, by: 'participant' | 'worker', others: string): Stream {
  const tones = tonesOf(picture);
  const rounds: number[] = [];
  const sums = new Map<string, number[]>();
  const nameOf = (worker: WorkerPicture): string => (by === 'worker' ? worker.name : worker.participant || worker.name);
  for (const worker of picture.workers) {
    sums.set(nameOf(worker), []);
  }
  for (const round of window.rounds()) {
    const column = new Map<string, number>();
    for (const worker of picture.workers) {
      const work = window.value(worker.name, round, 'work');
      if (work !== null) {
        column.set(nameOf(worker), (column.get(nameOf(worker)) ?? 0) + work);
      }
    }
    // The newest round is not complete until the slowest worker has told of it: it would be drawn as a fall of all work.
    const isComplete = round < window.last || picture.over;
    if (column.size && isComplete) {
      rounds.push(round);
      for (const [name, y] of sums) {
        y.push(column.get(name) ?? 0);
      }
    }
  }
  const layers = [...sums].map(([name, y], i) => ({ name, tone: (by === 'participant' ? tones.get(name) : undefined) ?? i % 8, y }));
  return { x: rounds, layers: merged(layers, others) };
}

export interface HeatGrid {
  /** Names of workers, top to bottom; a stage's workers are together. */
  rows: { name: string; stage: number; participant: string; dead: boolean }[];
  /** The first and last round of each column. */
  columns: { from: number; to: number }[];
  /** Row-major; NaN where nothing is known. */
  values: Float32Array;
  low: number;
  high: number;
  /** The scale is about zero: negative values mean something else than small ones. */
  diverging: boolean;
}

const MOST_COLUMNS = 120;

/** A figure of every worker over the rounds of the window, or of the whole run as far as the picture's curves tell. */
export function heatGrid(picture: RunPicture, window: RoundWindow, measure: 'norm' | 'agreement', span: 'run' | 'window'): HeatGrid {
  const rows = picture.workers.map(worker => ({
    name: worker.name,
    stage: worker.stage,
    participant: worker.participant,
    dead: worker.state === 'dead'
  }));
  const first = span === 'run' ? 0 : (window.rounds()[0] ?? 0);
  const last = span === 'run' ? (picture.round ?? -1) : window.last;
  const count = last - first + 1;
  if (count <= 0) {
    return { rows, columns: [], values: new Float32Array(0), low: 0, high: 1, diverging: measure === 'agreement' };
  }
  // A curve keeps the least and the largest of even stretches: columns of a third as many as its points have few holes.
  const most = span === 'run' ? Math.min(MOST_COLUMNS, Math.floor(longest(picture, measure) / 3)) : MOST_COLUMNS;
  const width = Math.max(1, Math.ceil(count / Math.max(1, most)));
  const columns = Array.from({ length: Math.ceil(count / width) }, (_, i) => ({
    from: first + i * width,
    to: Math.min(last, first + (i + 1) * width - 1)
  }));
  const values = new Float32Array(rows.length * columns.length).fill(NaN);
  picture.workers.forEach((worker, row) => {
    const put = (round: number, value: number | null): void => {
      if (value === null || round < first || round > last) {
        return;
      }
      const at = row * columns.length + Math.floor((round - first) / width);
      const there = values[at];
      // A column of several rounds shows what stands out most: the largest norm, the smallest agreement.
      if (Number.isNaN(there) || (measure === 'norm' ? value > there : value < there)) {
        values[at] = value;
      }
    };
    if (span === 'run') {
      const curve = curveOf(worker, measure);
      curve.x.forEach((round, i) => put(round, curve.y[i] ?? null));
    } else {
      for (let round = first; round <= last; round += 1) {
        put(round, window.value(worker.name, round, measure));
      }
    }
  });
  return { rows, columns, values, ...limits(values, measure), diverging: measure === 'agreement' };
}

export function curveOf(worker: WorkerPicture, measure: 'norm' | 'agreement'): Curve {
  return measure === 'norm' ? worker.grad_norm : worker.agreement;
}

function longest(picture: RunPicture, measure: 'norm' | 'agreement'): number {
  return picture.workers.reduce((most, worker) => Math.max(most, curveOf(worker, measure).x.length), 0);
}

/** Agreement is a cosine: its scale is fixed. A norm's scale leaves out the upper 2 %, or one spike would darken all else. */
function limits(values: Float32Array, measure: 'norm' | 'agreement'): { low: number; high: number } {
  if (measure === 'agreement') {
    return { low: -1, high: 1 };
  }
  const known = values.filter(value => !Number.isNaN(value)).sort();
  if (!known.length) {
    return { low: 0, high: 1 };
  }
  const high = known[Math.min(known.length - 1, Math.floor(known.length * 0.98))];
  return { low: 0, high: high > 0 ? high : 1 };
}

/** Whether the curves of the picture cover the run: with very many workers they hold the last round only. */
export function coversRun(picture: RunPicture, measure: 'norm' | 'agreement'): boolean {
  return longest(picture, measure) > 2;
}

/** Whether any worker told this figure at all: with one replica a stage there is nobody to agree with. */
export function isMeasured(picture: RunPicture, window: RoundWindow, measure: 'norm' | 'agreement'): boolean {
  return picture.workers.some(worker => curveOf(worker, measure).x.length > 0) || window.rounds().some(round =>
    picture.workers.some(worker => window.value(worker.name, round, measure) !== null)
  );
}

export interface Signer {
  name: string;
  participant: string;
  receipts: number;
  tokens: number;
}

/** Who counter-signed these receipts, most first. */
export function signersOf(receipts: readonly Receipt[]): Signer[] {
  const signers = new Map<string, Signer>();
  for (const receipt of receipts) {
    const signer = signers.get(receipt.signer) ?? {
      name: receipt.signer,
      participant: receipt.signer_participant,
      receipts: 0,
      tokens: 0
    };
    signer.receipts += 1;
    signer.tokens += receipt.tokens;
    signers.set(receipt.signer, signer);
  }
  return [...signers.values()].sort((a, b) => b.receipts - a.receipts || b.tokens - a.tokens);
}
