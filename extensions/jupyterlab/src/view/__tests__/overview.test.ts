import { describe, expect, it } from 'vitest';

import type { Mark } from '../../api/types';
import { Clock } from '../clock';
import { along, axesOf, costOf, mapped, placedMarks } from '../overviewmodel';
import { events, recorded } from './pictures';

describe('the overview', () => {
  it('computes what a unit of loss cost, from the recorded run', () => {
    const picture = recorded();
    const clock = new Clock();
    clock.takeEvents(events);
    const cost = costOf(picture, clock);
    const sent = picture.workers.reduce((sum, worker) => sum + (worker.bytes_out ?? 0), 0);
    expect(cost.megabytes).toBeCloseTo(sent / 1e6);
    expect(cost.hours).toBeCloseTo(((clock.at(picture.round ?? 0) ?? 0) * picture.workers.length) / 3600, 6);
    expect(cost.gained).toBeGreaterThan(0);
    expect(cost.perHour).toBeCloseTo((cost.gained ?? 0) / (cost.hours ?? 1));
    expect(cost.onGpus).toBe(false);
    // One that is on its way has cost nothing yet.
    picture.workers.push({ ...picture.workers[0], name: 'worker-99', state: 'syncing', round: null, bytes_out: 0 });
    expect(costOf(picture, clock).hours).toBe(cost.hours);
  });

  it('offers time only when it is known, and keeps every point in order along any axis', () => {
    const picture = recorded();
    const clock = new Clock();
    expect(axesOf(picture, clock)).toEqual(['rounds', 'megabytes']);
    clock.takeEvents(events);
    expect(axesOf(picture, clock)).toEqual(['rounds', 'time', 'hours', 'megabytes']);
    for (const across of axesOf(picture, clock)) {
      const curve = mapped(picture.loss, along(picture, clock, across));
      expect(curve.x.length).toBe(picture.loss.x.length);
      expect(curve.x.every((x, i) => i === 0 || x > (curve.x[i - 1] ?? Infinity))).toBe(true);
    }
  });

  it('puts deaths and returns where they happened on the chosen axis', () => {
    const marks: Mark[] = [
      { kind: 'death', round: 5, worker: 'a', text: 'a died' },
      { kind: 'reroute', round: 5, worker: '', text: '' }
    ];
    expect(placedMarks(marks, round => round * 2)).toEqual([{ kind: 'death', round: 5, worker: 'a', text: 'a died', x: 10 }]);
  });
});
