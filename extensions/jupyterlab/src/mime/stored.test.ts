import { describe, expect, it } from 'vitest';

import { readStored } from './stored';

const curve = { x: [1], y: [2] };
const worker = { name: 'w', stage: 0, state: 'active', grad_norm: curve, agreement: curve };
const good = {
  version: 1,
  run: 'a'.repeat(64),
  name: 'n',
  state: 'running',
  headline: 'h',
  seq: 1,
  stages: 1,
  replicas: 1,
  steps: 1,
  rounds_done: 1,
  epoch_rounds: 1,
  live_workers: 1,
  epochs_closed: 0,
  workers: [worker],
  participants: [{ name: 'p' }],
  marks: [],
  errors: [],
  loss: curve,
  validation: curve,
  tokens_per_s: curve,
  wire: {}
};

describe('a stored picture', () => {
  it('is taken when it has the right shape', () => {
    expect(readStored(good)).toEqual({ picture: good });
  });

  it('of a newer version is named so', () => {
    expect(readStored({ ...good, version: 2 })).toEqual({ problem: 'version' });
  });

  it.each([
    ['nothing', null],
    ['a text', 'x'],
    ['an id that is a path', { ...good, run: '../../etc' }],
    ['a number for a name', { ...good, name: 3 }],
    ['a curve of unequal lengths', { ...good, loss: { x: [1, 2], y: [1] } }],
    ['texts in a curve', { ...good, loss: { x: ['<b>'], y: [1] } }],
    ['workers that are no list', { ...good, workers: {} }],
    ['a worker without a curve', { ...good, workers: [{ ...worker, grad_norm: null }] }],
    ['more workers than a page can draw', { ...good, workers: Array.from({ length: 5001 }, () => worker) }]
  ])('is refused with %s', (_, data) => {
    expect(readStored(data)).toEqual({ problem: 'shape' });
  });
});
