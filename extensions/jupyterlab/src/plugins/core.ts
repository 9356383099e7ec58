/** The plugin that the others stand on: one connection, one set of feeds, one list of runs. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { type ISignal, Signal } from '@lumino/signaling';

import { Api } from '../api/client';
import type { ServerStatus } from '../api/types';
import { Feeds } from '../live/feeds';
import { pageHost, pageVisibility } from '../live/page';
import { RunList } from '../runs/list';
import { DEFAULT_SETTINGS, ILab, type LabSettings } from '../tokens';

class Lab implements ILab {
  constructor(
    readonly api: Api,
    readonly trans: TranslationBundle
  ) {
    const pace_s = () => this.settings.refresh_s;
    this.feeds = new Feeds(run => pageHost(api, run, pace_s), pageVisibility);
    this.runs = new RunList({
      ask: () => api.runs(),
      setTimer: (after_s, callback) => {
        const timer = setTimeout(callback, 1000 * after_s);
        return () => clearTimeout(timer);
      },
      pace_s
    });
    this.runs.changed.connect(() => {
      // The server came (back): what it allows may have changed with it.
      if (!this.runs.problem && !this.status) {
        void this.askStatus();
      }
    });
  }

  readonly feeds: Feeds;
  readonly runs: RunList;
  settings: LabSettings = DEFAULT_SETTINGS;
  status: ServerStatus | null = null;
  selected: string | null = null;

  get statusChanged(): ISignal<this, void> {
    return this._statusChanged;
  }

  get settingsChanged(): ISignal<this, void> {
    return this._settingsChanged;
  }

  setSettings(settings: LabSettings): void {
    this.settings = settings;
    this._settingsChanged.emit();
  }

  readOnly(): boolean {
    return this.status?.read_only ?? true;
  }

  async askStatus(): Promise<void> {
    try {
      this.status = await this.api.status();
    } catch (error) {
      // The list of runs asks the same server and shows why it cannot be reached; here only the log is told.
      console.warn('pluralis-lab:', error);
      return;
    }
    this._statusChanged.emit();
  }

  private readonly _settingsChanged = new Signal<this, void>(this);
  private readonly _statusChanged = new Signal<this, void>(this);
}

export const core: JupyterFrontEndPlugin<ILab> = {
  id: 'pluralis-lab:core',
  description: 'The runs of pluralis_lab: server, live feeds and list.',
  autoStart: true,
  provides: ILab,
  optional: [ITranslator],
  activate: (app: JupyterFrontEnd, translator: ITranslator | null): ILab => {
    const trans = (translator ?? nullTranslator).load('pluralis_lab');
    const lab = new Lab(new Api(app.serviceManager.serverSettings), trans);
    void app.restored.then(() => lab.runs.start());
    return lab;
  }
};
