/** The live feeds of a page: one stream a run however many views it has, asleep while the page or all its views are hidden. */

import type { IDisposable } from '@lumino/disposable';

import { RunFeed } from './feed';
import { RunStream, type StreamHost } from './stream';

/** Says whether anybody can see the page, and tells when that changes. */
export interface PageVisibility {
  isVisible(): boolean;
  onChange(callback: () => void): () => void;
}

interface Shared {
  stream: RunStream;
  viewers: Set<RunFeed>;
}

export class Feeds implements IDisposable {
  /**
   * @param hostOf - makes the outside of a run's stream.
   * @param page - the page's visibility.
   */
  constructor(
    private readonly hostOf: (run: string) => StreamHost,
    private readonly page: PageVisibility
  ) {
    this.unhear = page.onChange(() => {
      for (const run of this.shared.keys()) {
        this.settle(run);
      }
    });
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** Follow a run. The feed is the caller's own: `dispose()` gives it back, and the last one closes the stream. */
  get(run: string): RunFeed {
    let shared = this.shared.get(run);
    const isNew = !shared || shared.stream.status === 'gone';
    if (!shared || isNew) {
      shared = { stream: new RunStream(this.hostOf(run)), viewers: new Set() };
      this.shared.set(run, shared);
    }
    const { stream, viewers } = shared;
    const feed = new RunFeed(
      run,
      stream,
      () => this.settle(run),
      gone => {
        viewers.delete(gone);
        if (viewers.size) {
          return this.settle(run);
        }
        stream.dispose();
        if (this.shared.get(run)?.stream === stream) {
          this.shared.delete(run);
        }
      }
    );
    viewers.add(feed);
    this.settle(run);
    if (isNew) {
      stream.start();
    }
    return feed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.unhear();
    for (const { viewers } of [...this.shared.values()]) {
      for (const feed of [...viewers]) {
        feed.dispose();
      }
    }
  }

  private settle(run: string): void {
    const shared = this.shared.get(run);
    shared?.stream.setVisible(this.page.isVisible() && [...shared.viewers].some(feed => feed.isVisible));
  }

  private readonly shared = new Map<string, Shared>();
  private readonly unhear: () => void;
  private _isDisposed = false;
}
