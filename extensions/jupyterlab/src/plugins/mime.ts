/** Runs in saved outputs come alive: our renderer stands before the widget renderer and is safe in untrusted notebooks. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';

import { RunOutput } from '../mime/renderer';
import { RUN_MIME } from '../mime/stored';
import { ILab } from '../tokens';

/** ipywidgets' renderer has -10. After a kernel restart it can only say "model not found"; ours still knows the run. */
const RANK = -20;

export const mime: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:mime',
  description: 'Shows stored runs live.',
  autoStart: true,
  requires: [ILab, IRenderMimeRegistry],
  activate: (app: JupyterFrontEnd, lab: ILab, registry: IRenderMimeRegistry) => {
    registry.addFactory(
      { safe: true, mimeTypes: [RUN_MIME], createRenderer: () => new RunOutput(lab, app.commands), defaultRank: RANK },
      RANK
    );
  }
};
