/** pluralis_lab in JupyterLab and Notebook: one plugin per concern. */

import { commands } from './plugins/commands';
import { compare } from './plugins/compare';
import { core } from './plugins/core';
import { launcher } from './plugins/launcher';
import { mime } from './plugins/mime';
import { newRun } from './plugins/newrun';
import { palette } from './plugins/palette';
import { panel } from './plugins/panel';
import { running } from './plugins/running';
import { settings } from './plugins/settings';
import { statusbar } from './plugins/statusbar';
import { view } from './plugins/view';

export default [core, settings, commands, panel, view, newRun, compare, palette, launcher, running, statusbar, mime];
