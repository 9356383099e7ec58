/** Every command in the palette. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';

import { CommandIDs } from '../ids';
import { ILab } from '../tokens';

export const palette: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:palette',
  description: 'Palette entries of the training runs.',
  autoStart: true,
  requires: [ILab],
  optional: [ICommandPalette],
  activate: (_app: JupyterFrontEnd, lab: ILab, entries: ICommandPalette | null) => {
    for (const command of Object.values(CommandIDs)) {
      // Who is killed is chosen where one sees it: in the view of its run.
      if (command !== CommandIDs.killWorker) {
        entries?.addItem({ command, category: lab.trans.__('Training Runs') });
      }
    }
  }
};
