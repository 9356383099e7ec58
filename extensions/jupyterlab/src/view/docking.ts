/** Between our layout, which names panes, and Lumino's, which holds widgets. */

import type { DockLayout, DockPanel } from '@lumino/widgets';
import type { Area, Layout } from './layout';
import { PaneWidget } from './panewidget';

/** What the dock panel shows now. */
export function layoutOf(dock: DockPanel): Layout {
  const { main } = dock.saveLayout();
  return { version: 1, main: main ? areaOf(main) : null };
}

function areaOf(config: DockLayout.AreaConfig): Area | null {
  if (config.type === 'tab-area') {
    const panes = config.widgets.flatMap(widget => (widget instanceof PaneWidget ? [widget.kind.id] : []));
    return panes.length ? { type: 'tabs', panes, current: Math.max(0, config.currentIndex) } : null;
  }
  const children = config.children.map(areaOf);
  const kept = children.flatMap((area, i) => (area ? [{ area, size: config.sizes[i] ?? 1 }] : []));
  return kept.length
    ? { type: 'split', orientation: config.orientation, children: kept.map(one => one.area), sizes: kept.map(one => one.size) }
    : null;
}

/** Arrange the panes; every pane of the layout must be in `panes`. */
export function applyLayout(dock: DockPanel, layout: Layout, panes: ReadonlyMap<string, PaneWidget>): void {
  dock.restoreLayout({ main: layout.main ? configOf(layout.main, panes) : null });
}

function configOf(area: Area, panes: ReadonlyMap<string, PaneWidget>): DockLayout.AreaConfig {
  if (area.type === 'tabs') {
    return {
      type: 'tab-area',
      widgets: area.panes.flatMap(id => panes.get(id) ?? []),
      currentIndex: area.current
    };
  }
  return {
    type: 'split-area',
    orientation: area.orientation,
    children: area.children.map(child => configOf(child, panes)),
    sizes: area.sizes
  };
}
