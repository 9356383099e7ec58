import { describe, expect, it } from 'vitest';

import type { Spec, SpecCheck } from '../api/types';
import { type CheckState, SpecChecker } from './checker';

class Outside {
  timers: (() => void)[] = [];
  asked: { spec: Spec; signal: AbortSignal; answer: (result: SpecCheck) => void; fail: (error: Error) => void }[] = [];
  told: CheckState[] = [];
  checker = new SpecChecker(
    {
      check: (spec, signal) => new Promise((answer, fail) => this.asked.push({ spec, signal, answer, fail })),
      setTimer: (_after_s, callback) => {
        this.timers.push(callback);
        return () => {
          this.timers = this.timers.filter(one => one !== callback);
        };
      }
    },
    state => this.told.push(state)
  );
}

const good = { ok: true } as SpecCheck;
const tick = () => new Promise(resolve => setTimeout(resolve));

describe('the live check', () => {
  it('waits for a pause, and asks for the newest spec only', () => {
    const outside = new Outside();
    outside.checker.put({ steps: 1 });
    outside.checker.put({ steps: 2 });
    expect(outside.asked).toEqual([]);
    expect(outside.timers).toHaveLength(1);
    outside.timers[0]();
    expect(outside.asked.map(one => one.spec)).toEqual([{ steps: 2 }]);
  });

  it('drops the answer to what is no longer asked', async () => {
    const outside = new Outside();
    outside.checker.put({ steps: 1 });
    outside.timers[0]();
    outside.checker.put({ steps: 2 });
    expect(outside.asked[0].signal.aborted).toBe(true);
    outside.asked[0].answer(good);
    await tick();
    expect(outside.told.map(one => one.kind)).toEqual(['checking', 'checking']);
    outside.timers.at(-1)?.();
    outside.asked[1].answer(good);
    await tick();
    expect(outside.told.at(-1)).toEqual({ kind: 'checked', result: good });
  });

  it('says when no check could be made', async () => {
    const outside = new Outside();
    outside.checker.put({});
    outside.timers[0]();
    outside.asked[0].fail(new Error('no answer'));
    await tick();
    expect(outside.told.at(-1)).toEqual({ kind: 'failed', message: 'no answer' });
  });
});
