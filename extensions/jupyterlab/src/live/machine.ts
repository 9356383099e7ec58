/**
 * How a live view of a run stays live, as a state machine without sockets, clocks or a page: events in, effects out.
 *
 * It opens the socket; acknowledges a picture once it is drawn; notices a socket that fell silent; opens it again after a wait
 * that doubles, with jitter; asks for pictures by plain requests where no socket can be opened; rests while nobody looks.
 */

import type { LiveMessage, PictureReply, RunPicture, ViewerMessage } from '../api/types';

export type FeedStatus = 'connecting' | 'live' | 'polling' | 'standby' | 'gone';

export type LiveEvent =
  | { type: 'start' }
  | { type: 'opened' }
  | { type: 'message'; message: LiveMessage }
  | { type: 'closed' }
  | { type: 'drawn'; seq: number }
  | { type: 'visible'; visible: boolean }
  | { type: 'polled'; reply: PictureReply }
  | { type: 'poll-failed'; status: number; reason: string }
  | { type: 'timer'; timer: TimerName };

export type TimerName = 'reconnect' | 'silence' | 'poll';

export type LiveEffect =
  | { type: 'open'; since: number | null }
  | { type: 'close' }
  | { type: 'send'; message: ViewerMessage }
  | { type: 'poll'; since: number | null }
  | { type: 'set-timer'; timer: TimerName; after_s: number }
  | { type: 'clear-timer'; timer: TimerName }
  | { type: 'draw'; picture: RunPicture; partial: boolean }
  | { type: 'pulse'; silent_s: number | null; problem: string }
  | { type: 'reading'; done: number; total: number }
  | { type: 'status'; status: FeedStatus };

/** The server sends a pulse every 4 s: this long without a word, the connection is dead, whatever the browser believes. */
export const SILENCE_S = 15;
const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 30;
/** Tries of the socket before pictures are asked for by plain requests. */
const TRIES_BEFORE_POLLING = 2;

/** Seconds to wait before try number `attempt` (from 1): doubling, at most 30, and never the same for two viewers. */
export function waitBefore(attempt: number, random: () => number): number {
  const longest = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1));
  return longest * (0.5 + random() / 2);
}

/**
 * One viewer's connection.
 *
 * @param random - numbers in [0, 1), for the jitter.
 * @param poll_s - seconds between two plain requests, asked for each time because a setting decides it.
 */
export class LiveMachine {
  constructor(
    private readonly random: () => number,
    private readonly poll_s: () => number
  ) {}

  get status(): FeedStatus {
    return this._status;
  }

  handle(event: LiveEvent): LiveEffect[] {
    if (this._status === 'gone' && event.type !== 'start') {
      return [];
    }
    switch (event.type) {
      case 'start':
        return this.begin();
      case 'opened':
        return this.onOpened();
      case 'message':
        return this.onMessage(event.message);
      case 'closed':
        return this.onClosed();
      case 'drawn':
        return this.isOpen ? [{ type: 'send', message: { type: 'ack', seq: event.seq } }] : [];
      case 'visible':
        return this.onVisible(event.visible);
      case 'polled':
        return this.onPolled(event.reply);
      case 'poll-failed':
        return this.onPollFailed(event.status, event.reason);
      case 'timer':
        return this.onTimer(event.timer);
    }
  }

  private begin(): LiveEffect[] {
    this.attempt = 0;
    this.isPolling = false;
    return [...this.become(this.visible ? 'connecting' : 'standby'), ...(this.visible ? this.open() : [])];
  }

  private open(): LiveEffect[] {
    this.isOpening = true;
    return [{ type: 'open', since: this.seq }];
  }

  private onOpened(): LiveEffect[] {
    this.isOpening = false;
    this.isOpen = true;
    this.attempt = 0;
    const wasPolling = this.isPolling;
    this.isPolling = false;
    return [
      ...(wasPolling ? [{ type: 'clear-timer', timer: 'poll' } as const] : []),
      ...(this.visible ? this.listen() : [{ type: 'send', message: { type: 'visible', visible: false } } as const]),
      ...this.become(this.visible ? 'live' : 'standby')
    ];
  }

  private listen(): LiveEffect[] {
    return [{ type: 'set-timer', timer: 'silence', after_s: SILENCE_S }];
  }

  private onMessage(message: LiveMessage): LiveEffect[] {
    const heard = this.visible && this.isOpen ? this.listen() : [];
    switch (message.type) {
      case 'picture':
        this.seq = message.partial ? this.seq : message.picture.seq;
        return [...heard, { type: 'draw', picture: message.picture, partial: message.partial }];
      case 'pulse':
        return [...heard, { type: 'pulse', silent_s: message.silent_s, problem: message.problem }];
      case 'reading':
        return [...heard, { type: 'reading', done: message.done, total: message.total }];
      default:
        return heard; // a newer server may say more
    }
  }

  private onClosed(): LiveEffect[] {
    this.isOpening = false;
    this.isOpen = false;
    if (!this.visible) {
      return [{ type: 'clear-timer', timer: 'silence' }]; // it is opened again when somebody looks
    }
    this.attempt += 1;
    const effects: LiveEffect[] = [
      { type: 'clear-timer', timer: 'silence' },
      { type: 'set-timer', timer: 'reconnect', after_s: waitBefore(this.attempt, this.random) }
    ];
    if (this.attempt >= TRIES_BEFORE_POLLING && !this.isPolling) {
      this.isPolling = true;
      effects.push({ type: 'poll', since: this.seq });
    }
    return [...effects, ...(this.isPolling ? [] : this.become('connecting'))];
  }

  private onVisible(visible: boolean): LiveEffect[] {
    if (visible === this.visible) {
      return [];
    }
    this.visible = visible;
    if (!visible) {
      this.isPolling = false;
      return [
        ...(this.isOpen ? [{ type: 'send', message: { type: 'visible', visible: false } } as const] : []),
        { type: 'clear-timer', timer: 'silence' },
        { type: 'clear-timer', timer: 'reconnect' },
        { type: 'clear-timer', timer: 'poll' },
        ...this.become('standby')
      ];
    }
    if (this.isOpen) {
      return [{ type: 'send', message: { type: 'visible', visible: true } }, ...this.listen(), ...this.become('live')];
    }
    this.attempt = 0;
    return [...(this.isOpening ? [] : this.open()), ...this.become('connecting')];
  }

  private onPolled(reply: PictureReply): LiveEffect[] {
    if (!this.isPolling) {
      return [];
    }
    const effects: LiveEffect[] = [{ type: 'set-timer', timer: 'poll', after_s: this.poll_s() }, ...this.become('polling')];
    if (reply.picture) {
      this.seq = reply.seq;
      effects.push({ type: 'draw', picture: reply.picture, partial: false });
    }
    return [...effects, { type: 'pulse', silent_s: reply.silent_s, problem: reply.problem }];
  }

  private onPollFailed(status: number, reason: string): LiveEffect[] {
    if (!this.isPolling) {
      return [];
    }
    if (status === 404) {
      this.isPolling = false;
      return [
        { type: 'close' },
        { type: 'clear-timer', timer: 'silence' },
        { type: 'clear-timer', timer: 'reconnect' },
        { type: 'clear-timer', timer: 'poll' },
        ...this.become('gone')
      ];
    }
    return [
      { type: 'set-timer', timer: 'poll', after_s: Math.max(this.poll_s(), waitBefore(this.attempt, this.random)) },
      { type: 'pulse', silent_s: null, problem: reason },
      ...this.become('connecting')
    ];
  }

  private onTimer(timer: TimerName): LiveEffect[] {
    switch (timer) {
      case 'reconnect':
        return this.visible && !this.isOpen && !this.isOpening ? this.open() : [];
      case 'silence':
        return this.isOpen ? [{ type: 'close' }, ...this.onClosed()] : [];
      case 'poll':
        return this.isPolling ? [{ type: 'poll', since: this.seq }] : [];
    }
  }

  private become(status: FeedStatus): LiveEffect[] {
    if (status === this._status) {
      return [];
    }
    this._status = status;
    return [{ type: 'status', status }];
  }

  private _status: FeedStatus = 'connecting';
  private seq: number | null = null;
  private visible = true;
  private attempt = 0;
  private isOpening = false;
  private isOpen = false;
  private isPolling = false;
}
