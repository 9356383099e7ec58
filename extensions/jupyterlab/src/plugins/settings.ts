/** Keeps the shared settings in step with JupyterLab's settings editor. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { DEFAULT_SETTINGS, ILab, type LabSettings } from '../tokens';

export const settings: JupyterFrontEndPlugin<void> = {
  id: 'pluralis-lab:settings',
  description: 'Settings of the training runs.',
  autoStart: true,
  requires: [ILab],
  optional: [ISettingRegistry],
  activate: async (_app: JupyterFrontEnd, lab: ILab, registry: ISettingRegistry | null) => {
    if (!registry) {
      return;
    }
    const loaded = await registry.load(settings.id);
    const apply = () => {
      lab.setSettings({ ...DEFAULT_SETTINGS, ...(loaded.composite as unknown as Partial<LabSettings>) });
    };
    loaded.changed.connect(apply);
    apply();
  }
};
