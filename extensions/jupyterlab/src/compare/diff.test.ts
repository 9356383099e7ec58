import { describe, expect, it } from 'vitest';

import { differences } from './diff';

describe('the differences of two specs', () => {
  it('are named by their path, in the order of the fields', () => {
    const a = { model: { kind: 'gpt', n_layer: 6 }, steps: 300, attesters: null, seed: 0 };
    const b = { model: { kind: 'mlp', widths: [64, 10] }, steps: 300, attesters: ['x', 'y'], seed: 1 };
    expect(differences(a, b)).toEqual([
      { path: 'model.kind', a: 'gpt', b: 'mlp' },
      { path: 'model.n_layer', a: '6', b: '–' },
      { path: 'attesters', a: '–', b: 'x, y' },
      { path: 'seed', a: '0', b: '1' },
      { path: 'model.widths', a: '–', b: '64, 10' }
    ]);
  });

  it('are none for the same spec', () => {
    expect(differences({ a: { b: [1] } }, { a: { b: [1] } })).toEqual([]);
  });
});
