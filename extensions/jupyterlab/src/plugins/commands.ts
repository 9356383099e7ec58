/** What can be done to a run, as commands: panel, palette, keyboard and other extensions all come through here. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard, Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';

import { showDiskUse } from '../disk/dialog';
import { CommandIDs } from '../ids';
import { NO_ARGS, RUN_ARGS, STOP_ARGS, WORKER_ARGS } from '../runs/args';
import { chooseRun } from '../runs/choose';
import { codeFor } from '../runs/code';
import { canResume, isLive } from '../runs/rows';
import { ILab } from '../tokens';

export const commands: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:commands',
  description: 'Commands on runs.',
  autoStart: true,
  requires: [ILab],
  optional: [INotebookTracker],
  activate: (app: JupyterFrontEnd, lab: ILab, notebooks: INotebookTracker | null) => {
    const { trans } = lab;
    const mayCommand = () => !lab.readOnly();
    const name = (id: string) => lab.runs.find(id)?.name ?? id.slice(0, 8);
    const ask = async (title: string, body: string, label: string): Promise<boolean> => {
      const answer = await showDialog({
        title,
        body,
        buttons: [Dialog.cancelButton({ label: trans.__('Keep it') }), Dialog.warnButton({ label })],
        defaultButton: 0
      });
      return answer.button.accept;
    };

    app.commands.addCommand(CommandIDs.refresh, {
      label: trans.__('Look for Training Runs Again'),
      describedBy: { args: NO_ARGS },
      execute: () => lab.runs.refresh()
    });

    app.commands.addCommand(CommandIDs.stopRun, {
      label: trans.__('Stop a Training Run…'),
      describedBy: { args: STOP_ARGS },
      isVisible: mayCommand,
      isEnabled: mayCommand,
      execute: async args => {
        const run = await chooseRun(lab, args.run, trans.__('Stop which run?'), isLive);
        if (run === null) {
          return;
        }
        const body = trans.__('Run %1 ends now. Its last checkpoints stay, and it can be resumed.', name(run));
        if (args.asked === true || (await ask(trans.__('Stop the run?'), body, trans.__('Stop the run')))) {
          await lab.api.stop(run);
          await lab.runs.refresh();
        }
      }
    });

    app.commands.addCommand(CommandIDs.resumeRun, {
      label: trans.__('Resume a Training Run'),
      describedBy: { args: RUN_ARGS },
      isVisible: mayCommand,
      isEnabled: mayCommand,
      execute: async args => {
        const run = await chooseRun(lab, args.run, trans.__('Resume which run?'), canResume);
        if (run !== null) {
          await lab.api.resume(run);
          await lab.runs.refresh();
        }
      }
    });

    app.commands.addCommand(CommandIDs.deleteRun, {
      label: trans.__('Delete a Training Run…'),
      describedBy: { args: RUN_ARGS },
      isVisible: mayCommand,
      isEnabled: mayCommand,
      execute: async args => {
        const run = await chooseRun(lab, args.run, trans.__('Delete which run?'), row => !isLive(row));
        if (run === null) {
          return;
        }
        const row = lab.runs.find(run);
        if (row && isLive(row)) {
          throw new Error(trans.__('Run %1 is live; stop it first.', row.name));
        }
        const body = trans.__(
          'Everything of run %1 on this machine goes: checkpoints, events, evidence, logs. This cannot be undone. What is on a chain stays there.',
          name(run)
        );
        if (await ask(trans.__('Delete the run?'), body, trans.__('Delete for good'))) {
          await lab.api.remove(run);
          await lab.runs.refresh();
        }
      }
    });

    app.commands.addCommand(CommandIDs.killWorker, {
      label: trans.__('Kill a Worker of a Training Run…'),
      describedBy: { args: WORKER_ARGS },
      isVisible: mayCommand,
      isEnabled: mayCommand,
      execute: async args => {
        const { worker } = args;
        if (typeof worker !== 'string' || !worker) {
          throw new Error(trans.__('Which worker? Open the run and choose one under Workers.'));
        }
        const run = await chooseRun(lab, args.run, trans.__('A worker of which run?'), isLive);
        const body = trans.__('The process of %1 is killed at once, as a crash would; the run goes on as long as each stage has a live worker.', worker);
        if (run !== null && (await ask(trans.__('Kill the worker?'), body, trans.__('Kill it')))) {
          await lab.api.kill(run, worker);
        }
      }
    });

    app.commands.addCommand(CommandIDs.copyCode, {
      label: trans.__('Copy the Code for a Training Run'),
      describedBy: { args: RUN_ARGS },
      execute: async args => {
        const run = await chooseRun(lab, args.run, trans.__('The code for which run?'));
        if (run !== null) {
          Clipboard.copyToSystem(codeFor(run));
          Notification.success(trans.__('The code that opens run %1 is in the clipboard.', name(run)), { autoClose: 4000 });
        }
      }
    });

    app.commands.addCommand(CommandIDs.insertCode, {
      label: trans.__('Insert the Code for a Training Run into the Notebook'),
      describedBy: { args: RUN_ARGS },
      execute: async args => {
        const run = await chooseRun(lab, args.run, trans.__('The code for which run?'));
        if (run === null) {
          return;
        }
        const notebook = notebooks?.currentWidget;
        if (!notebook) {
          await app.commands.execute(CommandIDs.copyCode, { run });
          return;
        }
        const { content } = notebook;
        const active = content.activeCell;
        // An empty code cell is a place that waits for code; else a new one below.
        if (active?.model.type !== 'code' || active.model.sharedModel.getSource().trim()) {
          NotebookActions.insertBelow(content);
        }
        content.activeCell?.model.sharedModel.setSource(codeFor(run));
        app.shell.activateById(notebook.id);
        content.mode = 'edit';
      }
    });

    app.commands.addCommand(CommandIDs.diskUse, {
      label: trans.__('Disk Use of Training Runs'),
      describedBy: { args: NO_ARGS },
      execute: () => showDiskUse(lab, app.commands)
    });
  }
};
