import { describe, expect, it } from 'vitest';

import type { Mark, RunEvent, RunPicture } from '../../api/types';
import { Clock, workerHours } from '../clock';
import eventsJson from './recorded/events.json';
import midwayJson from './recorded/midway.json';

const recorded = (): RunPicture => structuredClone(midwayJson) as unknown as RunPicture;
const events = eventsJson as unknown as RunEvent[];

describe('the clock of the rounds', () => {
  it('tells the time of every round from the record, and straight lines between', () => {
    const clock = new Clock();
    expect(clock.at(3)).toBeNull();
    clock.takeEvents(events);
    const rounds = events.filter(event => event.kind === 'round');
    const begun = events.find(event => event.kind === 'run.state' && event.body.state === 'running')?.time ?? 0;
    for (const event of rounds) {
      expect(clock.at(event.round ?? 0)).toBeCloseTo(event.time - begun, 9);
    }
    const [a, b] = [clock.at(4) ?? 0, clock.at(5) ?? 0];
    expect(clock.at(4.5)).toBeCloseTo((a + b) / 2, 9);
  });

  it('does not count the pause between a stop and a resume, neither in events nor in later pictures', () => {
    const state = (seq: number, time: number, word: string): RunEvent => ({ seq, time, kind: 'run.state', worker: null, round: null, body: { state: word } });
    const round = (seq: number, time: number, at: number): RunEvent => ({ seq, time, kind: 'round', worker: null, round: at, body: {} });
    const clock = new Clock();
    clock.takeEvents([state(1, 100, 'running'), round(2, 110, 0), state(3, 112, 'stopped'), state(4, 500, 'running'), round(5, 505, 1)]);
    expect(clock.at(0)).toBe(10);
    expect(clock.at(1)).toBe(17);
    clock.takePicture({ ...recorded(), state: 'running', round: 2, elapsed_s: 410 });
    expect(clock.at(2)).toBe(22);
  });

  it('counts the hours of live workers: a dead one costs nothing until it returns', () => {
    const clock = new Clock();
    clock.put(0, 3600);
    clock.put(9, 36000);
    const marks: Mark[] = [
      { kind: 'death', round: 1, worker: 'a', text: '' },
      { kind: 'return', round: 3, worker: 'a', text: '' }
    ];
    expect(workerHours(clock, [], 4, 9)).toBeCloseTo(40);
    expect(workerHours(clock, marks, 4, 9)).toBeCloseTo(38);
  });

  it('counts no hours of a worker that is set aside, and none twice when it dies then', () => {
    const clock = new Clock();
    clock.put(0, 3600);
    clock.put(9, 36000);
    const aside: Mark = { kind: 'aside', round: 1, worker: 'a', text: '' };
    expect(workerHours(clock, [aside, { kind: 'back', round: 3, worker: 'a', text: '' }], 4, 9)).toBeCloseTo(38);
    const marks: Mark[] = [
      aside,
      { kind: 'death', round: 2, worker: 'a', text: '' },
      { kind: 'return', round: 3, worker: 'a', text: '' }
    ];
    expect(workerHours(clock, marks, 4, 9)).toBeCloseTo(38);
  });

  it('counts the hours of an attached worker from the round that it joined in', () => {
    const clock = new Clock();
    clock.put(0, 3600);
    clock.put(9, 36000);
    expect(workerHours(clock, [{ kind: 'joined', round: 5, worker: 'a', text: '' }], 4, 9)).toBeCloseTo(30 + 4);
  });
});
