/** The list of runs: asked for at a steady pace while somebody looks, and at once after every command. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import type { RunRow } from '../api/types';

/** What the list needs of the outside; tests put their own in its place. */
export interface ListHost {
  ask(): Promise<RunRow[]>;
  setTimer(after_s: number, callback: () => void): () => void;
  /** Seconds between two questions while somebody looks. */
  pace_s(): number;
}

/** With nobody looking, once in this many paces: the status bar and the running sessions still count. */
const IDLE_PACES = 6;

export class RunList implements IDisposable {
  constructor(private readonly host: ListHost) {}

  /** null until the first answer. */
  rows: RunRow[] | null = null;
  /** Why the last question failed; "" when it did not. */
  problem = '';

  /** The rows or the problem changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  find(id: string): RunRow | undefined {
    return this.rows?.find(row => row.id === id);
  }

  /** Ask at the full pace until the returned function is called. */
  watch(): () => void {
    const token = {};
    this.watchers.add(token);
    if (this.watchers.size === 1 && this.isStarted) {
      void this.refresh();
    }
    return () => void this.watchers.delete(token);
  }

  start(): void {
    this.isStarted = true;
    void this.refresh();
  }

  /** Ask now; joins a question that is under way. */
  refresh(): Promise<void> {
    this.asking ??= this.ask().finally(() => {
      this.asking = null;
    });
    return this.asking;
  }

  dispose(): void {
    this._isDisposed = true;
    this.cancel();
    Signal.clearData(this);
  }

  private async ask(): Promise<void> {
    this.cancel();
    const before = JSON.stringify([this.rows, this.problem]);
    try {
      this.rows = await this.host.ask();
      this.problem = '';
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    }
    if (this._isDisposed) {
      return;
    }
    const pace = this.host.pace_s() * (this.watchers.size ? 1 : IDLE_PACES);
    this.cancel = this.host.setTimer(pace, () => void this.refresh());
    if (JSON.stringify([this.rows, this.problem]) !== before) {
      this._changed.emit();
    }
  }

  private readonly watchers = new Set<object>();
  private asking: Promise<void> | null = null;
  private cancel: () => void = () => undefined;
  private isStarted = false;
  private _isDisposed = false;
  private readonly _changed = new Signal<this, void>(this);
}
