/** Runs a `LiveMachine` on a real socket, real timers and a page that paints: one stream a run, shared by all its viewers. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { ApiRefusal } from '../api/client';
import type { LiveMessage, PictureReply, RunPicture } from '../api/types';
import { type FeedStatus, type LiveEffect, type LiveEvent, LiveMachine, type TimerName } from './machine';

/** What a viewer hears of the run's silence: seconds since its last event, and what the server complains of. */
export interface Pulse {
  silent_s: number | null;
  problem: string;
}

/** The part of a `WebSocket` that is used. */
export interface SocketLike {
  onopen: ((event: Event) => unknown) | null;
  onmessage: ((event: MessageEvent) => unknown) | null;
  onclose: ((event: CloseEvent) => unknown) | null;
  send(text: string): void;
  close(): void;
}

/** Everything outside: tests put their own in its place. */
export interface StreamHost {
  openSocket(since: number | null): SocketLike;
  poll(since: number | null): Promise<PictureReply>;
  /** Calls back after `after_s` seconds unless the returned function is called first. */
  setTimer(after_s: number, callback: () => void): () => void;
  /** Calls back when what was just drawn is on the screen. */
  afterPaint(callback: () => void): void;
  random(): number;
  poll_s(): number;
}

export class RunStream implements IDisposable {
  constructor(private readonly host: StreamHost) {
    this.machine = new LiveMachine(
      () => host.random(),
      () => host.poll_s()
    );
  }

  picture: RunPicture | null = null;
  /** Whether the picture is of a part of the run only, because the server still reads the rest. */
  partial = false;
  pulse: Pulse = { silent_s: null, problem: '' };
  reading: { done: number; total: number } | null = null;

  get status(): FeedStatus {
    return this.machine.status;
  }

  get drawn(): ISignal<this, RunPicture> {
    return this._drawn;
  }

  get pulsed(): ISignal<this, Pulse> {
    return this._pulsed;
  }

  get statusChanged(): ISignal<this, FeedStatus> {
    return this._statusChanged;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  start(): void {
    this.put({ type: 'start' });
  }

  setVisible(visible: boolean): void {
    this.put({ type: 'visible', visible });
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.drop();
    for (const cancel of this.timers.values()) {
      cancel();
    }
    this.timers.clear();
    Signal.clearData(this);
  }

  private put(event: LiveEvent): void {
    if (this._isDisposed) {
      return;
    }
    for (const effect of this.machine.handle(event)) {
      this.act(effect);
    }
  }

  private act(effect: LiveEffect): void {
    switch (effect.type) {
      case 'open':
        return this.connect(effect.since);
      case 'close':
        return this.drop();
      case 'send':
        this.socket?.send(JSON.stringify(effect.message));
        return;
      case 'poll':
        void this.ask(effect.since);
        return;
      case 'set-timer':
        this.timers.get(effect.timer)?.();
        this.timers.set(
          effect.timer,
          this.host.setTimer(effect.after_s, () => this.put({ type: 'timer', timer: effect.timer }))
        );
        return;
      case 'clear-timer':
        this.timers.get(effect.timer)?.();
        this.timers.delete(effect.timer);
        return;
      case 'draw': {
        const { seq } = effect.picture;
        this.picture = effect.picture;
        this.partial = effect.partial;
        this.reading = effect.partial ? this.reading : null;
        this._drawn.emit(effect.picture);
        this.host.afterPaint(() => this.put({ type: 'drawn', seq }));
        return;
      }
      case 'pulse':
        this.pulse = { silent_s: effect.silent_s, problem: effect.problem };
        this._pulsed.emit(this.pulse);
        return;
      case 'reading':
        this.reading = { done: effect.done, total: effect.total };
        this._pulsed.emit(this.pulse);
        return;
      case 'status':
        this._statusChanged.emit(effect.status);
        return;
    }
  }

  private connect(since: number | null): void {
    this.drop();
    const socket = this.host.openSocket(since);
    this.socket = socket;
    socket.onopen = () => this.put({ type: 'opened' });
    socket.onclose = () => {
      this.socket = null;
      this.put({ type: 'closed' });
    };
    socket.onmessage = event => this.put({ type: 'message', message: JSON.parse(String(event.data)) as LiveMessage });
  }

  /** Let go of the socket without hearing of it again. */
  private drop(): void {
    const { socket } = this;
    this.socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  private async ask(since: number | null): Promise<void> {
    try {
      this.put({ type: 'polled', reply: await this.host.poll(since) });
    } catch (error) {
      const status = error instanceof ApiRefusal ? error.status : 0;
      this.put({ type: 'poll-failed', status, reason: error instanceof Error ? error.message : String(error) });
    }
  }

  private readonly machine: LiveMachine;
  private readonly timers = new Map<TimerName, () => void>();
  private socket: SocketLike | null = null;
  private _isDisposed = false;
  private readonly _drawn = new Signal<this, RunPicture>(this);
  private readonly _pulsed = new Signal<this, Pulse>(this);
  private readonly _statusChanged = new Signal<this, FeedStatus>(this);
}
