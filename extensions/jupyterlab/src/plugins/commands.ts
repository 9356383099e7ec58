/** What can be done to a run, as commands: panel, palette, keyboard and other extensions all come through here. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Clipboard, Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import type { ReadonlyJSONObject, ReadonlyPartialJSONObject } from '@lumino/coreutils';

import type { NewWorker } from '../api/client';
import type { Attached, RunRow } from '../api/types';
import { askAndAttach } from '../attach/dialog';
import { showDiskUse } from '../disk/dialog';
import { CommandIDs } from '../ids';
import { askAndInvite } from '../invite/dialog';
import { ATTACH_ARGS, DETACH_ARGS, INVITE_ARGS, NO_ARGS, RUN_ARGS, STOP_ARGS, WORKER_ARGS } from '../runs/args';
import { chooseRun } from '../runs/choose';
import { codeFor } from '../runs/code';
import { canResume, isLive, whyNoFarewell, whyNoInvitation, whyNoWorker } from '../runs/rows';
import { ILab } from '../tokens';
import { leavable } from '../view/leaving';

interface RunCommand {
  label: string;
  /** Asked with a list of runs where it is not clear which one is meant; `only` says which ones can be. */
  question: string;
  only?: (row: RunRow) => boolean;
  args?: ReadonlyJSONObject;
  /** Changes nothing, so that a read-only server has it too. */
  isHarmless?: boolean;
  /** Why it cannot be done to a run, for a reader; "" where it can. */
  whyNot?: (row: RunRow) => string;
  /** Throws where an argument is missing that no question is asked about. */
  check?: (given: ReadonlyPartialJSONObject) => void;
  /** Gives what the command gives. */
  act: (run: string, given: ReadonlyPartialJSONObject) => unknown;
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
    const addRunCommand = (id: string, { label, question, args = RUN_ARGS, only, isHarmless = false, whyNot, check, act }: RunCommand): void => {
      /** Of the run it is given, as far as the list knows it; without one there is a question first. */
      const reason = ({ run }: ReadonlyPartialJSONObject): string => {
        const row = typeof run === 'string' ? lab.runs.find(run) : null;
        return row && whyNot ? whyNot(row) : '';
      };
      app.commands.addCommand(id, {
        label,
        describedBy: { args },
        caption: reason,
        ...(isHarmless ? {} : { isVisible: mayCommand, isEnabled: given => mayCommand() && !reason(given) }),
        execute: async given => {
          check?.(given);
          const run = await chooseRun(lab, given.run, question, only);
          return run === null ? null : await act(run, given);
        }
      });
      if (whyNot) {
        let before = '';
        lab.runs.changed.connect(() => {
          const now = (lab.runs.rows ?? []).map(row => `${row.id}${whyNot(row)}`).join();
          if (now !== before) {
            before = now;
            app.commands.notifyCommandChanged(id);
          }
        });
      }
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

    /** The row of a run that may have started a moment ago. */
    const rowOf = async (run: string): Promise<RunRow> => {
      if (!lab.runs.find(run)) {
        await lab.runs.refresh();
      }
      const row = lab.runs.find(run);
      if (!row) {
        throw new Error(lab.runs.problem || trans.__('Run %1 is not among the runs of this server.', run.slice(0, 8)));
      }
      return row;
    };
    const told = (run: string) => (added: Attached) => {
      Notification.success(trans.__('%1 comes to stage %2 of %3, for %4.', added.worker, added.stage, name(run), added.participant), { autoClose: 6000 });
      void lab.runs.refresh();
    };
    addRunCommand(CommandIDs.attachWorker, {
      label: trans.__('Add a Worker to a Training Run…'),
      question: trans.__('Add a worker to which run?'),
      args: ATTACH_ARGS,
      only: row => !whyNoWorker(row, trans),
      whyNot: row => whyNoWorker(row, trans),
      act: async (run, { asked, device, stage, account, data }) => {
        // What is no text or number goes to the server as it is, which says what is wrong with it.
        const wanted = { device, stage, account, data } as NewWorker;
        if (asked === true) {
          const added = await lab.api.attach(run, wanted);
          told(run)(added);
          return added;
        }
        await askAndAttach(lab, await rowOf(run), wanted, told(run));
        return null;
      }
    });

    addRunCommand(CommandIDs.inviteWorkers, {
      label: trans.__('Invite Workers to a Training Run…'),
      question: trans.__('Invite to which run?'),
      args: INVITE_ARGS,
      only: row => !whyNoInvitation(row, trans),
      whyNot: row => whyNoInvitation(row, trans),
      // What is made is given to nobody but the reader: it is a secret.
      act: async (run, { seats, stage }) => askAndInvite(lab, await rowOf(run), { seats, stage } as { seats?: number; stage?: number })
    });

    /** Ask which of the workers that came later is meant; null when the question was dismissed. */
    const chooseLeaving = async (run: string): Promise<string | null> => {
      const { picture } = await lab.api.picture(run, null, 8);
      const there = picture ? leavable(picture) : [];
      const items = there.map(one => trans.__('%1 · stage %2 · %3', one.name, one.stage, one.participant));
      if (!items.length) {
        throw new Error(trans.__('Run %1 has no worker that came later: those of its spec stay with it.', name(run)));
      }
      const answer = await InputDialog.getItem({ title: trans.__('Let which worker go?'), items });
      return answer.button.accept && answer.value !== null ? (there[items.indexOf(answer.value)]?.name ?? null) : null;
    };
    addRunCommand(CommandIDs.detachWorker, {
      label: trans.__('Let a Worker of a Training Run Go…'),
      question: trans.__('A worker of which run?'),
      args: DETACH_ARGS,
      only: row => !whyNoFarewell(row, trans),
      whyNot: row => whyNoFarewell(row, trans),
      act: async (run, given) => {
        const worker = typeof given.worker === 'string' ? given.worker : await chooseLeaving(run);
        if (worker === null) {
          return false;
        }
        const body = trans.__(
          '%1 is dealt no more work, finishes what it has begun and leaves when nobody needs anything of it. What it did stays its owner’s. It does not come back, also not when the run is resumed.',
          worker
        );
        const isMeant = await ask(trans.__('Let the worker go?'), body, trans.__('Let it go'));
        if (isMeant) {
          await lab.api.detach(run, worker);
          Notification.success(trans.__('%1 leaves %2 as soon as it has finished what it has begun.', worker, name(run)), { autoClose: 6000 });
        }
        return isMeant;
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
