/** What a pane is and what it is given. A new pane is one module that exports a `PaneKind`, and one line in `panes.ts`. */

import type { CommandRegistry } from '@lumino/commands';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { RunPicture } from '../api/types';
import type { Clock } from './clock';
import type { Ledger } from './ledger';
import type { RoundDetail } from './rounddetail';
import type { RunSource } from './source';
import type { Speeds } from './workersmodel';

export interface PaneContext {
  readonly run: string;
  readonly trans: TranslationBundle;
  readonly commands: CommandRegistry;
  readonly source: RunSource;
  readonly detail: RoundDetail;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly speeds: Speeds;
  readOnly(): boolean;
  /** Fill the clock from the record of the rounds; rejects with the reason why it cannot be. */
  readClock(): Promise<void>;
  /** Draw the visible panes again at the next frame. */
  redraw(): void;
  /** Show the pane with this id, if there is one; the worker becomes the one that it tells of. */
  open(pane: string, worker: string): void;
}

/** One pane on the page. It is drawn only while it is seen. */
export interface Pane {
  readonly node: HTMLElement;
  draw(picture: RunPicture): void;
  /** The theme or the size changed: what was painted with fixed colours must be painted again. */
  repaint?(): void;
  /** Tell of this worker. */
  select?(worker: string): void;
  hidden?(): void;
  dispose(): void;
}

export interface PaneKind {
  readonly id: string;
  title(trans: TranslationBundle): string;
  /** Said when the tab is pointed at. */
  caption(trans: TranslationBundle): string;
  /** Where it goes in a run that is opened for the first time. */
  readonly place: 'above' | 'below';
  /** Whether the run has anything for this pane; a pane once shown stays. */
  isShown(picture: RunPicture): boolean;
  create(context: PaneContext): Pane;
}
