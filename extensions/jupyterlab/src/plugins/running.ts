/** Live runs among JupyterLab's running sessions, beside kernels and terminals. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { type IRunningSessions, IRunningSessionManagers } from '@jupyterlab/running';

import { runIcon } from '../icons';
import { CommandIDs } from '../ids';
import { figures, isLive, stateText } from '../runs/rows';
import { ILab } from '../tokens';

export const running: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:running',
  description: 'Live runs among the running sessions.',
  autoStart: true,
  requires: [ILab],
  optional: [IRunningSessionManagers],
  activate: (app: JupyterFrontEnd, lab: ILab, managers: IRunningSessionManagers | null) => {
    const { trans } = lab;
    const live = () => (lab.runs.rows ?? []).filter(isLive);
    managers?.add({
      name: trans.__('Training runs'),
      running: (): IRunningSessions.IRunningItem[] =>
        live().map(row => ({
          icon: () => runIcon,
          label: () => row.name,
          labelTitle: () => [trans.__('Run %1', row.name), stateText(row, trans), ...figures(row, trans)].join('\n'),
          detail: () => `${row.rounds_done}/${row.steps}`,
          open: () => void app.commands.execute(CommandIDs.openRun, { run: row.id }),
          ...(lab.readOnly() ? {} : { shutdown: () => void app.commands.execute(CommandIDs.stopRun, { run: row.id }) })
        })),
      // JupyterLab has asked already.
      shutdownAll: () => {
        if (!lab.readOnly()) {
          for (const row of live()) {
            void app.commands.execute(CommandIDs.stopRun, { run: row.id, asked: true });
          }
        }
      },
      refreshRunning: () => void lab.runs.refresh(),
      runningChanged: lab.runs.changed,
      shutdownLabel: trans.__('Stop the run'),
      shutdownAllLabel: trans.__('Stop all'),
      shutdownAllConfirmationText: trans.__('Stop all live runs? Their checkpoints stay; they can be resumed.')
    });
  }
};
