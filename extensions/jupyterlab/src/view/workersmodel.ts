/** The rows of the Workers pane: filtered, grouped and sorted; and what is measured between two pictures. DOM-free. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { RunPicture, WorkerPicture } from '../api/types';
import { si } from './core';
import { delayText } from './parts';
import { isIdle, isLive, isTraining, stageDelay } from './rounds';

export type ColumnId =
  | 'name'
  | 'participant'
  | 'state'
  | 'device'
  | 'cpu'
  | 'memory'
  | 'gpu'
  | 'gpuMemory'
  | 'share'
  | 'speed'
  | 'delay'
  | 'busy'
  | 'sending'
  | 'sent'
  | 'round'
  | 'seen'
  | 'deaths';

export type Grouping = 'stage' | 'participant' | 'none';

export interface Sorting {
  column: ColumnId;
  descending: boolean;
}

export interface WorkerRow {
  kind: 'worker';
  key: string;
  worker: WorkerPicture;
  speed: number | null;
}

export interface GroupRow {
  kind: 'group';
  key: string;
  grouping: Grouping;
  /** The stage's number or the participant's name. */
  value: string;
  stage: number | null;
  workers: number;
  live: number;
  bytesPerS: number;
  /** Steps that the gradients of the group's stage are late; null for other groups and under the synchronous schedule. */
  delay: number | null;
  idle: number;
}

export type Row = WorkerRow | GroupRow;

/** Columns that say something about at least one worker of this run: an empty one is not drawn. */
export function columnsOf(picture: RunPicture): ColumnId[] {
  const some = (has: (worker: WorkerPicture) => boolean): boolean => picture.workers.some(has);
  const known = (value: number | null | undefined): boolean => value !== null && value !== undefined;
  const columns: ColumnId[] = ['name', 'participant', 'state'];
  if (some(worker => worker.device !== '')) {
    columns.push('device');
  }
  if (some(worker => known(worker.cpu_percent))) {
    columns.push('cpu');
  }
  if (some(worker => known(worker.memory_bytes))) {
    columns.push('memory');
  }
  if (some(worker => known(worker.gpu_percent))) {
    columns.push('gpu');
  }
  if (some(worker => known(worker.gpu_memory_bytes))) {
    columns.push('gpuMemory');
  }
  if (some(worker => worker.share > 0)) {
    columns.push('share');
  }
  if (some(worker => known(worker.tokens))) {
    columns.push('speed');
  }
  if (some(worker => known(worker.busy))) {
    columns.push('busy');
  }
  if (some(worker => known(worker.delay))) {
    columns.push('delay');
  }
  if (some(worker => known(worker.bytes_per_s))) {
    columns.push('sending');
  }
  if (some(worker => (worker.bytes_out ?? 0) > 0)) {
    columns.push('sent');
  }
  columns.push('round');
  if (some(worker => known(worker.silent_s))) {
    columns.push('seen');
  }
  if (some(worker => worker.deaths > 0)) {
    columns.push('deaths');
  }
  return columns;
}

/**
 * Tokens a second of every worker, over the last `window_s` seconds of the run's own clock.
 *
 * Before there are two samples it is the mean over the run.
 */
export class Speeds {
  private readonly samples: { at: number; tokens: Map<string, number> }[] = [];

  constructor(private readonly window_s: number = 20) {}

  take(picture: RunPicture): void {
    const at = picture.elapsed_s;
    if (at === null) {
      return;
    }
    const newest = this.samples.at(-1);
    if (newest && at < newest.at) {
      this.samples.length = 0;
    }
    if (newest && at - newest.at < this.window_s / 20) {
      // So many samples are enough for one window; a finer one would only cost memory with many workers.
      return;
    }
    const tokens = new Map<string, number>();
    for (const worker of picture.workers) {
      if (worker.tokens !== null) {
        tokens.set(worker.name, worker.tokens);
      }
    }
    this.samples.push({ at, tokens });
    while (this.samples.length > 2 && at - (this.samples[1]?.at ?? at) >= this.window_s) {
      this.samples.shift();
    }
  }

  of(worker: WorkerPicture, picture: RunPicture): number | null {
    if (!isTraining(worker.state) || picture.over || worker.tokens === null || picture.elapsed_s === null) {
      return null;
    }
    const first = this.samples[0];
    // One that was not there yet had done nothing.
    const before = first?.tokens.get(worker.name) ?? 0;
    if (first && picture.elapsed_s > first.at && worker.tokens >= before) {
      return (worker.tokens - before) / (picture.elapsed_s - first.at);
    }
    return picture.elapsed_s > 0 ? worker.tokens / picture.elapsed_s : null;
  }
}

/** Whether a worker answers to every word of the filter: in its name, participant, state, device, reason, or as `stage:2`. */
export function matches(worker: WorkerPicture, filter: string): boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) {
    return true;
  }
  const text = `${worker.name} ${worker.participant} ${worker.state} ${worker.device} ${worker.reason}${isIdle(worker) ? ' idle' : ''}`.toLowerCase();
  return words.every(word => {
    const stage = /^stage[:=](-?\d+)$/.exec(word);
    return stage ? worker.stage === Number(stage[1]) : text.includes(word);
  });
}

const STATE_ORDER = ['dead', 'aside', 'starting', 'joining', 'syncing', 'warming', 'active', 'serving', 'stopped'];

/** What a column sorts by; null goes last in both directions. */
export function sortValue(row: WorkerRow, column: ColumnId): number | string | null {
  const { worker } = row;
  switch (column) {
    case 'name':
      return worker.name;
    case 'participant':
      return worker.participant;
    case 'state': {
      const at = STATE_ORDER.indexOf(worker.state);
      return at < 0 ? STATE_ORDER.length : at;
    }
    case 'device':
      return worker.device;
    case 'cpu':
      return worker.cpu_percent ?? null;
    case 'memory':
      return worker.memory_bytes ?? null;
    case 'gpu':
      return worker.gpu_percent ?? null;
    case 'gpuMemory':
      return worker.gpu_memory_bytes ?? null;
    case 'share':
      return worker.share;
    case 'speed':
      return row.speed;
    case 'sending':
      return isTraining(worker.state) ? worker.bytes_per_s : null;
    case 'sent':
      return worker.bytes_out;
    case 'round':
      return worker.round;
    case 'delay':
      return worker.delay ?? null;
    case 'busy':
      return busyOf(worker);
    case 'seen':
      return worker.silent_s ?? null;
    case 'deaths':
      return worker.deaths;
  }
}

/** How busy it is, or was in its last rounds; null of one that is not there. */
export function busyOf(worker: WorkerPicture): number | null {
  return isLive(worker.state) || worker.state === 'stopped' ? (worker.busy ?? null) : null;
}

// "worker-10" after "worker-9". One collator for all: making one for each comparison costs more than the comparison.
const collator = new Intl.Collator('en', { numeric: true });

function compare(a: number | string | null, b: number | string | null): number {
  if (typeof a === 'string' && typeof b === 'string') {
    return collator.compare(a, b);
  }
  return Number(a) - Number(b);
}

export interface RowsOptions {
  filter: string;
  grouping: Grouping;
  sorting: Sorting | null;
  folded: ReadonlySet<string>;
}

/** The rows in the order in which they are drawn; a folded group shows its head only. */
export function rowsOf(picture: RunPicture, speeds: Speeds, options: RowsOptions): { rows: Row[]; shown: number } {
  const kept = picture.workers.filter(worker => matches(worker, options.filter));
  const groups = new Map<string, WorkerRow[]>();
  for (const worker of kept) {
    const value = options.grouping === 'stage' ? String(worker.stage) : options.grouping === 'participant' ? worker.participant : '';
    const row: WorkerRow = { kind: 'worker', key: `w ${worker.name}`, worker, speed: speeds.of(worker, picture) };
    const group = groups.get(value);
    if (group) {
      group.push(row);
    } else {
      groups.set(value, [row]);
    }
  }
  const rows: Row[] = [];
  for (const [value, members] of groups) {
    const key = `g ${options.grouping} ${value}`;
    if (options.grouping !== 'none') {
      rows.push({
        kind: 'group',
        key,
        grouping: options.grouping,
        value,
        stage: options.grouping === 'stage' ? Number(value) : null,
        workers: members.length,
        live: members.filter(row => isLive(row.worker.state)).length,
        bytesPerS: members.reduce((sum, row) => sum + (isTraining(row.worker.state) ? (row.worker.bytes_per_s ?? 0) : 0), 0),
        delay: options.grouping === 'stage' ? stageDelay(members.map(row => row.worker)) : null,
        idle: picture.over ? 0 : members.filter(row => isIdle(row.worker)).length
      });
    }
    if (!options.folded.has(key)) {
      rows.push(...sorted(members, options.sorting));
    }
  }
  return { rows, shown: kept.length };
}

/** What the head of a group says. */
export function groupText(row: GroupRow, picture: RunPicture, trans: TranslationBundle): string {
  const size = row.stage === null ? undefined : picture.stage_parameters[row.stage];
  const title =
    row.stage === null ? row.value || trans.__('no participant') : row.stage < 0 ? trans.__('Not placed yet') : trans.__('Stage %1', row.stage);
  const parts = [
    picture.over ? trans._n('%1 worker', '%1 workers', row.workers) : trans.__('%1 of %2 live', row.live, row.workers),
    row.idle ? trans.__('%1 idle', row.idle) : '',
    size && picture.model_parameters ? trans.__('%1 of %2 parameters', si(size), si(picture.model_parameters)) : '',
    row.bytesPerS > 0 && !picture.over ? trans.__('sending %1', si(row.bytesPerS, 'B/s')) : '',
    delayText(row.delay, trans)
  ].filter(Boolean);
  return `${title}: ${parts.join(', ')}`;
}

function sorted(rows: WorkerRow[], sorting: Sorting | null): WorkerRow[] {
  if (!sorting) {
    return rows;
  }
  const sign = sorting.descending ? -1 : 1;
  return rows
    .map(row => ({ row, value: sortValue(row, sorting.column) }))
    .sort((a, b) => {
      if (a.value === null || b.value === null) {
        return (a.value === null ? 1 : 0) - (b.value === null ? 1 : 0);
      }
      return sign * compare(a.value, b.value) || collator.compare(a.row.worker.name, b.row.worker.name);
    })
    .map(({ row }) => row);
}
