/** Opens two runs beside each other; the layout brings them back. */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';

import { CompareView } from '../compare/compare';
import { compareIcon } from '../icons';
import { CommandIDs } from '../ids';
import { COMPARE_ARGS } from '../runs/args';
import { chooseRun } from '../runs/choose';
import { isRunId } from '../runs/code';
import { ILab } from '../tokens';
import { place } from './place';

export const compare: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:compare',
  description: 'Two runs beside each other.',
  autoStart: true,
  requires: [ILab],
  optional: [ILabShell, ILayoutRestorer],
  activate: (app: JupyterFrontEnd, lab: ILab, labShell: ILabShell | null, restorer: ILayoutRestorer | null) => {
    const { trans } = lab;
    const tracker = new WidgetTracker<MainAreaWidget<CompareView>>({ namespace: 'pluralis-lab-compare' });
    app.commands.addCommand(CommandIDs.compareRuns, {
      label: trans.__('Compare Two Training Runs…'),
      icon: compareIcon,
      describedBy: { args: COMPARE_ARGS },
      execute: async args => {
        let runs: unknown[] = Array.isArray(args.runs) ? args.runs : [];
        if (!args.runs) {
          const a = await chooseRun(lab, undefined, trans.__('Compare which run?'));
          const b = a === null ? null : await chooseRun(lab, undefined, trans.__('With which run?'), undefined, [a]);
          if (a === null || b === null) {
            return;
          }
          runs = [a, b];
        }
        const [a, b] = runs;
        if (runs.length !== 2 || !isRunId(a) || !isRunId(b) || a === b) {
          throw new Error(trans.__('Two different runs can be compared, not %1.', runs.length));
        }
        const id = `pluralis-lab-compare-${a.slice(0, 16)}-${b.slice(0, 16)}`;
        let widget = tracker.find(one => one.id === id);
        if (!widget) {
          const content = new CompareView(lab, [a, b]);
          widget = new MainAreaWidget({ content });
          widget.id = id;
          widget.title.label = [a, b].map(one => lab.runs.find(one)?.name ?? one.slice(0, 8)).join(' | ');
          widget.title.icon = compareIcon;
          widget.title.closable = true;
          widget.toolbar.hide();
          await tracker.add(widget);
        }
        place(app, widget, labShell !== null);
      }
    });
    void restorer?.restore(tracker, {
      command: CommandIDs.compareRuns,
      args: widget => ({ runs: [...widget.content.runs] }),
      name: widget => widget.id
    });
  }
};
