/** The Topology pane: stages and replicas, what flows between them, and who dies. */

import type { RunPicture } from '../api/types';
import { tonesOf } from './contributionsmodel';
import { el, keyed, setAttributes, setText, si, svg } from './core';
import type { Pane, PaneContext, PaneKind } from './pane';
import { stateLook, stateWord, workerWord } from './parts';
import { isIdle, isLive, isTraining } from './rounds';
import { movesLess } from './theme';
import { type Column, dashSeconds, Deaths, type Edge, edgeText, edgeWidth, fitting, headParts, type Plan, planOf, type Spot } from './topologymodel';

export const topology: PaneKind = {
  id: 'topology',
  title: trans => trans.__('Topology'),
  caption: trans => trans.__('Stages and replicas, and the traffic between them'),
  place: 'below',
  isShown: picture => picture.workers.length > 0,
  create: context => new TopologyPane(context)
};

const DYING_MS = 4000;

interface SpotItem {
  spot: Spot;
  tone: number;
  dying: boolean;
  picture: RunPicture;
  most: number;
}

class TopologyPane implements Pane {
  readonly node: HTMLElement;
  private readonly plot = svg('svg', { class: 'plab-map', role: 'group' });
  private readonly edges = svg('g');
  private readonly heads = svg('g');
  private readonly spots = svg('g');
  private readonly scroll: HTMLElement;
  private readonly readout = el('p', { class: 'plab-readout plab-map-readout' });
  private readonly legend: HTMLElement;
  private readonly edgeLegend = el('span', { class: 'plab-muted' });
  private readonly deaths = new Deaths();
  private readonly dyingUntil = new Map<string, number>();
  private readonly resized: ResizeObserver;
  private focused = '';
  private timer = 0;
  private plan: Plan | null = null;
  private isOver = false;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    this.plot.append(this.edges, this.heads, this.spots);
    this.scroll = el('div', { class: 'plab-map-scroll' }, this.plot);
    this.legend = el(
      'p',
      { class: 'plab-map-legend' },
      ...(['active', 'starting', 'dead', 'stopped'] as const).map(state =>
        el(
          'span',
          { class: `plab-legend-state plab-${stateLook(state).kind}` },
          el('span', { 'aria-hidden': 'true', text: stateLook(state).mark }),
          ` ${state === 'starting' ? trans.__('coming') : stateWord(state, trans)}`
        )
      ),
      this.edgeLegend
    );
    this.node = el('div', { class: 'plab-topology-pane' }, el('div', { class: 'plab-tools' }, this.legend, this.readout), this.scroll);
    this.spots.addEventListener('keydown', event => this.onKey(event));
    this.spots.addEventListener('focusin', event => this.point(event.target));
    this.spots.addEventListener('pointerover', event => this.point(event.target));
    this.scroll.addEventListener('pointerleave', () => setText(this.readout, ''));
    this.spots.addEventListener('click', event => this.choose(event.target));
    this.resized = new ResizeObserver(() => context.redraw());
    this.resized.observe(this.scroll);
  }

  draw(picture: RunPicture): void {
    const { detail, trans } = this.context;
    const width = this.scroll.clientWidth - 4;
    if (width <= 0) {
      return;
    }
    detail.want(picture);
    const now = performance.now();
    for (const name of this.deaths.take(picture)) {
      this.dyingUntil.set(name, now + DYING_MS);
      // Drawn once more when it is over, also if the run has nothing new by then.
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.context.redraw(), DYING_MS + 50);
    }
    const tones = tonesOf(picture);
    const plan = planOf(picture, detail.window.links(picture), width);
    this.plan = plan;
    this.isOver = picture.over;
    setAttributes(this.plot, {
      width: plan.width,
      height: plan.height,
      viewBox: `0 0 ${plan.width} ${plan.height}`,
      class: `plab-map${plan.compact ? ' plab-compact' : ''}${movesLess() || picture.over ? ' plab-still' : ''}`,
      'aria-label': plan.columns
        .map(column => trans.__('Stage %1: %2', column.stage, headParts({ ...column, bytesPerS: 0 }, trans).join(', ')))
        .join('. ')
    });
    const names = plan.spots.map(spot => spot.worker.name);
    if (!names.includes(this.focused)) {
      this.focused = names[0] ?? '';
    }
    keyed(this.heads, plan.columns, column => column.stage, () => this.head());
    keyed(this.edges, plan.edges.map(edge => ({ edge, plan, over: picture.over })), ({ edge }) => edge.key, () => this.edge());
    const mostBytes = plan.compact ? Math.max(0, ...plan.spots.map(spot => (isTraining(spot.worker.state) ? (spot.worker.bytes_per_s ?? 0) : 0))) : plan.most;
    const items: SpotItem[] = plan.spots.map(spot => ({
      spot,
      tone: tones.get(spot.worker.participant) ?? 7,
      dying: (this.dyingUntil.get(spot.worker.name) ?? 0) > now,
      picture,
      most: mostBytes
    }));
    keyed(this.spots, items, ({ spot }) => `${plan.compact ? 'c' : 'b'} ${spot.worker.name}`, () => (plan.compact ? this.cell() : this.box()));
    const measured = plan.edges.some(edge => edge.isMeasured);
    setText(
      this.edgeLegend,
      picture.over
        ? ''
        : plan.compact
          ? trans.__('the fuller a cell, the more it sends')
          : measured
            ? plan.mostSync > 0
              ? trans.__('lines: measured traffic, up to %1; dashed: between replicas, up to %2', si(plan.most, 'B/s'), si(plan.mostSync, 'B/s'))
              : trans.__('lines: measured traffic, up to %1', si(plan.most, 'B/s'))
            : plan.most > 0
              ? trans.__('lines: what a worker sends, divided evenly; the widest %1', si(plan.most, 'B/s'))
              : ''
    );
  }

  dispose(): void {
    window.clearTimeout(this.timer);
    this.resized.disconnect();
  }

  private head(): { node: Element; update(column: Column): void } {
    const { trans } = this.context;
    const title = svg('text', { class: 'plab-map-stage' });
    const facts = svg('text', { class: 'plab-tick' });
    const tip = svg('title');
    return {
      node: svg('g', {}, title, facts, tip),
      update: column => {
        const y = this.plan?.compact ? this.columnTop(column) : 12;
        setAttributes(title, { x: column.x, y });
        setAttributes(facts, { x: column.x, y: y + 14 });
        setText(title, column.stage < 0 ? trans.__('not placed yet') : trans.__('Stage %1', column.stage));
        const parts = headParts(column, trans);
        setText(facts, fitting(parts, column.width) || `${column.live}/${column.workers}`);
        setText(tip, parts.join(', '));
      }
    };
  }

  private columnTop(column: Column): number {
    const first = this.plan?.spots.find(spot => spot.worker.stage === column.stage);
    return (first?.y ?? 34) - 22;
  }

  private edge(): { node: Element; update(item: { edge: Edge; plan: Plan; over: boolean }): void } {
    const path = svg('path', {});
    const title = svg('title');
    const flow = svg('path', { class: 'plab-flow' });
    const node = svg('g', {}, path, flow, title);
    let pace = '';
    return {
      node,
      update: ({ edge, plan, over }) => {
        const d = shape(edge);
        const isIdle = over || edge.bytesPerS <= 0;
        const width = isIdle ? 1 : edge.kind === 'sync' ? edgeWidth(edge.bytesPerS, plan.mostSync, 3) : edgeWidth(edge.bytesPerS, plan.most);
        setAttributes(path, { d, class: `plab-edge plab-edge-${edge.kind}`, 'stroke-width': width.toFixed(1) });
        setAttributes(flow, { d, 'stroke-width': Math.min(2.5, width).toFixed(1), visibility: isIdle || edge.kind === 'sync' ? 'hidden' : 'visible' });
        // In steps: a new duration starts the animation anew, which would show as a jump with every picture.
        const seconds = (Math.round(dashSeconds(edge.bytesPerS, plan.most) * 2) / 2 || 0.5).toFixed(1);
        if (seconds !== pace) {
          pace = seconds;
          flow.style.animationDuration = `${seconds}s`;
        }
        setText(title, edgeText(edge, this.context.trans));
      }
    };
  }

  private box(): { node: Element; update(item: SpotItem): void } {
    const { trans } = this.context;
    const frame = svg('rect', { class: 'plab-node-box', rx: 4 });
    const owner = svg('rect', {});
    const mark = svg('text', { class: 'plab-node-mark' });
    const name = svg('text', { class: 'plab-node-name' });
    const facts = svg('text', { class: 'plab-node-detail' });
    const cross = svg('path', { class: 'plab-cross-out' });
    const node = svg('g', { role: 'button' }, frame, owner, mark, name, facts, cross);
    return {
      node,
      update: ({ spot, tone, dying, picture }) => {
        const { worker, x, y, width, height } = spot;
        const room = Math.floor((width - 34) / 6.9);
        const line = height > 40 ? 20 : 15;
        setAttributes(frame, { x, y, width, height });
        setAttributes(owner, { class: `plab-fill-${tone}`, x, y, width: 4, height });
        setAttributes(mark, { x: x + 12, y: y + line });
        setAttributes(name, { x: x + 26, y: y + line });
        setAttributes(facts, { x: x + 12, y: y + height - (height > 40 ? 11 : 6) });
        setText(mark, stateLook(worker.state).mark);
        setText(name, worker.name.length > room ? `${worker.name.slice(0, room - 1)}…` : worker.name);
        const live = isLive(worker.state) && !picture.over;
        setText(
          facts,
          dying && worker.state !== 'dead'
            ? trans.__('died; now %1', stateWord(worker.state, trans))
            : live
            ? [worker.round === null ? '' : trans.__('round %1', worker.round), isIdle(worker) ? trans.__('idle') : worker.bytes_per_s && isTraining(worker.state) ? si(worker.bytes_per_s, 'B/s') : stateWord(worker.state, trans)].filter(Boolean).join(', ')
            : stateWord(worker.state, trans)
        );
        setAttributes(cross, {
          d: worker.state === 'dead' || dying ? `M${x} ${y}L${x + width} ${y + height}M${x + width} ${y}L${x} ${y + height}` : null
        });
        this.dress(node, spot, dying);
      }
    };
  }

  private cell(): { node: Element; update(item: SpotItem): void } {
    const frame = svg('rect', { class: 'plab-node-box', rx: 2 });
    const fill = svg('rect', {});
    const cross = svg('path', { class: 'plab-cross-out' });
    const node = svg('g', { role: 'button' }, frame, fill, cross);
    return {
      node,
      update: ({ spot, tone, dying, most }) => {
        const { worker, x, y, width, height } = spot;
        const share = !isLive(worker.state) ? 0 : isTraining(worker.state) && most > 0 ? Math.max(0.15, Math.sqrt((worker.bytes_per_s ?? 0) / most)) : 1;
        const filled = Math.round((height - 2) * share);
        setAttributes(frame, { x, y, width, height });
        setAttributes(fill, { class: `plab-fill-${tone}`, x: x + 1, y: y + height - 1 - filled, width: width - 2, height: filled });
        setAttributes(cross, {
          d: worker.state === 'dead' || dying ? `M${x + 2} ${y + 2}L${x + width - 2} ${y + height - 2}M${x + width - 2} ${y + 2}L${x + 2} ${y + height - 2}` : null
        });
        this.dress(node, spot, dying);
      }
    };
  }

  private dress(node: Element, spot: Spot, dying: boolean): void {
    const { worker } = spot;
    setAttributes(node, {
      class: `plab-node plab-${stateLook(worker.state).kind}${dying ? ' plab-dying' : ''}`,
      'data-worker': worker.name,
      'data-state': worker.state,
      tabindex: worker.name === this.focused ? 0 : -1,
      'aria-label': this.says(spot)
    });
  }

  private says({ worker }: Spot): string {
    const { trans } = this.context;
    return [
      trans.__('%1, stage %2, %3: %4', worker.name, worker.stage, worker.participant || trans.__('no participant'), workerWord(worker, this.isOver, trans)),
      worker.reason,
      worker.round === null ? '' : trans.__('round %1', worker.round),
      worker.bytes_per_s && isTraining(worker.state) ? si(worker.bytes_per_s, 'B/s') : '',
      worker.deaths ? trans._n('died once', 'died %1 times', worker.deaths) : ''
    ]
      .filter(Boolean)
      .join(', ');
  }

  private spotOf(target: EventTarget | null): Spot | undefined {
    const node = target instanceof Element ? target.closest('[data-worker]') : null;
    const name = node?.getAttribute('data-worker');
    return this.plan?.spots.find(spot => spot.worker.name === name);
  }

  private point(target: EventTarget | null): void {
    const spot = this.spotOf(target);
    setText(this.readout, spot ? this.says(spot) : '');
  }

  private choose(target: EventTarget | null): void {
    const spot = this.spotOf(target);
    if (spot) {
      this.context.open('workers', spot.worker.name);
    }
  }

  /** The arrow keys go to the nearest worker in their direction. */
  private onKey(event: KeyboardEvent): void {
    const here = this.spotOf(event.target);
    if (!here || !this.plan) {
      return;
    }
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      this.context.open('workers', here.worker.name);
      return;
    }
    const way = ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] } as Record<string, [number, number]>)[event.key];
    if (!way) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    let best: Spot | null = null;
    let least = Infinity;
    for (const spot of this.plan.spots) {
      const dx = spot.x - here.x;
      const dy = spot.y - here.y;
      const ahead = dx * way[0] + dy * way[1];
      const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
      if (ahead > 0 && ahead + 3 * aside < least) {
        least = ahead + 3 * aside;
        best = spot;
      }
    }
    if (best) {
      const name = best.worker.name;
      this.focused = name;
      for (const node of this.spots.children) {
        const isIt = node.getAttribute('data-worker') === name;
        setAttributes(node, { tabindex: isIt ? 0 : -1 });
        if (isIt) {
          (node as SVGGElement).focus();
        }
      }
    }
  }
}

/** Between stages from side to side; between replicas of a stage as an arc at their right. */
function shape({ from, to, kind }: Edge): string {
  if (kind === 'sync' || from.x === to.x) {
    const x = from.x + from.width;
    const [y1, y2] = [from.y + from.height / 2, to.y + to.height / 2];
    const bend = Math.min(34, 12 + Math.abs(y2 - y1) / 6);
    return `M${x} ${y1}C${x + bend} ${y1} ${x + bend} ${y2} ${x} ${y2}`;
  }
  const [x1, y1, x2, y2] = [from.x + from.width, from.y + from.height / 2, to.x, to.y + to.height / 2];
  const bend = (x2 - x1) / 2;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}
