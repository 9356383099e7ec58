/** A card in the launcher that opens the form of a new run. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILauncher } from '@jupyterlab/launcher';
import type { IDisposable } from '@lumino/disposable';

import { CommandIDs } from '../ids';
import { ILab } from '../tokens';

export const launcher: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:launcher',
  description: 'A card for a new run.',
  autoStart: true,
  requires: [ILab],
  optional: [ILauncher],
  activate: (_app: JupyterFrontEnd, lab: ILab, cards: ILauncher | null) => {
    let card: IDisposable | null = null;
    const settle = () => {
      if (lab.readOnly()) {
        card?.dispose();
        card = null;
      } else {
        card ??= cards?.add({ command: CommandIDs.newRun, args: { isLauncher: true }, category: lab.trans.__('Other'), rank: 2 }) ?? null;
      }
    };
    lab.statusChanged.connect(settle);
    settle();
  }
};
