/** Opens the main view of a run; the layout brings it back. */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';

import { runIcon } from '../icons';
import { CommandIDs } from '../ids';
import { OPEN_ARGS } from '../runs/args';
import { chooseRun } from '../runs/choose';
import { ILab } from '../tokens';
import { RunView } from '../view/runview';
import { place } from './place';

export const view: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:view',
  description: 'The main view of a run.',
  autoStart: true,
  requires: [ILab],
  optional: [ILabShell, ILayoutRestorer],
  activate: (app: JupyterFrontEnd, lab: ILab, labShell: ILabShell | null, restorer: ILayoutRestorer | null) => {
    const { trans, api, feeds } = lab;
    const tracker = new WidgetTracker<MainAreaWidget<RunView>>({ namespace: 'pluralis-lab-run' });
    const runOf = new Map<string, string>();
    tracker.currentChanged.connect((_, widget) => {
      lab.selected = (widget && runOf.get(widget.id)) ?? lab.selected;
    });
    // A restored view is there before the list of runs is: its name comes with it.
    lab.runs.changed.connect(() => {
      tracker.forEach(widget => {
        widget.title.label = lab.runs.find(runOf.get(widget.id) ?? '')?.name ?? widget.title.label;
      });
    });
    app.commands.addCommand(CommandIDs.openRun, {
      label: trans.__('Open a Training Run…'),
      icon: runIcon,
      describedBy: { args: OPEN_ARGS },
      execute: async args => {
        const run = await chooseRun(lab, args.run, trans.__('Open which run?'));
        if (run === null) {
          return;
        }
        const id = `pluralis-lab-run-${run}`;
        let widget = tracker.find(one => one.id === id);
        if (!widget) {
          const name = lab.runs.find(run)?.name ?? run.slice(0, 8);
          const content = new RunView({ run, name, api, feeds, trans, commands: app.commands, readOnly: () => lab.readOnly() });
          widget = new MainAreaWidget({ content });
          widget.id = id;
          widget.title.label = name;
          widget.title.caption = trans.__('Run %1', run);
          widget.title.icon = runIcon;
          widget.title.closable = true;
          widget.toolbar.hide();
          widget.disposed.connect(() => runOf.delete(id));
          runOf.set(id, run);
          if (typeof args.panes === 'string') {
            content.paneLayout = parsed(args.panes);
          }
          const opened = widget;
          content.paneLayoutChanged.connect(() => void tracker.save(opened));
          await tracker.add(widget);
        }
        place(app, widget, labShell !== null);
      }
    });
    void restorer?.restore(tracker, {
      command: CommandIDs.openRun,
      args: widget => ({ run: runOf.get(widget.id) ?? '', panes: JSON.stringify(widget.content.paneLayout) }),
      name: widget => widget.id
    });
  }
};

/** What was stored, or null when that is no JSON any more: then the panes stand as in a new view. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
