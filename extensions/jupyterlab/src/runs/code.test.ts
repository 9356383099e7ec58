import { describe, expect, it } from 'vitest';

import { codeFor, isRunId } from './code';

describe('the code for a run', () => {
  it('opens and watches it', () => {
    expect(codeFor('0'.repeat(64))).toBe(`import pluralis_lab as pl\n\nrun = pl.open_run("${'0'.repeat(64)}")\nrun.watch()`);
  });

  it.each(['', 'abc', '"); import os; ("', 'A'.repeat(64), `${'a'.repeat(64)}\n`])('is not made of %j', text => {
    expect(isRunId(text)).toBe(false);
    expect(() => codeFor(text)).toThrow('64 characters');
  });
});
