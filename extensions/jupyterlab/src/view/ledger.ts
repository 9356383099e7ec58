/** The state of a run's ownership, shared by the panes that show it: read when one is seen and an epoch was closed since. DOM-free. */

import type { Ownership, RunPicture } from '../api/types';

export class Ledger {
  value: Ownership | null = null;
  /** Why the last reading failed; '' if it did not. */
  problem = '';
  private reading: Promise<void> | null = null;
  private readEpochs = -1;
  private readFor = '';
  private isDisposed = false;

  constructor(
    private readonly read: () => Promise<Ownership>,
    private readonly changed: () => void
  ) {}

  get isReading(): boolean {
    return this.reading !== null;
  }

  /** Read again if `picture` has epochs or a state that the last reading did not know of. */
  want(picture: RunPicture): void {
    const state = picture.over ? 'over' : 'live';
    if (!this.reading && !this.isDisposed && (picture.epochs_closed !== this.readEpochs || state !== this.readFor)) {
      this.readEpochs = picture.epochs_closed;
      this.readFor = state;
      void this.reload();
    }
  }

  /** Read now; resolves when done, well or badly. */
  reload(): Promise<void> {
    this.reading ??= this.once();
    return this.reading;
  }

  /** What a deed returned is the newest state. */
  set(value: Ownership): void {
    this.value = value;
    this.problem = '';
    this.changed();
  }

  dispose(): void {
    this.isDisposed = true;
  }

  private async once(): Promise<void> {
    try {
      this.value = await this.read();
      this.problem = '';
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      this.reading = null;
    }
    if (!this.isDisposed) {
      this.changed();
    }
  }
}
