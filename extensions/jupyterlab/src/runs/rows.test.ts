import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { RunRow } from '../api/types';
import { ageText, canResume, figures, filterRows, LossTrail, rowLabel, sortRows, stateMark, stateText, summary, whyNoFarewell, whyNoInvitation, whyNoWorker, workerFacts } from './rows';

const trans = nullTranslator.load('pluralis_lab');

function row(change: Partial<RunRow> = {}): RunRow {
  return {
    id: 'a'.repeat(64),
    name: 'calm-otter',
    state: 'running',
    reason: '',
    engine: 'swarm',
    created: 1000,
    data: 'stdlib',
    stages: 3,
    replicas: 2,
    workers: 6,
    live_workers: 5,
    rounds_done: 40,
    steps: 300,
    loss: 2.5,
    validation: null,
    tokens_per_s: 12_345,
    unigram_nats: null,
    participants: ['lab-a'],
    host: '127.0.0.1',
    own_data: 0,
    account: 'lab-a',
    chain: 'embedded',
    ...change
  };
}

describe('a worker more', () => {
  it('can come to a run that trains, and the reason is said where it cannot', () => {
    expect(whyNoWorker(row(), trans)).toBe('');
    expect(whyNoWorker(row({ state: 'starting' }), trans)).toBe('');
    expect(whyNoWorker(row({ engine: 'virtual' }), trans)).toContain('simulation');
    expect(whyNoWorker(row({ state: 'serving' }), trans)).toContain('no work left');
    expect(whyNoWorker(row({ state: 'paused' }), trans)).toContain('when it is on again');
    for (const state of ['stopped', 'failed', 'damaged'] as const) {
      expect(whyNoWorker(row({ state }), trans)).toContain('resume it first');
    }
  });
});

describe('an invitation and a farewell', () => {
  it('are of a live run with real processes', () => {
    expect(whyNoInvitation(row(), trans)).toBe('');
    expect(whyNoInvitation(row({ engine: 'virtual' }), trans)).toContain('nobody can be invited');
    expect(whyNoInvitation(row({ state: 'serving' }), trans)).toContain('no work left');
    expect(whyNoInvitation(row({ state: 'stopped' }), trans)).toContain('resume it first');
    expect([whyNoFarewell(row(), trans), whyNoFarewell(row({ state: 'serving' }), trans)]).toEqual(['', '']);
    expect(whyNoFarewell(row({ engine: 'virtual' }), trans)).toContain('simulation');
    expect(whyNoFarewell(row({ state: 'stopped' }), trans)).toContain('live run');
  });
});

describe('a line of the list', () => {
  it('says what counts, in words and figures', () => {
    expect(figures(row(), trans)).toEqual(['loss 2.500', '5 of 6 workers', '12.3 k tokens/s']);
    expect(figures(row({ state: 'stopped', loss: null }), trans)).toEqual(['6 workers']);
    expect(rowLabel(row(), 1000 + 7200, trans)).toBe(
      'Run calm-otter, running, round 40 of 300, loss 2.500, 5 of 6 workers, 12.3 k tokens/s, 2 h ago'
    );
  });

  it('says how the workers do, each only where there is something to say', () => {
    const doing = { phases: { active: 3, dead: 1, syncing: 2 }, idle_workers: 1, bytes_per_s: 2_500_000, stage_delay: 5.5 };
    expect(workerFacts(row(doing), trans)).toEqual(['2 syncing', '1 dead', '1 idle', 'sending 2.50 MB/s', 'gradients up to 5.5 steps late']);
    expect(workerFacts(row({ phases: { active: 6 }, idle_workers: 0, bytes_per_s: 0, stage_delay: 0.04 }), trans)).toEqual([]);
    expect(workerFacts(row({ idle_workers: null, bytes_per_s: null, stage_delay: null }), trans)).toEqual([]);
    expect(workerFacts(row({ state: 'serving', phases: { serving: 5, active: 1 } }), trans)).toEqual(['1 active']);
    expect(workerFacts(row({ phases: { aside: 1, active: 5 } }), trans)).toEqual(['1 set aside']);
    // Of a run that has ended only what stays true.
    expect(workerFacts(row({ ...doing, state: 'stopped' }), trans)).toEqual(['gradients up to 5.5 steps late']);
  });

  it('has a mark of its own for each state', () => {
    const states = ['starting', 'running', 'paused', 'serving', 'stopped', 'failed', 'damaged'] as const;
    expect(new Set(states.map(stateMark)).size).toBe(states.length);
  });

  it('calls a stopped run finished when it did all its rounds, and resumes only the others', () => {
    const done = row({ state: 'stopped', rounds_done: 300 });
    const half = row({ state: 'stopped' });
    expect([stateText(done, trans), stateText(half, trans)]).toEqual(['finished', 'stopped']);
    expect([canResume(done), canResume(half), canResume(row())]).toEqual([false, true, false]);
  });

  it('tells ages in one unit, and knows no future', () => {
    expect([30, 300, 7200, 200_000, -5].map(age => ageText(0, age, trans))).toEqual(['just now', '5 min ago', '2 h ago', '2 d ago', 'just now']);
  });
});

describe('the list', () => {
  const old = row({ id: 'b'.repeat(64), name: 'old', state: 'stopped', created: 1, data: 'digits' });
  const live = row({ id: 'c'.repeat(64), name: 'live', created: 2 });
  const newer = row({ id: 'd'.repeat(64), name: 'newer', state: 'failed', created: 3 });

  it('puts live runs first, then the newest', () => {
    expect(sortRows([old, newer, live]).map(one => one.name)).toEqual(['live', 'newer', 'old']);
  });

  it('filters by all words, in any order and field', () => {
    expect(filterRows([old, newer, live], 'DIGITS  stop', trans)).toEqual([old]);
    expect(filterRows([old, newer, live], '  ', trans)).toHaveLength(3);
    expect(filterRows([old, newer, live], 'dddd', trans)).toEqual([newer]);
  });

  it('sums up', () => {
    expect(summary([old, newer, live], trans)).toBe('3 runs, 1 live');
    expect(summary([old], trans)).toBe('1 run, none live');
  });
});

describe('a trail of losses', () => {
  it('grows with the rounds, starts over after a resume, and forgets what is gone', () => {
    const trail = new LossTrail();
    trail.put([row({ rounds_done: 1, loss: 3 })]);
    trail.put([row({ rounds_done: 1, loss: 3 })]);
    trail.put([row({ rounds_done: 2, loss: 2.9 })]);
    expect(trail.of('a'.repeat(64))).toEqual({ x: [1, 2], y: [3, 2.9] });
    trail.put([row({ rounds_done: 0, loss: 3.1 })]);
    expect(trail.of('a'.repeat(64))).toEqual({ x: [0], y: [3.1] });
    trail.put([]);
    expect(trail.of('a'.repeat(64))).toBeUndefined();
  });
});
