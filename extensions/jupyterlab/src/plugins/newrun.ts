/** Opens the form of a new run. */

import { ILabShell, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { MainAreaWidget, Notification } from '@jupyterlab/apputils';

import { RunForm } from '../form/form';
import { runIcon } from '../icons';
import { CommandIDs } from '../ids';
import { RUN_ARGS } from '../runs/args';
import { isRunId } from '../runs/code';
import { ILab } from '../tokens';
import { place } from './place';

export const newRun: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:new-run',
  description: 'The form of a new run.',
  autoStart: true,
  requires: [ILab],
  optional: [ILabShell],
  activate: (app: JupyterFrontEnd, lab: ILab, labShell: ILabShell | null) => {
    const { trans } = lab;
    let open: MainAreaWidget<RunForm> | null = null;
    app.commands.addCommand(CommandIDs.newRun, {
      label: args => (args.isLauncher === true ? trans.__('Training run') : trans.__('New Training Run…')),
      caption: trans.__('Start a training run with workers on this machine'),
      icon: runIcon,
      describedBy: { args: RUN_ARGS },
      isVisible: () => !lab.readOnly(),
      isEnabled: () => !lab.readOnly(),
      execute: args => {
        const like = isRunId(args.run) ? args.run : null;
        if (open && !open.isDisposed && like === null) {
          place(app, open, labShell !== null);
          return;
        }
        open?.dispose();
        const content = new RunForm(lab, like, id => {
          widget.dispose();
          lab.selected = id;
          void lab.runs.refresh();
          app.commands.execute(CommandIDs.openRun, { run: id }).catch((error: unknown) => Notification.error(String(error)));
        });
        const widget = new MainAreaWidget({ content });
        widget.id = 'pluralis-lab-new-run';
        widget.title.label = trans.__('New run');
        widget.title.icon = runIcon;
        widget.title.closable = true;
        widget.toolbar.hide();
        open = widget;
        place(app, widget, labShell !== null);
      }
    });
  }
};
