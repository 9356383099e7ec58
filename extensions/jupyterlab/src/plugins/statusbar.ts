/** Counts live runs in the status bar; a click opens the panel. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { el, setAttributes, setText } from '@pluralis-lab/views/dom.js';

import { CommandIDs } from '../ids';
import { isLive } from '../runs/rows';
import { ILab } from '../tokens';

export const statusbar: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:status-bar',
  description: 'Counts live runs in the status bar.',
  autoStart: true,
  requires: [ILab],
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, lab: ILab, bar: IStatusBar | null) => {
    if (!bar) {
      return;
    }
    const { trans } = lab;
    const button = el('button', { type: 'button', class: 'plab-status jp-StatusItem-button' });
    button.addEventListener('click', () => void app.commands.execute(CommandIDs.showPanel));
    const item = new Widget();
    item.node.append(button);
    const changed = new Signal<Widget, void>(item);
    const count = () => (lab.runs.rows ?? []).filter(isLive).length;
    const draw = () => {
      const live = count();
      const text = lab.runs.problem ? trans.__('runs: no answer') : trans._n('%1 live run', '%1 live runs', live);
      setText(button, `${lab.runs.problem ? '⚠' : '●'} ${text}`);
      setAttributes(button, { title: lab.runs.problem || trans.__('Show the training runs') });
      changed.emit();
    };
    lab.runs.changed.connect(draw);
    lab.settingsChanged.connect(draw);
    draw();
    bar.registerStatusItem(statusbar.id, {
      item,
      align: 'left',
      rank: 20,
      isActive: () => lab.settings.statusBar && (count() > 0 || lab.runs.problem !== ''),
      activeStateChanged: changed
    });
  }
};
