/** Drags a run out of the panel: a notebook takes it as a cell, anything else as text. */

import { MimeData } from '@lumino/coreutils';
import { Drag } from '@lumino/dragdrop';
import { el } from '@pluralis-lab/views/dom.js';

import { codeFor } from '../runs/code';

const CELLS = 'application/vnd.jupyter.cells';

export function dragRun(id: string, name: string, source: HTMLElement, clientX: number, clientY: number): void {
  const code = codeFor(id);
  const mimeData = new MimeData();
  mimeData.setData(CELLS, [{ cell_type: 'code', source: code, metadata: {}, outputs: [], execution_count: null }]);
  mimeData.setData('text/plain', code);
  const drag = new Drag({
    mimeData,
    dragImage: el('div', { class: 'plab-drag', text: `pl.open_run("${name}")` }),
    supportedActions: 'copy',
    proposedAction: 'copy',
    source
  });
  void drag.start(clientX, clientY).then(() => drag.dispose());
}
