/** Reads back the latest `worker.round` events, only while a pane that shows them is seen. DOM-free. */

import type { RunEvent, RunPicture } from '../api/types';
import { RoundWindow } from './rounds';

export type ReadEvents = (since: number, limit: number, kinds: string[]) => Promise<{ events: RunEvent[]; next: number }>;

/** At most so many events are read back when a pane is opened, and at most so many in one request. */
const MOST_EVENTS = 6000;
const PAGE = 2000;
/** With more workers than this, what the pictures tell of the newest rounds is enough. */
const FEW_WORKERS = 64;
const PAUSE_MS = 2000;

/**
 * Keeps a `RoundWindow` filled. `take` is called with every picture, `want` by a pane that is drawn.
 *
 * `changed` is called after events came in; `problem` says why none could be had (pictures then fill the window alone).
 */
export class RoundDetail {
  readonly window = new RoundWindow();
  problem = '';
  /** Whether events were read back, or cannot be: before that the window is being filled. */
  settled = false;
  private since: number | null = null;
  private busy = false;
  private readAt = -Infinity;
  private isDisposed = false;

  constructor(
    private readonly read: ReadEvents,
    private readonly changed: () => void,
    private readonly now: () => number = () => performance.now()
  ) {}

  take(picture: RunPicture): void {
    if (this.since !== null && picture.seq < this.since) {
      this.since = null;
    }
    this.window.takePicture(picture);
  }

  /** Read what is new, if it is time to. */
  want(picture: RunPicture): void {
    if (this.busy || this.isDisposed || picture.round === null || picture.seq === 0) {
      return;
    }
    const isEnough = picture.workers.length > FEW_WORKERS || this.now() - this.readAt < PAUSE_MS;
    if (this.since !== null && (isEnough || this.since >= picture.seq)) {
      return;
    }
    this.busy = true;
    void this.fill(this.since ?? windowStart(picture, this.window.size), picture.seq);
  }

  dispose(): void {
    this.isDisposed = true;
  }

  private async fill(since: number, until: number): Promise<void> {
    try {
      let taken = 0;
      while (since < until && taken < MOST_EVENTS) {
        const page = await this.read(since, PAGE, ['worker.round']);
        if (this.isDisposed) {
          return;
        }
        this.window.takeEvents(page.events);
        taken += page.events.length;
        if (page.next <= since || page.events.length === 0) {
          since = Math.max(since, page.next);
          break;
        }
        since = page.next;
      }
      this.since = since;
      this.problem = '';
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
      this.since = until;
    } finally {
      this.busy = false;
      this.settled = true;
      this.readAt = this.now();
    }
    if (!this.isDisposed) {
      this.changed();
    }
  }
}

/** The seq from which the last `size` rounds are told, as far as `MOST_EVENTS` allow: rounds have about equally many events. */
export function windowStart(picture: RunPicture, size: number): number {
  const rounds = Math.max(1, picture.rounds_done);
  const each = picture.seq / rounds;
  const wanted = Math.min(rounds, size, Math.floor(MOST_EVENTS / Math.max(1, picture.workers.length)));
  return Math.max(0, Math.floor(picture.seq - each * (wanted + 1)));
}
