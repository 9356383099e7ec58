/** What can be done to a run, as commands: panel, palette, keyboard and other extensions all come through here. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard, Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import type { ReadonlyJSONObject, ReadonlyPartialJSONObject } from '@lumino/coreutils';

import type { RunRow } from '../api/types';
import { showDiskUse } from '../disk/dialog';
import { CommandIDs } from '../ids';
import { NO_ARGS, RUN_ARGS, STOP_ARGS, WORKER_ARGS } from '../runs/args';
import { chooseRun } from '../runs/choose';
import { codeFor } from '../runs/code';
import { canResume, isLive } from '../runs/rows';
import { ILab } from '../tokens';

interface RunCommand {
  label: string;
  /** Asked with a list of runs where it is not clear which one is meant; `only` says which ones can be. */
  question: string;
  only?: (row: RunRow) => boolean;
  args?: ReadonlyJSONObject;
  /** Changes nothing, so that a read-only server has it too. */
  isHarmless?: boolean;
  /** Throws where an argument is missing that no question is asked about. */
  check?: (given: ReadonlyPartialJSONObject) => void;
  act: (run: string, given: ReadonlyPartialJSONObject) => Promise<void> | void;
}

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

    /** A command on one run: the one it is given, the chosen one, or the answer to `question`. */
    const addRunCommand = (id: string, { label, question, args = RUN_ARGS, only, isHarmless = false, check, act }: RunCommand): void => {
      app.commands.addCommand(id, {
        label,
        describedBy: { args },
        ...(isHarmless ? {} : { isVisible: mayCommand, isEnabled: mayCommand }),
        execute: async given => {
          check?.(given);
          const run = await chooseRun(lab, given.run, question, only);
          if (run !== null) {
            await act(run, given);
          }
        }
      });
    };

    addRunCommand(CommandIDs.stopRun, {
      label: trans.__('Stop a Training Run…'),
      question: trans.__('Stop which run?'),
      args: STOP_ARGS,
      only: isLive,
      act: async (run, { asked }) => {
        const body = trans.__('Run %1 ends now. Its last checkpoints stay, and it can be resumed.', name(run));
        if (asked === true || (await ask(trans.__('Stop the run?'), body, trans.__('Stop the run')))) {
          await lab.api.stop(run);
          await lab.runs.refresh();
        }
      }
    });

    addRunCommand(CommandIDs.resumeRun, {
      label: trans.__('Resume a Training Run'),
      question: trans.__('Resume which run?'),
      only: canResume,
      act: async run => {
        await lab.api.resume(run);
        await lab.runs.refresh();
      }
    });

    addRunCommand(CommandIDs.deleteRun, {
      label: trans.__('Delete a Training Run…'),
      question: trans.__('Delete which run?'),
      only: row => !isLive(row),
      act: async run => {
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

    addRunCommand(CommandIDs.killWorker, {
      label: trans.__('Kill a Worker of a Training Run…'),
      question: trans.__('A worker of which run?'),
      args: WORKER_ARGS,
      only: isLive,
      check: ({ worker }) => {
        if (typeof worker !== 'string' || !worker) {
          throw new Error(trans.__('Which worker? Open the run and choose one under Workers.'));
        }
      },
      act: async (run, given) => {
        const worker = given.worker as string;
        const body = trans.__('The process of %1 is killed at once, as a crash would; the run goes on as long as each stage has a live worker.', worker);
        if (await ask(trans.__('Kill the worker?'), body, trans.__('Kill it'))) {
          await lab.api.kill(run, worker);
        }
      }
    });

    addRunCommand(CommandIDs.copyCode, {
      label: trans.__('Copy the Code for a Training Run'),
      question: trans.__('The code for which run?'),
      isHarmless: true,
      act: run => {
        Clipboard.copyToSystem(codeFor(run));
        Notification.success(trans.__('The code that opens run %1 is in the clipboard.', name(run)), { autoClose: 4000 });
      }
    });

    addRunCommand(CommandIDs.insertCode, {
      label: trans.__('Insert the Code for a Training Run into the Notebook'),
      question: trans.__('The code for which run?'),
      isHarmless: true,
      act: async run => {
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
