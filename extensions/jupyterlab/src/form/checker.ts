/** Checks a spec while it is typed: a moment after the last key, and only the newest answer counts. */

import type { Spec, SpecCheck } from '../api/types';

export interface CheckerHost {
  check(spec: Spec, signal: AbortSignal): Promise<SpecCheck>;
  setTimer(after_s: number, callback: () => void): () => void;
}

export type CheckState = { kind: 'checking' } | { kind: 'checked'; result: SpecCheck } | { kind: 'failed'; message: string };

const PAUSE_S = 0.3;

export class SpecChecker {
  constructor(
    private readonly host: CheckerHost,
    private readonly tell: (state: CheckState) => void
  ) {}

  /** Check `spec` once nothing newer has come for a moment. */
  put(spec: Spec): void {
    this.cancel();
    this.tell({ kind: 'checking' });
    this.cancelTimer = this.host.setTimer(PAUSE_S, () => void this.ask(spec));
  }

  /** Forget what is under way. */
  cancel(): void {
    this.cancelTimer();
    this.cancelTimer = () => undefined;
    this.asking?.abort();
    this.asking = null;
  }

  private async ask(spec: Spec): Promise<void> {
    const asking = new AbortController();
    this.asking = asking;
    let state: CheckState;
    try {
      state = { kind: 'checked', result: await this.host.check(spec, asking.signal) };
    } catch (error) {
      state = { kind: 'failed', message: error instanceof Error ? error.message : String(error) };
    }
    if (this.asking === asking) {
      this.asking = null;
      this.tell(state);
    }
  }

  private cancelTimer: () => void = () => undefined;
  private asking: AbortController | null = null;
}
