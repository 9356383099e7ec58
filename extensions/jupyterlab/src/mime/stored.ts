/** Reads a picture that a notebook stored. Anybody may have written that notebook: only what has the right shape is drawn. */

import type { RunPicture } from '../api/types';
import { isRunId } from '../runs/code';

export const RUN_MIME = 'application/vnd.pluralis.run+json';

/** A picture with so many parts would only freeze the page. */
const MOST_WORKERS = 5000;
const MOST_POINTS = 20_000;

export type Stored = { picture: RunPicture } | { problem: 'version' | 'shape' };

export function readStored(data: unknown): Stored {
  if (!isObject(data)) {
    return { problem: 'shape' };
  }
  if (data.version !== 1) {
    return { problem: typeof data.version === 'number' ? 'version' : 'shape' };
  }
  const isGood =
    isRunId(data.run) &&
    TEXTS.every(name => typeof data[name] === 'string') &&
    COUNTS.every(name => isCount(data[name])) &&
    LISTS.every(name => isListOfObjects(data[name])) &&
    CURVES.every(name => isCurve(data[name])) &&
    isObject(data.wire) &&
    (data.workers as Record<string, unknown>[]).every(isWorker) &&
    [...(data.participants as { name: unknown }[]), ...(data.workers as { name: unknown }[])].every(one => typeof one.name === 'string');
  return isGood ? { picture: data as unknown as RunPicture } : { problem: 'shape' };
}

const TEXTS = ['name', 'state', 'headline'];
const COUNTS = ['seq', 'stages', 'replicas', 'steps', 'rounds_done', 'epoch_rounds', 'live_workers', 'epochs_closed'];
const LISTS = ['workers', 'participants', 'marks', 'errors'];
const CURVES = ['loss', 'validation', 'tokens_per_s'];

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function isListOfObjects(value: unknown): boolean {
  return Array.isArray(value) && value.length <= MOST_WORKERS && value.every(isObject);
}

function isCurve(value: unknown): boolean {
  return (
    isObject(value) &&
    Array.isArray(value.x) &&
    Array.isArray(value.y) &&
    value.x.length === value.y.length &&
    value.x.length <= MOST_POINTS &&
    value.x.every(one => typeof one === 'number') &&
    value.y.every(one => one === null || typeof one === 'number')
  );
}

function isWorker(worker: Record<string, unknown>): boolean {
  return (
    typeof worker.stage === 'number' &&
    typeof worker.state === 'string' &&
    isCurve(worker.grad_norm) &&
    isCurve(worker.agreement)
  );
}
