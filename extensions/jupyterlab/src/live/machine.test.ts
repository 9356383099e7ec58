import { describe, expect, it } from 'vitest';

import type { PictureReply, RunPicture } from '../api/types';
import { type LiveEffect, type LiveEvent, LiveMachine, SILENCE_S, waitBefore } from './machine';

const picture = (seq: number) => ({ version: 1, seq }) as RunPicture;
const reply = (seq: number | null): PictureReply => ({
  seq: seq ?? 0,
  picture: seq === null ? null : picture(seq),
  silent_s: 1,
  problem: ''
});

function machineAfter(...events: LiveEvent[]): LiveMachine {
  const machine = new LiveMachine(
    () => 0.5,
    () => 4
  );
  for (const event of events) {
    machine.handle(event);
  }
  return machine;
}

const names = (effects: LiveEffect[]) => effects.map(effect => effect.type);
const message = (seq: number, partial = false): LiveEvent => ({ type: 'message', message: { type: 'picture', picture: picture(seq), partial } });

describe('a live view', () => {
  it('opens the socket, draws, and acknowledges only what is drawn', () => {
    const machine = machineAfter();
    expect(machine.handle({ type: 'start' })).toEqual([{ type: 'open', since: null }]);
    machine.handle({ type: 'opened' });
    expect(machine.status).toBe('live');
    expect(names(machine.handle(message(7)))).toEqual(['set-timer', 'draw']);
    expect(machine.handle({ type: 'drawn', seq: 7 })).toEqual([{ type: 'send', message: { type: 'ack', seq: 7 } }]);
  });

  it('goes on after the picture it has, not from the start', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'opened' }, message(7), { type: 'closed' });
    expect(machine.handle({ type: 'timer', timer: 'reconnect' })).toEqual([{ type: 'open', since: 7 }]);
  });

  it('does not take a partial picture for the whole', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'opened' }, message(7, true), { type: 'closed' });
    expect(machine.handle({ type: 'timer', timer: 'reconnect' })).toEqual([{ type: 'open', since: null }]);
  });

  it('waits longer after each failure, up to half a minute, and never as long as its neighbour', () => {
    const waits = [1, 2, 3, 4, 5, 6, 20].map(attempt => waitBefore(attempt, () => 0));
    expect(waits).toEqual([0.5, 1, 2, 4, 8, 15, 15]);
    expect(waitBefore(3, () => 0.999)).toBeGreaterThan(waitBefore(3, () => 0.1));
  });

  it('starts over with short waits once a socket was open again', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'closed' }, { type: 'timer', timer: 'reconnect' }, { type: 'opened' });
    const effects = machine.handle({ type: 'closed' });
    expect(effects).toContainEqual({ type: 'set-timer', timer: 'reconnect', after_s: 0.75 });
  });

  it('asks by plain requests when no socket opens, and still tries the socket', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'closed' }, { type: 'timer', timer: 'reconnect' });
    const effects = machine.handle({ type: 'closed' });
    expect(names(effects)).toEqual(['clear-timer', 'set-timer', 'poll']);
    expect(names(machine.handle({ type: 'polled', reply: reply(3) }))).toEqual(['set-timer', 'status', 'draw', 'pulse']);
    expect(machine.status).toBe('polling');
    expect(machine.handle({ type: 'timer', timer: 'poll' })).toEqual([{ type: 'poll', since: 3 }]);
    expect(machine.handle({ type: 'timer', timer: 'reconnect' })).toEqual([{ type: 'open', since: 3 }]);
    expect(names(machine.handle({ type: 'opened' }))).toContain('clear-timer');
    expect(machine.status).toBe('live');
  });

  it('draws nothing when nothing is newer', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'closed' }, { type: 'closed' });
    expect(names(machine.handle({ type: 'polled', reply: reply(null) }))).not.toContain('draw');
  });

  it('is gone when the server does not know the run, and asks no more', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'closed' }, { type: 'closed' });
    machine.handle({ type: 'poll-failed', status: 404, reason: 'no such run' });
    expect(machine.status).toBe('gone');
    expect(machine.handle({ type: 'timer', timer: 'reconnect' })).toEqual([]);
    expect(machine.handle({ type: 'visible', visible: false })).toEqual([]);
  });

  it('keeps trying, and says why, while the server is down', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'closed' }, { type: 'closed' });
    const effects = machine.handle({ type: 'poll-failed', status: 0, reason: 'no answer' });
    expect(effects).toContainEqual({ type: 'pulse', silent_s: null, problem: 'no answer' });
    expect(names(effects)).toContain('set-timer');
    expect(machine.status).toBe('connecting');
  });

  it('takes a socket without a word for dead', () => {
    const machine = machineAfter({ type: 'start' });
    expect(machine.handle({ type: 'opened' })).toContainEqual({ type: 'set-timer', timer: 'silence', after_s: SILENCE_S });
    expect(names(machine.handle({ type: 'timer', timer: 'silence' }))).toEqual(['close', 'clear-timer', 'set-timer', 'status']);
    expect(machine.status).toBe('connecting');
  });

  it('rests while nobody looks, and listens for the dead only when somebody does', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'opened' });
    const effects = machine.handle({ type: 'visible', visible: false });
    expect(effects).toContainEqual({ type: 'send', message: { type: 'visible', visible: false } });
    expect(machine.status).toBe('standby');
    expect(names(machine.handle(message(9)))).toEqual(['draw']);
    expect(machine.handle({ type: 'visible', visible: true })[0]).toEqual({ type: 'send', message: { type: 'visible', visible: true } });
    expect(machine.status).toBe('live');
  });

  it('opens nothing while hidden: a lost socket waits for somebody to look', () => {
    const machine = machineAfter({ type: 'start' }, { type: 'opened' }, { type: 'visible', visible: false });
    expect(names(machine.handle({ type: 'closed' }))).toEqual(['clear-timer']);
    expect(names(machine.handle({ type: 'visible', visible: true }))).toEqual(['open', 'status']);
  });

  it('starts asleep in a hidden page', () => {
    const machine = machineAfter({ type: 'visible', visible: false });
    expect(names(machine.handle({ type: 'start' }))).toEqual([]);
    expect(names(machine.handle({ type: 'visible', visible: true }))).toEqual(['open', 'status']);
  });
});
