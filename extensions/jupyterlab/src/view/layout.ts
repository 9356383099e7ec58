/** The arrangement of the panes as JSON: kept by the opener, checked before it is used. DOM-free. */

/** A tab group, or a split of groups; the form of Lumino's `DockLayout.AreaConfig`, with pane ids in place of widgets. */
export type Area =
  | { type: 'tabs'; panes: string[]; current: number }
  | { type: 'split'; orientation: 'horizontal' | 'vertical'; children: Area[]; sizes: number[] };

export interface Layout {
  version: 1;
  main: Area | null;
}

const DEEPEST = 12;

/** The arrangement of a run that is opened for the first time: the run above, the machines below. */
export function defaultLayout(above: readonly string[], below: readonly string[]): Layout {
  const groups = [above, below].filter(ids => ids.length);
  const tabs = groups.map((ids): Area => ({ type: 'tabs', panes: [...ids], current: 0 }));
  return {
    version: 1,
    main: tabs.length < 2 ? (tabs[0] ?? null) : { type: 'split', orientation: 'vertical', children: tabs, sizes: [0.58, 0.42] }
  };
}

/** Read a kept layout, or return null: it may come from another version, or from a hand. */
export function readLayout(value: unknown): Layout | null {
  if (!isRecord(value) || value.version !== 1) {
    return null;
  }
  const main = readArea(value.main, new Set(), 0);
  return main ? { version: 1, main } : null;
}

function readArea(value: unknown, seen: Set<string>, depth: number): Area | null {
  if (!isRecord(value) || depth > DEEPEST) {
    return null;
  }
  if (value.type === 'tabs' && Array.isArray(value.panes)) {
    const panes: string[] = [];
    for (const id of value.panes as unknown[]) {
      if (typeof id === 'string' && !seen.has(id)) {
        seen.add(id);
        panes.push(id);
      }
    }
    const current = typeof value.current === 'number' && Number.isInteger(value.current) ? value.current : 0;
    return panes.length ? { type: 'tabs', panes, current: Math.min(panes.length - 1, Math.max(0, current)) } : null;
  }
  if (value.type === 'split' && Array.isArray(value.children)) {
    const sizes = Array.isArray(value.sizes) ? value.sizes : [];
    const kept = value.children.flatMap((child, i) => {
      const area = readArea(child, seen, depth + 1);
      const size: unknown = sizes[i];
      return area ? [{ area, size: typeof size === 'number' && size > 0 && Number.isFinite(size) ? size : 1 }] : [];
    });
    return joined(kept, value.orientation === 'horizontal' ? 'horizontal' : 'vertical');
  }
  return null;
}

function joined(kept: { area: Area; size: number }[], orientation: 'horizontal' | 'vertical'): Area | null {
  const only = kept[0];
  if (!only || kept.length === 1) {
    return only?.area ?? null;
  }
  return { type: 'split', orientation, children: kept.map(one => one.area), sizes: kept.map(one => one.size) };
}

/** Leave out panes that are not there; a group or split that becomes empty goes with them. */
export function onlyPanes(layout: Layout, there: ReadonlySet<string>): Layout {
  const prune = (area: Area): Area | null => {
    if (area.type === 'split') {
      const kept = area.children.flatMap((child, i) => {
        const left = prune(child);
        return left ? [{ area: left, size: area.sizes[i] ?? 1 }] : [];
      });
      return joined(kept, area.orientation);
    }
    const current = area.panes[area.current];
    const panes = area.panes.filter(id => there.has(id));
    return panes.length ? { type: 'tabs', panes, current: Math.max(0, panes.indexOf(current ?? '')) } : null;
  };
  return { version: 1, main: layout.main ? prune(layout.main) : null };
}

export function panesOf(layout: Layout): string[] {
  const all = (area: Area): string[] => (area.type === 'tabs' ? area.panes : area.children.flatMap(all));
  return layout.main ? all(layout.main) : [];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
