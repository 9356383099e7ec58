/** One viewer's hold on a run's stream: it sleeps and wakes on its own, and giving it back is all the tidying there is. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import type { RunPicture } from '../api/types';
import type { FeedStatus } from './machine';
import type { Pulse, RunStream } from './stream';

export type { FeedStatus, Pulse };

/**
 * What `Feeds.get` gives. `changed` tells of pictures while this viewer is visible, and of the newest one when it becomes so.
 *
 * @param stream - the run's stream, shared by all viewers.
 * @param onVisible - told when this viewer falls asleep or wakes.
 * @param onDispose - told when this viewer gives the stream back.
 */
export class RunFeed implements IDisposable {
  constructor(
    readonly run: string,
    private readonly stream: RunStream,
    private readonly onVisible: () => void,
    private readonly onDispose: (feed: RunFeed) => void
  ) {
    stream.drawn.connect(this.onDrawn, this);
    stream.pulsed.connect(this.onPulsed, this);
    stream.statusChanged.connect(this.onStatus, this);
  }

  get picture(): RunPicture | null {
    return this.stream.picture;
  }

  /** Whether the picture is of a part of the run only, because the server still reads the rest (`reading`). */
  get partial(): boolean {
    return this.stream.partial;
  }

  get reading(): { done: number; total: number } | null {
    return this.stream.reading;
  }

  get pulse(): Pulse {
    return this.stream.pulse;
  }

  get status(): FeedStatus {
    return this.stream.status === 'gone' || this.isVisible ? this.stream.status : 'standby';
  }

  get changed(): ISignal<this, RunPicture> {
    return this._changed;
  }

  get pulsed(): ISignal<this, Pulse> {
    return this._pulsed;
  }

  get statusChanged(): ISignal<this, FeedStatus> {
    return this._statusChanged;
  }

  get isVisible(): boolean {
    return this._isVisible;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  setVisible(visible: boolean): void {
    if (visible === this._isVisible || this._isDisposed) {
      return;
    }
    this._isVisible = visible;
    this.onVisible();
    this._statusChanged.emit(this.status);
    if (visible && this.picture && this.picture !== this.shown) {
      this.onDrawn(this.stream, this.picture);
    }
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.stream.drawn.disconnect(this.onDrawn, this);
    this.stream.pulsed.disconnect(this.onPulsed, this);
    this.stream.statusChanged.disconnect(this.onStatus, this);
    this.onDispose(this);
    Signal.clearData(this);
  }

  private onDrawn(_: RunStream, picture: RunPicture): void {
    if (this._isVisible || picture.over) {
      this.shown = picture;
      this._changed.emit(picture);
    }
  }

  private onPulsed(_: RunStream, pulse: Pulse): void {
    if (this._isVisible) {
      this._pulsed.emit(pulse);
    }
  }

  private onStatus(): void {
    this._statusChanged.emit(this.status);
  }

  private shown: RunPicture | null = null;
  private _isVisible = true;
  private _isDisposed = false;
  private readonly _changed = new Signal<this, RunPicture>(this);
  private readonly _pulsed = new Signal<this, Pulse>(this);
  private readonly _statusChanged = new Signal<this, FeedStatus>(this);
}
