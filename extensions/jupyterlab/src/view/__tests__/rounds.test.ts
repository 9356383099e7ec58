import { describe, expect, it } from 'vitest';

import type { RunEvent } from '../../api/types';
import { RoundDetail, windowStart } from '../rounddetail';
import { RoundWindow } from '../rounds';
import { crowd, events, recorded } from './pictures';

describe('the window of rounds', () => {
  it('tells exactly what the events say', () => {
    const window = new RoundWindow(64);
    window.takeEvents(events);
    for (const event of events.filter(one => one.kind === 'worker.round')) {
      expect(window.value(event.worker ?? '', event.round ?? 0, 'work')).toBeCloseTo(event.body.work_flops as number, -2);
    }
    expect(window.rounds()).toEqual(Array.from({ length: 35 }, (_, i) => i));
  });

  it('spreads work between two pictures evenly, and an event corrects the guess', () => {
    const [before, after] = [recorded(), recorded()];
    const worker = after.workers[0];
    const name = worker.name;
    worker.round = (before.workers[0]?.round ?? 0) + 4;
    worker.work_flops = (before.workers[0]?.work_flops ?? 0) + 400;
    const window = new RoundWindow(64);
    window.takePicture(before);
    window.takePicture(after);
    expect(window.value(name, worker.round, 'work')).toBe(100);
    expect(window.value(name, worker.round - 3, 'work')).toBe(100);
    window.takeEvents([{ seq: 1, time: 0, kind: 'worker.round', worker: name, round: worker.round, body: { work_flops: 70 } }]);
    expect(window.value(name, worker.round, 'work')).toBe(70);
    window.takePicture(before);
    window.takePicture(after);
    expect(window.value(name, worker.round, 'work')).toBe(70);
  });

  it('forgets what is older than its size, and keeps no more', () => {
    const window = new RoundWindow(8);
    const event = (round: number): RunEvent => ({ seq: round, time: 0, kind: 'worker.round', worker: 'w', round, body: { grad_norm: round } });
    window.takeEvents(Array.from({ length: 30 }, (_, i) => event(i)));
    expect(window.rounds()).toEqual([22, 23, 24, 25, 26, 27, 28, 29]);
    expect(window.value('w', 21, 'norm')).toBeNull();
    window.takeEvents([event(3)]);
    expect(window.value('w', 27, 'norm')).toBe(27);
  });

  it('begins anew when a resumed run goes on from far back', () => {
    const window = new RoundWindow(8);
    window.takeEvents([{ seq: 1, time: 0, kind: 'worker.round', worker: 'w', round: 500, body: { grad_norm: 1 } }]);
    window.takePicture(recorded());
    expect(window.last).toBeLessThan(40);
  });

  it('measures links between live workers only, and survives an odd event', () => {
    const picture = recorded();
    const window = new RoundWindow();
    window.takeEvents([
      { seq: 9999, time: 0, kind: 'worker.round', worker: 'worker-0', round: 34, body: { links: { 'worker-2': { forward_bytes: 1000, sync_bytes: 'x' }, 'worker-1': null } } }
    ]);
    picture.round_s = 0.5;
    const links = window.links(picture);
    expect(links).toContainEqual({ from: 'worker-0', to: 'worker-2', boundary: 2000, sync: 0 });
    picture.workers[2].state = 'dead';
    window.takeEvents(events.map(event => ({ ...event, seq: 10_000 + event.seq })));
    expect(window.links(picture).length).toBeGreaterThan(0);
    expect(window.links(picture).some(link => link.to === 'worker-2' || link.from === 'worker-2')).toBe(false);
  });

  it('shows what replicas that exchange every 20 rounds send as one rate, and not as a burst', () => {
    const picture = recorded();
    picture.round_s = 0.5;
    const window = new RoundWindow();
    const event = (seq: number, round: number): RunEvent => ({
      seq,
      time: 0,
      kind: 'worker.round',
      worker: 'worker-0',
      round,
      body: { links: { 'worker-2': { forward_bytes: 1000 }, ...(round % 20 === 19 ? { 'worker-1': { sync_bytes: 20_000 } } : {}) } }
    });
    window.takeEvents(Array.from({ length: 20 }, (_, round) => event(round, round)));
    for (let round = 20; round < 80; round += 1) {
      window.takeEvents([event(round, round)]);
      expect(window.links(picture)).toEqual([
        { from: 'worker-0', to: 'worker-2', boundary: 2000, sync: 0 },
        { from: 'worker-0', to: 'worker-1', boundary: 0, sync: 2000 }
      ]);
    }
    window.takeEvents([event(3, 3)]); // read once more
    expect(window.links(picture)).toHaveLength(2);
    window.takeEvents([event(100, 70)]); // which a resumed run trains again: of those before, ten are kept, without an exchange
    expect(window.links(picture)).toEqual([{ from: 'worker-0', to: 'worker-2', boundary: 2000, sync: 0 }]);
  });

  it('asks for no more events than it may, and for none again while the run is big', async () => {
    const picture = crowd(500);
    picture.seq = 500_000;
    picture.rounds_done = 1000;
    picture.round = 999;
    const asked: [number, number][] = [];
    let told = 0;
    const detail = new RoundDetail(
      (since, limit) => {
        asked.push([since, limit]);
        return Promise.resolve({ events: Array.from({ length: limit }, () => events[5]), next: since + limit });
      },
      () => (told += 1)
    );
    detail.want(picture);
    detail.want(picture);
    await new Promise(resolve => setTimeout(resolve));
    detail.want({ ...picture, seq: 600_000 });
    expect(asked.length * 2000).toBeLessThanOrEqual(8000);
    expect(asked[0]?.[0]).toBe(windowStart(picture, 240));
    expect(told).toBe(1);
    expect(detail.settled).toBe(true);
  });

  it('says why nothing could be read back, and goes on with pictures', async () => {
    const detail = new RoundDetail(() => Promise.reject(new Error('events are away')), () => undefined);
    detail.want(recorded());
    await new Promise(resolve => setTimeout(resolve));
    expect(detail.problem).toBe('events are away');
    expect(detail.settled).toBe(true);
  });

  it('does not take a part of the record for the whole', async () => {
    let asked = 0;
    const detail = new RoundDetail(
      () => {
        asked += 1;
        return Promise.resolve({ events: [], next: 0 });
      },
      () => undefined
    );
    detail.want({ ...recorded(), seq: 0 });
    await Promise.resolve();
    expect(asked).toBe(0);
  });
});
