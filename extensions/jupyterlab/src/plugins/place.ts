/** Where a wide view goes: the main area of JupyterLab; in Notebook 7, whose main area holds one document, the right side. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { Widget } from '@lumino/widgets';

/** Add `widget` where there is room, and show it. `isLab` is false in Notebook 7. */
export function place(app: JupyterFrontEnd, widget: Widget, isLab: boolean): void {
  if (!widget.isAttached) {
    app.shell.add(widget, isLab ? 'main' : 'right');
  }
  app.shell.activateById(widget.id);
}
