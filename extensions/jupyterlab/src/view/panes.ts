/** The panes of a run, in the order of their tabs. A later one is added here, and nowhere else. */

import { ask } from './ask';
import { contributions } from './contributions';
import { evidence } from './evidence';
import { overview } from './overview';
import { ownership } from './ownership';
import type { PaneKind } from './pane';
import { topology } from './topology';
import { workers } from './workers';

export const PANES: readonly PaneKind[] = [overview, contributions, ownership, evidence, ask, workers, topology];
