/** What the plugins share: the server, the live feeds, the list of runs, and what the reader has set. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';

import type { Api } from './api/client';
import type { ServerStatus } from './api/types';
import type { Feeds } from './live/feeds';
import type { RunList } from './runs/list';

/** The settings of `schema/settings.json`. */
export interface LabSettings {
  /** Seconds between two looks at the list of runs, and between two pictures where no web socket can be opened. */
  refresh_s: number;
  /** The account a new run is started with. */
  account: string;
  /** Whether the status bar counts live runs. */
  statusBar: boolean;
}

export const DEFAULT_SETTINGS: LabSettings = { refresh_s: 4, account: 'default', statusBar: true };

export interface ILab {
  readonly api: Api;
  readonly feeds: Feeds;
  readonly runs: RunList;
  readonly trans: TranslationBundle;
  readonly settings: LabSettings;
  readonly settingsChanged: ISignal<unknown, void>;
  setSettings(settings: LabSettings): void;
  /** null until the server has answered. */
  readonly status: ServerStatus | null;
  readonly statusChanged: ISignal<unknown, void>;
  /** A shared hub shows runs, but lets nobody command them. True until the server has said otherwise. */
  readOnly(): boolean;
  /** The run that commands without an argument are about: the one chosen in the panel, or the one in front. */
  selected: string | null;
}

export const ILab = new Token<ILab>('pluralis-lab:ILab', 'The runs of pluralis_lab: server, live feeds and list.');
