/** What a line of the list says, and which lines there are: no page, no clock. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { fixed, si } from '@pluralis-lab/views/numbers.js';

import type { RunRow, RunState } from '../api/types';
import { delayText, stateWord } from '../view/parts';

/** The state as a shape, so that colour is never the only mark. */
const MARKS: Record<RunState, string> = {
  starting: '◐',
  running: '●',
  paused: '‖',
  serving: '◆',
  stopped: '■',
  failed: '✕',
  damaged: '⚠'
};

export function stateMark(state: RunState): string {
  return MARKS[state] ?? '?';
}

export function isLive(row: Pick<RunRow, 'state'>): boolean {
  return ['starting', 'running', 'paused', 'serving'].includes(row.state);
}

export function isFinished(row: Pick<RunRow, 'state' | 'rounds_done' | 'steps'>): boolean {
  return row.state === 'stopped' && row.rounds_done >= row.steps;
}

/** A run that ended before its last round can go on. */
export function canResume(row: RunRow): boolean {
  return (row.state === 'stopped' || row.state === 'failed') && row.rounds_done < row.steps;
}

/** Why no worker can be added to a run, for a reader; "" where one can. */
export function whyNoWorker(run: Pick<RunRow, 'state' | 'engine'>, trans: TranslationBundle): string {
  if (run.engine === 'virtual') {
    return trans.__('A simulation has no processes, so no worker can be added to it.');
  }
  if (run.state === 'serving') {
    return trans.__('All rounds are trained: there is no work left for another worker.');
  }
  if (run.state === 'paused') {
    return trans.__('The run is paused and goes back to its last checkpoint: add the worker when it is on again.');
  }
  return run.state === 'starting' || run.state === 'running' ? '' : trans.__('Workers can be added while a run is live; resume it first.');
}

/** Why nobody can be invited to a run, for a reader; "" where somebody can. */
export function whyNoInvitation(run: Pick<RunRow, 'state' | 'engine'>, trans: TranslationBundle): string {
  if (run.engine === 'virtual') {
    return trans.__('A simulation has no processes, so nobody can be invited to it.');
  }
  return whyNoWorker(run, trans);
}

/** Why no worker can be let go from a run, for a reader; "" where one can. */
export function whyNoFarewell(run: Pick<RunRow, 'state' | 'engine'>, trans: TranslationBundle): string {
  if (run.engine === 'virtual') {
    return trans.__('A simulation has no processes, so no worker can be asked to leave.');
  }
  return isLive(run) ? '' : trans.__('Only from a live run a worker can be let go.');
}

/** The state in words of the reader's language. */
export function stateText(row: RunRow, trans: TranslationBundle): string {
  switch (row.state) {
    case 'starting':
      return trans.__('starting');
    case 'running':
      return trans.__('running');
    case 'paused':
      return trans.__('paused');
    case 'serving':
      return trans.__('serving');
    case 'stopped':
      return isFinished(row) ? trans.__('finished') : trans.__('stopped');
    case 'failed':
      return trans.__('failed');
    case 'damaged':
      return trans.__('damaged');
    default:
      return row.state;
  }
}

/** "3 min ago"; one unit is enough in a list. */
export function ageText(created: number, now_s: number, trans: TranslationBundle): string {
  const age = Math.max(0, now_s - created);
  if (age < 60) {
    return trans.__('just now');
  }
  const [size, unit] = age < 3600 ? [60, 'min'] : age < 86400 ? [3600, 'h'] : [86400, 'd'];
  return trans.__('%1 %2 ago', Math.floor(age / size), unit);
}

/** The figures of a run, as far as they are known, in the order in which one looks for them. */
export function figures(row: RunRow, trans: TranslationBundle): string[] {
  const parts: string[] = [];
  if (row.loss !== null) {
    parts.push(trans.__('loss %1', fixed(row.loss, 3)));
  }
  const { live_workers: live, workers } = row;
  parts.push(
    isLive(row) && live !== null && live !== workers
      ? trans._n('%2 of %1 worker', '%2 of %1 workers', workers, live)
      : trans._n('%1 worker', '%1 workers', workers)
  );
  if (isLive(row) && row.tokens_per_s !== null) {
    parts.push(trans.__('%1 tokens/s', si(row.tokens_per_s)));
  }
  return parts;
}

/** The states of a worker, in the order in which it comes through them. */
const PHASES = ['starting', 'joining', 'syncing', 'warming', 'active', 'serving', 'aside', 'dead', 'stopped'];

/** How the workers of a live run do, and how late a stage is: each only where there is something to say. */
export function workerFacts(row: RunRow, trans: TranslationBundle): string[] {
  const parts: string[] = [];
  if (isLive(row)) {
    const usual = row.state === 'serving' ? 'serving' : 'active';
    const phases = Object.entries(row.phases ?? {}).sort(([a], [b]) => PHASES.indexOf(a) - PHASES.indexOf(b));
    for (const [state, count] of phases) {
      if (state !== usual && count > 0) {
        parts.push(trans.__('%1 %2', count, stateWord(state, trans)));
      }
    }
    if (row.idle_workers) {
      parts.push(trans.__('%1 idle', row.idle_workers));
    }
    if (row.bytes_per_s) {
      parts.push(trans.__('sending %1', si(row.bytes_per_s, 'B/s')));
    }
  }
  const delay = row.stage_delay ?? null;
  if (delayText(delay, trans)) {
    parts.push(trans.__('gradients up to %1 steps late', fixed(delay, 1)));
  }
  return parts;
}

/** Everything a screen reader should hear of a line. */
export function rowLabel(row: RunRow, now_s: number, trans: TranslationBundle): string {
  return [
    trans.__('Run %1', row.name),
    stateText(row, trans),
    trans.__('round %1 of %2', row.rounds_done, row.steps),
    ...figures(row, trans),
    ageText(row.created, now_s, trans)
  ].join(', ');
}

/** Lines that hold every word of `text`, in any order: name, id, state, data, engine, accounts. */
export function filterRows(rows: RunRow[], text: string, trans: TranslationBundle): RunRow[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(row => {
    const about = [row.name, row.id, row.state, stateText(row, trans), row.data, row.engine, row.account, ...row.participants]
      .join(' ')
      .toLowerCase();
    return words.every(word => about.includes(word));
  });
}

/** Live runs first, then the newest. */
export function sortRows(rows: RunRow[]): RunRow[] {
  return [...rows].sort((a, b) => Number(isLive(b)) - Number(isLive(a)) || b.created - a.created);
}

/** What the list holds, in one line. */
export function summary(rows: RunRow[], trans: TranslationBundle): string {
  const live = rows.filter(isLive).length;
  return live
    ? trans._n('%1 run, %2 live', '%1 runs, %2 live', rows.length, live)
    : trans._n('%1 run, none live', '%1 runs, none live', rows.length);
}

/** Losses of live runs as they came by with the list: enough for a sparkline, without a request of its own. */
export class LossTrail {
  put(rows: RunRow[]): void {
    for (const row of rows) {
      if (row.loss === null || !isLive(row)) {
        continue;
      }
      const trail = this.trails.get(row.id) ?? { x: [], y: [] };
      this.trails.set(row.id, trail);
      const last = trail.x[trail.x.length - 1];
      if (last !== undefined && row.rounds_done < last) {
        trail.x.length = trail.y.length = 0; // resumed from a checkpoint
      }
      if (row.rounds_done !== last) {
        trail.x.push(row.rounds_done);
        trail.y.push(row.loss);
        if (trail.x.length > MOST_POINTS) {
          trail.x.shift();
          trail.y.shift();
        }
      }
    }
    const known = new Set(rows.map(row => row.id));
    for (const id of this.trails.keys()) {
      if (!known.has(id)) {
        this.trails.delete(id);
      }
    }
  }

  of(id: string): { x: number[]; y: (number | null)[] } | undefined {
    return this.trails.get(id);
  }

  private readonly trails = new Map<string, { x: number[]; y: (number | null)[] }>();
}

const MOST_POINTS = 120;

