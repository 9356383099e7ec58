import { describe, expect, it } from 'vitest';

import { ApiRefusal } from '../api/client';
import type { RunRow } from '../api/types';
import { RunList } from './list';

class Outside {
  waits: number[] = [];
  asked = 0;
  answer: RunRow[] | Error = [];
  list = new RunList({
    ask: () => {
      this.asked += 1;
      return this.answer instanceof Error ? Promise.reject(this.answer) : Promise.resolve(this.answer);
    },
    setTimer: after_s => {
      this.waits.push(after_s);
      return () => undefined;
    },
    pace_s: () => 4
  });
}

describe('the list of runs', () => {
  it('asks at the set pace while watched, and seldom otherwise', async () => {
    const { list, waits } = new Outside();
    await list.refresh();
    const stop = list.watch();
    await list.refresh();
    stop();
    await list.refresh();
    expect(waits).toEqual([24, 4, 24]);
  });

  it('asks once for questions at the same time', async () => {
    const outside = new Outside();
    await Promise.all([outside.list.refresh(), outside.list.refresh()]);
    expect(outside.asked).toBe(1);
  });

  it('tells of news only, and keeps the rows when the server falls silent', async () => {
    const outside = new Outside();
    let told = 0;
    outside.list.changed.connect(() => (told += 1));
    outside.answer = [{ id: 'a' } as RunRow];
    await outside.list.refresh();
    await outside.list.refresh();
    expect(told).toBe(1);
    outside.answer = new ApiRefusal('no answer', 0, 'unreachable');
    await outside.list.refresh();
    expect(told).toBe(2);
    expect(outside.list.rows).toHaveLength(1);
    expect(outside.list.problem).toBe('no answer');
  });
});
