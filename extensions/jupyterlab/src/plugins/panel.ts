/** The side panel, at its place in the layout, with the command that shows it. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';

import { CommandIDs } from '../ids';
import { RunPanel } from '../panel/panel';
import { NO_ARGS } from '../runs/args';
import { ILab } from '../tokens';

export const panel: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:panel',
  description: 'The side panel with all runs.',
  autoStart: true,
  requires: [ILab],
  optional: [ILayoutRestorer],
  activate: (app: JupyterFrontEnd, lab: ILab, restorer: ILayoutRestorer | null) => {
    const widget = new RunPanel(lab, app.commands);
    restorer?.add(widget, widget.id);
    app.shell.add(widget, 'left', { rank: 450, type: 'Training runs' });
    app.commands.addCommand(CommandIDs.showPanel, {
      label: lab.trans.__('Show Training Runs'),
      caption: lab.trans.__('Show the side panel with all runs'),
      describedBy: { args: NO_ARGS },
      execute: async () => {
        // The palette gives the keyboard back to the document in front as soon as a command has begun: the panel takes it after that.
        await Promise.resolve();
        app.shell.activateById(widget.id);
      }
    });
  }
};
