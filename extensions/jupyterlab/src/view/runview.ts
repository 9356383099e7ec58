/** The main view of a run: a strip that says how it stands, and panes that can be arranged. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { type Message, MessageLoop } from '@lumino/messaging';
import { type ISignal, Signal } from '@lumino/signaling';
import { DockPanel, PanelLayout, Widget } from '@lumino/widgets';
import type { Api } from '../api/client';
import type { RunPicture } from '../api/types';
import type { RunFeed } from '../live/feed';
import type { Feeds } from '../live/feeds';
import { Clock } from './clock';
import { readClockEvents } from './clockevents';
import { applyLayout, layoutOf } from './docking';
import { RunHeader } from './header';
import { defaultLayout, type Layout, onlyPanes, panesOf, readLayout } from './layout';
import { Ledger } from './ledger';
import type { PaneContext, PaneKind } from './pane';
import { PANES } from './panes';
import { PaneWidget } from './panewidget';
import { RoundDetail } from './rounddetail';
import { RunSource } from './source';
import { isDark, onTheme } from './theme';
import { Speeds } from './workersmodel';

export interface RunViewOptions {
  run: string;
  name: string;
  api: Api;
  feeds: Feeds;
  trans: TranslationBundle;
  commands: CommandRegistry;
  readOnly: () => boolean;
  /** Other panes than the usual ones. */
  panes?: readonly PaneKind[];
}

/**
 * Follows one run while it is seen.
 *
 * The arrangement of the panes is `paneLayout` (JSON; `layout` is Lumino's own name for something else); `paneLayoutChanged`
 * tells when the reader changed it.
 */
export class RunView extends Widget {
  readonly run: string;
  /** Milliseconds of the main thread that the last update took; for tests of speed. */
  lastDraw_ms = 0;
  private readonly feed: RunFeed;
  private readonly header: RunHeader;
  private readonly dock: DockPanel;
  private readonly panes = new Map<string, PaneWidget>();
  private readonly context: PaneContext;
  private readonly detail: RoundDetail;
  private readonly ledger: Ledger;
  private readonly clock = new Clock();
  private readonly speeds = new Speeds();
  private readonly kinds: readonly PaneKind[];
  private readonly unhearTheme: () => void;
  private readonly resized: ResizeObserver;
  private readonly _paneLayoutChanged = new Signal<this, Layout>(this);
  /** The arrangement that is wanted while some of its panes are not there yet; null once the reader changed it. */
  private wanted: Layout | null;
  private isApplying = false;
  private owesFocus = false;
  private frame = 0;
  private timer = 0;
  private taken = -1;

  constructor(options: RunViewOptions) {
    super();
    const { trans, commands, readOnly } = options;
    this.run = options.run;
    this.kinds = options.panes ?? PANES;
    this.addClass('plab-run-view');
    this.title.label = options.name;
    this.title.caption = trans.__('Training run %1', options.name);
    const source = new RunSource(options.api, options.run);
    const redraw = (): void => this.redraw();
    this.detail = new RoundDetail((since, limit, kinds) => source.events(since, limit, kinds), redraw);
    this.ledger = new Ledger(() => source.ownership(), redraw);
    this.context = {
      run: options.run,
      trans,
      commands,
      source,
      detail: this.detail,
      ledger: this.ledger,
      clock: this.clock,
      speeds: this.speeds,
      readOnly,
      readClock: () => readClockEvents(this.clock, source),
      redraw,
      open: (pane, worker) => this.open(pane, worker)
    };
    this.wanted = defaultLayout(this.idsOf('above'), this.idsOf('below'));
    this.header = new RunHeader({ run: options.run, name: options.name, trans, commands, readOnly });
    this.dock = new DockPanel({ mode: 'multiple-document', spacing: 5, tabsConstrained: true });
    this.dock.addClass('plab-dock');
    this.dock.layoutModified.connect(this.onLayoutModified, this);
    const layout = new PanelLayout();
    this.layout = layout;
    layout.addWidget(new Widget({ node: this.header.node }));
    layout.addWidget(this.dock);
    this.resized = new ResizeObserver(() => MessageLoop.postMessage(this.dock, Widget.ResizeMessage.UnknownSize));
    this.resized.observe(this.dock.node);
    this.unhearTheme = onTheme(() => this.retheme());
    this.feed = options.feeds.get(options.run);
    this.feed.setVisible(false);
    this.feed.changed.connect(this.onPicture, this);
    this.feed.pulsed.connect(this.onPulse, this);
    this.feed.statusChanged.connect(this.onStatus, this);
  }

  /** The arrangement of the panes, to be kept and given back; what cannot be read is ignored. */
  get paneLayout(): Layout {
    return this.wanted ?? layoutOf(this.dock);
  }

  set paneLayout(value: unknown) {
    const layout = readLayout(value);
    if (!layout) {
      return;
    }
    this.wanted = layout;
    this.arrange();
  }

  get paneLayoutChanged(): ISignal<this, Layout> {
    return this._paneLayoutChanged;
  }

  /** Draw what is seen at the next frame; many calls are one draw. */
  redraw(): void {
    for (const pane of this.panes.values()) {
      pane.markDirty();
    }
    this.later();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    cancelAnimationFrame(this.frame);
    window.clearInterval(this.timer);
    this.resized.disconnect();
    this.unhearTheme();
    this.feed.dispose();
    this.detail.dispose();
    this.ledger.dispose();
    Signal.clearData(this);
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.retheme();
    this.wake();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.wake();
  }

  protected override onBeforeHide(message: Message): void {
    super.onBeforeHide(message);
    this.rest();
  }

  protected override onBeforeDetach(message: Message): void {
    this.rest();
    super.onBeforeDetach(message);
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.focusTab();
  }

  /** Give the keyboard to the first tab: arrows lead along the tabs, Tab into the pane. The view has it as long as there is none. */
  private focusTab(): void {
    const tab = this.dock.node.querySelector<HTMLElement>('.lm-TabBar-tab.lm-mod-current');
    this.owesFocus = tab === null;
    (tab ?? this.node).focus({ preventScroll: true });
  }

  private wake(): void {
    if (!this.isVisible) {
      return;
    }
    this.feed.setVisible(true);
    if (this.timer === 0) {
      this.timer = window.setInterval(() => this.drawFreshness(), 1000);
    }
    this.redraw();
  }

  private rest(): void {
    this.feed.setVisible(false);
    window.clearInterval(this.timer);
    this.timer = 0;
  }

  private onPicture(): void {
    this.header.heard();
    this.redraw();
  }

  private onPulse(): void {
    this.header.heard();
    this.drawFreshness();
  }

  private onStatus(): void {
    this.header.heard();
    this.drawFreshness();
  }

  private later(): void {
    if (this.frame === 0 && !this.isDisposed && this.isVisible) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.draw();
      });
    }
  }

  private draw(): void {
    const { picture } = this.feed;
    if (this.isDisposed || !this.isVisible) {
      return;
    }
    const begun = performance.now();
    this.drawFreshness();
    if (picture) {
      this.take(picture);
      this.header.draw(picture);
      this.addPanes(picture);
      for (const pane of this.panes.values()) {
        pane.draw(picture);
      }
      this.node.dataset.seq = String(picture.seq);
      // The first panes come a moment after the view: what was asked for then is due now, unless the reader went elsewhere.
      if (this.owesFocus && document.activeElement === this.node) {
        this.focusTab();
      }
    }
    this.lastDraw_ms = performance.now() - begun;
  }

  /** What is counted from picture to picture takes each of them once, seen or not. */
  private take(picture: RunPicture): void {
    if (picture.seq === this.taken || this.feed.partial) {
      return;
    }
    this.taken = picture.seq;
    this.clock.takePicture(picture);
    this.speeds.take(picture);
    this.detail.take(picture);
  }

  private drawFreshness(): void {
    const isStale = this.header.drawFreshness(this.feed);
    this.toggleClass('plab-is-stale', isStale);
  }

  private addPanes(picture: RunPicture): void {
    const fresh = this.kinds.filter(kind => !this.panes.has(kind.id) && kind.isShown(picture));
    if (!fresh.length) {
      return;
    }
    for (const kind of fresh) {
      this.panes.set(kind.id, new PaneWidget(kind, this.context));
    }
    if (this.wanted) {
      this.arrange();
    }
    const there = new Set(panesOf(layoutOf(this.dock)));
    for (const kind of fresh) {
      // Not in the arrangement: beside the panes of its kind, behind them.
      if (!there.has(kind.id)) {
        const beside = this.kinds.find(one => one.place === kind.place && there.has(one.id));
        const widget = this.panes.get(kind.id) as PaneWidget;
        this.isApplying = true;
        this.dock.addWidget(widget, beside ? { mode: 'tab-after', ref: this.panes.get(beside.id) ?? null } : { mode: 'split-bottom' });
        there.add(kind.id);
      }
    }
  }

  private arrange(): void {
    if (!this.wanted || !this.panes.size) {
      return;
    }
    this.isApplying = true;
    applyLayout(this.dock, onlyPanes(this.wanted, new Set(this.panes.keys())), this.panes);
    for (const [id, pane] of this.panes) {
      if (!panesOf(this.wanted).includes(id)) {
        this.dock.addWidget(pane, { mode: 'tab-after' });
      }
    }
  }

  /** Lumino tells once for all changes of a turn; the first after our own arrangement is not the reader's. */
  private onLayoutModified(): void {
    if (this.isApplying) {
      this.isApplying = false;
      return;
    }
    this.wanted = null;
    this._paneLayoutChanged.emit(layoutOf(this.dock));
  }

  private open(id: string, worker: string): void {
    const pane = this.panes.get(id);
    if (pane) {
      this.dock.selectWidget(pane);
      pane.select(worker);
    }
  }

  private idsOf(place: PaneKind['place']): string[] {
    return this.kinds.filter(kind => kind.place === place).map(kind => kind.id);
  }

  private retheme(): void {
    this.header.node.dataset.theme = isDark(this.header.node) ? 'dark' : 'light';
    for (const pane of this.panes.values()) {
      pane.retheme();
    }
  }
}
