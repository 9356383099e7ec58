/** Types of the compact view of a run, for the JupyterLab extension. */

/** How long a run has been silent, in seconds, and what the feeder has to complain of. */
export interface Pulse {
  silent_s: number | null;
  problem: string;
  /** The picture was stored once and nobody feeds it: it is as old as it is. */
  stored?: boolean;
}

export interface CompactView {
  /** Draw a picture, version 1 of `application/vnd.pluralis.run+json`; others are ignored. */
  update(picture: unknown): void;
  pulse(pulse: Pulse): void;
  /** "idle", "stopping", "stopped", or why it could not be stopped. */
  stop(state: string): void;
  destroy(): void;
}

export function createRunView(root: HTMLElement, options?: { onStop?: (() => void) | null; feeder?: string }): CompactView;
