/** The side panel: all runs of this user, what can be done with the chosen one, and the way to a new one. */

import { showErrorMessage } from '@jupyterlab/apputils';
import { type CommandRegistry } from '@lumino/commands';
import { type Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { el, keyed, setText } from '@pluralis-lab/views/dom.js';

import type { RunRow } from '../api/types';
import { runIcon } from '../icons';
import { CommandIDs } from '../ids';
import { filterRows, LossTrail, sortRows, summary } from '../runs/rows';
import type { ILab } from '../tokens';
import { button } from './button';
import { RunDetail } from './detail';
import { dragRun } from './drag';
import { runLine } from './line';

/** How far the pointer moves before a press becomes a drag. */
const DRAG_PX = 5;

export class RunPanel extends Widget {
  constructor(
    private readonly lab: ILab,
    private readonly commands: CommandRegistry
  ) {
    super();
    const { trans } = lab;
    this.id = 'pluralis-lab-panel';
    this.addClass('plab-panel');
    this.title.icon = runIcon;
    this.title.caption = trans.__('Training runs');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Training runs'));

    this.newButton = button(trans.__('New run…'), 'jp-mod-accept', () => this.run(CommandIDs.newRun));
    this.compareButton = button(trans.__('Compare'), '', () => this.run(CommandIDs.compareRuns, { runs: [...this.ticked] }));
    const refresh = button('↻', 'plab-icon-button', () => this.run(CommandIDs.refresh));
    refresh.setAttribute('aria-label', trans.__('Look again'));
    refresh.title = trans.__('Look again');
    this.filter = el('input', {
      type: 'search',
      class: 'jp-mod-styled plab-filter',
      placeholder: trans.__('Filter by name, state, data or account'),
      'aria-label': trans.__('Filter the runs'),
      'aria-controls': 'pluralis-lab-runs'
    });
    this.filter.addEventListener('input', () => this.draw());
    this.filter.addEventListener('keydown', event => {
      if (event.key === 'ArrowDown') {
        event.preventDefault();
        this.focusLine();
      }
    });
    this.note = el('div', { class: 'plab-panel-note', role: 'status' });
    this.trouble = el('div', { class: 'plab-panel-trouble', role: 'alert', hidden: true });
    this.list = el('div', {
      id: 'pluralis-lab-runs',
      class: 'plab-list',
      role: 'listbox',
      'aria-label': trans.__('Runs'),
      'aria-multiselectable': 'true'
    });
    this.list.addEventListener('keydown', event => this.onKey(event));
    this.list.addEventListener('click', event => this.onClick(event));
    this.list.addEventListener('dblclick', event => this.open(this.lineOf(event)));
    this.list.addEventListener('contextmenu', event => this.choose(this.lineOf(event)));
    this.list.addEventListener('pointerdown', event => this.onPointerDown(event));
    this.blank = el('div', { class: 'plab-blank', hidden: true });
    this.detail = new RunDetail(lab, commands);
    this.node.append(
      el(
        'div',
        { class: 'plab-panel-head' },
        el('h2', { class: 'plab-panel-title', text: trans.__('Training runs') }),
        el('div', { class: 'plab-panel-buttons' }, this.newButton, this.compareButton, el('span', { class: 'plab-space' }), refresh),
        this.filter,
        this.note
      ),
      this.trouble,
      el('div', { class: 'plab-panel-body' }, this.blank, this.list),
      this.detail.node
    );
    lab.runs.changed.connect(this.draw, this);
    lab.statusChanged.connect(this.draw, this);
    this.draw();
  }

  override dispose(): void {
    this.unwatch?.();
    this.lab.runs.changed.disconnect(this.draw, this);
    this.lab.statusChanged.disconnect(this.draw, this);
    super.dispose();
  }

  /** Put the keyboard on the chosen line, or the first. */
  focusLine(): void {
    const line = this.list.querySelector<HTMLElement>('[tabindex="0"]') ?? this.filter;
    line.focus();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.watch(true);
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.watch(this.isVisible);
  }

  protected override onBeforeHide(message: Message): void {
    super.onBeforeHide(message);
    this.watch(false);
  }

  protected override onBeforeDetach(message: Message): void {
    super.onBeforeDetach(message);
    this.watch(false);
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.focusLine();
  }

  /** Ask at the full pace, and let ages grow, only while somebody can see it. */
  private watch(isOn: boolean): void {
    if (isOn === (this.unwatch !== null)) {
      return;
    }
    this.unwatch?.();
    this.unwatch = null;
    if (isOn) {
      const stop = this.lab.runs.watch();
      const timer = setInterval(() => this.draw(), 30_000);
      this.unwatch = () => {
        stop();
        clearInterval(timer);
      };
      this.draw();
    }
  }

  private draw(): void {
    const { runs, trans } = this.lab;
    const rows = runs.rows ?? [];
    this.trail.put(rows);
    this.shown = sortRows(filterRows(rows, this.filter.value, trans));
    for (const id of this.ticked) {
      if (!runs.find(id)) {
        this.ticked.delete(id);
      }
    }
    if (!this.shown.some(row => row.id === this.lab.selected)) {
      this.lab.selected = this.shown[0]?.id ?? null;
    }
    const now_s = Date.now() / 1000;
    keyed(
      this.list,
      this.shown,
      row => row.id,
      () => {
        const line = runLine(trans);
        return {
          node: line.node,
          update: (row: RunRow) =>
            line.update(row, {
              isChosen: row.id === this.lab.selected,
              isTicked: this.ticked.has(row.id),
              now_s,
              trail: this.trail.of(row.id)
            })
        };
      }
    );
    this.list.hidden = !this.shown.length;
    this.drawBlank();
    this.trouble.hidden = !runs.problem;
    setText(this.trouble, runs.problem ? `⚠ ${runs.problem}` : '');
    setText(this.note, runs.rows ? summary(rows, trans) : '');
    this.newButton.hidden = this.lab.readOnly();
    this.compareButton.disabled = this.ticked.size !== 2;
    this.compareButton.title = this.ticked.size === 2 ? '' : trans.__('Tick two runs with the space bar or Ctrl+click');
    this.detail.show(runs.find(this.lab.selected ?? '') ?? null);
  }

  /** Nothing to list is said, not left blank. */
  private drawBlank(): void {
    const { runs, trans } = this.lab;
    this.blank.hidden = this.shown.length > 0;
    if (this.shown.length) {
      return;
    }
    this.blank.setAttribute('aria-busy', String(!runs.rows && !runs.problem));
    if (!runs.rows) {
      const words = runs.problem ? trans.__('The runs cannot be listed.') : trans.__('Looking for runs…');
      const lines = runs.problem ? [] : [1, 2, 3].map(() => el('div', { class: 'plab-ghost', 'aria-hidden': 'true' }));
      this.blank.replaceChildren(el('p', { text: words }), ...lines);
    } else if (runs.rows.length) {
      const clear = button(trans.__('Show all'), '', () => {
        this.filter.value = '';
        this.draw();
        this.filter.focus();
      });
      this.blank.replaceChildren(el('p', { text: trans.__('No run has all these words.') }), clear);
    } else {
      const icon = el('div', { class: 'plab-blank-icon', 'aria-hidden': 'true' });
      runIcon.element({ container: icon, width: '40px', height: '40px' });
      this.blank.replaceChildren(
        icon,
        el('p', { text: trans.__('No run yet.') }),
        el('p', {
          class: 'plab-soft',
          text: this.lab.readOnly()
            ? trans.__('Runs that are started on this machine are shown here.')
            : trans.__('Start one here, or from a notebook: pl.launch(pl.RunSpec()).')
        })
      );
    }
  }

  private run(command: string, args: Record<string, string | string[]> = {}): void {
    this.commands.execute(command, args).catch((error: unknown) => {
      void showErrorMessage(this.lab.trans.__('That did not work'), error instanceof Error ? error.message : String(error));
    });
  }

  private lineOf(event: Event): string | null {
    return event.target instanceof Element ? (event.target.closest<HTMLElement>('.plab-line-item')?.dataset.run ?? null) : null;
  }

  private choose(id: string | null, focus = true): void {
    if (id === null) {
      return;
    }
    this.lab.selected = id;
    this.draw();
    if (focus) {
      this.focusLine();
    }
  }

  private tick(id: string | null): void {
    if (id === null) {
      return;
    }
    if (!this.ticked.delete(id)) {
      this.ticked.add(id);
      // Two are compared: the one ticked first makes room.
      const [first] = this.ticked;
      if (this.ticked.size > 2 && first !== undefined) {
        this.ticked.delete(first);
      }
    }
    this.draw();
  }

  private open(id: string | null): void {
    if (id !== null) {
      this.run(CommandIDs.openRun, { run: id });
    }
  }

  private onClick(event: MouseEvent): void {
    const id = this.lineOf(event);
    this.choose(id);
    if (event.ctrlKey || event.metaKey || (event.target instanceof Element && event.target.closest('.plab-tick-box'))) {
      this.tick(id);
    }
  }

  private onKey(event: KeyboardEvent): void {
    const at = this.shown.findIndex(row => row.id === this.lab.selected);
    const targets: Record<string, number> = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: this.shown.length - 1 };
    const target = targets[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    if (target !== undefined) {
      this.choose(this.shown[Math.min(this.shown.length - 1, Math.max(0, target))]?.id ?? null);
    } else if (event.key === 'Enter') {
      this.open(this.lab.selected);
    } else if (event.key === ' ') {
      this.tick(this.lab.selected);
    } else if (event.key === 'Delete' && !this.lab.readOnly() && this.lab.selected) {
      this.run(CommandIDs.deleteRun, { run: this.lab.selected });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private onPointerDown(event: PointerEvent): void {
    const id = this.lineOf(event);
    if (id === null || event.button !== 0) {
      return;
    }
    const { clientX, clientY } = event;
    const stop = () => {
      document.removeEventListener('pointermove', move, true);
      document.removeEventListener('pointerup', stop, true);
    };
    const move = (now: PointerEvent) => {
      if (Math.hypot(now.clientX - clientX, now.clientY - clientY) >= DRAG_PX) {
        stop();
        const row = this.lab.runs.find(id);
        dragRun(id, row?.name ?? id, this.node, now.clientX, now.clientY);
      }
    };
    document.addEventListener('pointermove', move, true);
    document.addEventListener('pointerup', stop, true);
  }

  private readonly newButton: HTMLButtonElement;
  private readonly compareButton: HTMLButtonElement;
  private readonly filter: HTMLInputElement;
  private readonly note: HTMLElement;
  private readonly trouble: HTMLElement;
  private readonly list: HTMLElement;
  private readonly blank: HTMLElement;
  private readonly detail: RunDetail;
  private readonly trail = new LossTrail();
  private readonly ticked = new Set<string>();
  private shown: RunRow[] = [];
  private unwatch: (() => void) | null = null;
}

