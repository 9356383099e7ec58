/** The Workers pane: every worker by stage, its machine and its log. */

import type { RunPicture } from '../api/types';
import { duration, el, fixed, NOT_KNOWN, percent, setAttributes, setText, si } from './core';
import { tonesOf } from './contributionsmodel';
import { LogTail } from './logtail';
import type { Pane, PaneContext, PaneKind } from './pane';
import { choice, note, pill, stateLook, swatch, workerWord } from './parts';
import { isIdle, isTraining } from './rounds';
import { type RowPart, VirtualRows } from './virtualrows';
import { busyOf, type ColumnId, columnsOf, groupText, type Grouping, type GroupRow, type Row, rowsOf, type Sorting, type WorkerRow } from './workersmodel';

export const workers: PaneKind = {
  id: 'workers',
  title: trans => trans.__('Workers'),
  caption: trans => trans.__('State, device, speed and log of every worker'),
  place: 'below',
  isShown: picture => picture.workers.length > 0,
  create: context => new WorkersPane(context)
};

const ROW_HEIGHT = 26;

const GAP = 12;

/** Widths of the grid's tracks; names take what is left. The first number of each is the least. */
const TRACKS: Record<ColumnId, string> = {
  name: 'minmax(96px, 1.6fr)',
  participant: 'minmax(72px, 1fr)',
  state: '104px',
  device: 'minmax(48px, 0.4fr)',
  cpu: '76px',
  memory: '66px',
  gpu: '76px',
  gpuMemory: '70px',
  share: '104px',
  speed: '64px',
  sending: '74px',
  sent: '64px',
  round: '48px',
  delay: '52px',
  busy: '76px',
  seen: '70px',
  deaths: '46px'
};

const NUMBERS = new Set<ColumnId>(['memory', 'gpuMemory', 'speed', 'sending', 'sent', 'round', 'delay', 'seen', 'deaths']);

interface Shown {
  picture: RunPicture;
  columns: ColumnId[];
  mostShare: number;
  toneOf: (participant: string) => number;
  folded: ReadonlySet<string>;
  deathMarks: ReadonlyMap<string, string>;
}

class WorkersPane implements Pane {
  readonly node: HTMLElement;
  private readonly filter: HTMLInputElement;
  private readonly grouping;
  private readonly count = el('span', { class: 'plab-muted', role: 'status' });
  private readonly head = el('div', { class: 'plab-grid-row plab-grid-head', role: 'row', 'aria-rowindex': '1' });
  private readonly rows: VirtualRows<Row>;
  private readonly nothing = note();
  private readonly log: LogTail;
  private readonly folded = new Set<string>();
  private group: Grouping = 'stage';
  private sorting: Sorting | null = null;
  private selected = '';
  private shown: Shown | null = null;
  private headColumns = '';
  private reveals = false;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    this.filter = el('input', {
      type: 'search',
      class: 'plab-search',
      placeholder: trans.__('Filter: name, state, device, stage:2'),
      'aria-label': trans.__('Filter the workers')
    });
    this.filter.addEventListener('input', () => this.context.redraw());
    this.grouping = choice<Grouping>(trans.__('Group by'), value => {
      this.group = value;
      this.context.redraw();
    });
    this.rows = new VirtualRows<Row>({
      label: trans.__('Workers'),
      rowHeight: ROW_HEIGHT,
      head: this.head,
      keyOf: row => row.key,
      make: () => this.makeRow(),
      onChoose: row => this.choose(row),
      onFold: (row, fold) => row.kind === 'group' && this.fold(row, fold)
    });
    this.log = new LogTail(context, () => this.select(''));
    this.node = el(
      'div',
      { class: 'plab-workers-pane' },
      el('div', { class: 'plab-tools' }, this.filter, this.grouping.node, this.count),
      this.nothing.node,
      this.rows.node,
      this.log.node
    );
  }

  draw(picture: RunPicture): void {
    const { trans } = this.context;
    const tones = tonesOf(picture);
    const columns = columnsOf(picture);
    this.shown = {
      picture,
      columns,
      mostShare: picture.workers.reduce((most, worker) => Math.max(most, worker.share), 0),
      toneOf: name => tones.get(name) ?? 7,
      folded: this.folded,
      deathMarks: new Map(picture.marks.filter(mark => mark.kind === 'death').map(mark => [mark.worker, mark.text]))
    };
    this.grouping.update(
      [
        { value: 'stage', text: trans.__('by stage') },
        ...(picture.participants.length > 1 ? [{ value: 'participant' as const, text: trans.__('by participant') }] : []),
        { value: 'none', text: trans.__('all') }
      ],
      this.group
    );
    const { rows, shown } = rowsOf(picture, this.context.speeds, {
      filter: this.filter.value,
      grouping: this.group,
      sorting: this.sorting,
      folded: this.folded
    });
    this.drawHead(columns);
    this.node.style.setProperty('--plab-tracks', columns.map(column => TRACKS[column]).join(' '));
    this.node.style.setProperty('--plab-grid-width', `${leastWidth(columns)}px`);
    setText(
      this.count,
      shown === picture.workers.length
        ? trans.__('%1 of %2 live', picture.live_workers, picture.workers.length)
        : trans.__('%1 of %2 workers shown', shown, picture.workers.length)
    );
    this.nothing.update(shown ? '' : trans.__('No worker answers to “%1”.', this.filter.value));
    const worker = picture.workers.find(one => one.name === this.selected);
    this.log.draw(picture, worker ?? null);
    this.rows.update(rows, `w ${this.selected}`, columns.length);
    if (this.reveals) {
      this.reveals = false;
      this.rows.revealChosen();
    }
  }

  select(worker: string): void {
    this.selected = worker;
    // The log that opens below takes room: the chosen row must not vanish under it.
    this.reveals = true;
    this.context.redraw();
  }

  hidden(): void {
    this.log.rest();
  }

  dispose(): void {
    this.rows.dispose();
    this.log.dispose();
  }

  private choose(row: Row): void {
    if (row.kind === 'group') {
      this.fold(row, !this.folded.has(row.key));
    } else {
      this.select(row.worker.name === this.selected ? '' : row.worker.name);
    }
  }

  private fold(row: GroupRow, fold: boolean): void {
    if (fold) {
      this.folded.add(row.key);
    } else {
      this.folded.delete(row.key);
    }
    this.context.redraw();
  }

  private drawHead(columns: ColumnId[]): void {
    const sign = `${columns.join()} ${this.sorting?.column ?? ''} ${String(this.sorting?.descending)}`;
    if (sign === this.headColumns) {
      return;
    }
    const focused = this.head.contains(document.activeElement) ? document.activeElement?.getAttribute('data-column') : null;
    this.headColumns = sign;
    this.head.replaceChildren(
      ...columns.map(column => {
        const sorted = this.sorting?.column === column ? (this.sorting.descending ? 'descending' : 'ascending') : 'none';
        const arrow = sorted === 'none' ? '' : sorted === 'ascending' ? ' ▲' : ' ▼';
        const sort = el('button', { type: 'button', class: 'plab-sort', 'data-column': column, title: this.definition(column) });
        sort.append(this.title(column), el('span', { 'aria-hidden': 'true', text: arrow }));
        sort.addEventListener('click', () => this.sortBy(column));
        return el('div', { role: 'columnheader', class: NUMBERS.has(column) ? 'plab-number' : null, 'aria-sort': sorted }, sort);
      })
    );
    if (focused) {
      this.head.querySelector<HTMLElement>(`[data-column="${focused}"]`)?.focus();
    }
  }

  /** The first click sorts as one mostly wants it, the second the other way, the third not at all. */
  private sortBy(column: ColumnId): void {
    const first = NUMBERS.has(column) || column === 'share' || column === 'cpu' || column === 'gpu' || column === 'busy';
    if (this.sorting?.column !== column) {
      this.sorting = { column, descending: first };
    } else {
      this.sorting = this.sorting.descending === first ? { column, descending: !first } : null;
    }
    this.context.redraw();
  }

  private title(column: ColumnId): string {
    const { trans } = this.context;
    switch (column) {
      case 'name':
        return trans.__('Worker');
      case 'participant':
        return trans.__('Participant');
      case 'state':
        return trans.__('State');
      case 'device':
        return trans.__('Device');
      case 'cpu':
        return trans.__('CPU');
      case 'memory':
        return trans.__('Memory');
      case 'gpu':
        return trans.__('GPU');
      case 'gpuMemory':
        return trans.__('GPU mem.');
      case 'share':
        return trans.__('Work');
      case 'speed':
        return trans.__('Tokens/s');
      case 'sending':
        return trans.__('Sending');
      case 'sent':
        return trans.__('Sent');
      case 'round':
        return trans.__('Round');
      case 'delay':
        return trans.__('Delay');
      case 'busy':
        return trans.__('Busy');
      case 'seen':
        return trans.__('Last seen');
      case 'deaths':
        return trans.__('Deaths');
    }
  }

  private definition(column: ColumnId): string {
    const { trans } = this.context;
    switch (column) {
      case 'cpu':
        return trans.__('Processor time of the process; 100 % is one core');
      case 'memory':
        return trans.__('Memory of the process that is in RAM');
      case 'gpu':
        return trans.__('How busy the device is');
      case 'share':
        return trans.__('Share of all work (tokens times the FLOPs of the stage) of this run');
      case 'speed':
        return trans.__('Tokens a second over the last 20 seconds of the run’s clock');
      case 'sending':
        return trans.__('Bytes a second to other workers in the last round');
      case 'sent':
        return trans.__('Bytes to other workers since the run began');
      case 'delay':
        return trans.__('Steps between the weights a gradient is computed with and those it is applied to');
      case 'busy':
        return trans.__('Time in which the worker computed, as a share of all time, in its last 20 rounds');
      case 'seen':
        return trans.__('Time since the worker’s last event');
      default:
        return trans.__('Sort by this column');
    }
  }

  private makeRow(): RowPart<Row> {
    const node = el('div', { class: 'plab-grid-row', role: 'row' });
    const group = el('div', { class: 'plab-group-cell', role: 'gridcell' });
    const fold = el('span', { class: 'plab-fold', 'aria-hidden': 'true' });
    const text = el('span');
    group.append(fold, text);
    let cells = new Map<ColumnId, Cell>();
    let made = '';
    let kind = '';
    return {
      node,
      update: row => {
        const { shown } = this;
        if (!shown) {
          return;
        }
        if (row.kind === 'group') {
          if (kind !== 'group') {
            kind = 'group';
            node.replaceChildren(group);
            node.className = 'plab-grid-row plab-group-row';
          }
          setAttributes(group, { 'aria-colspan': shown.columns.length });
          setAttributes(node, { 'aria-expanded': shown.folded.has(row.key) ? 'false' : 'true', 'aria-level': 1, 'data-worker': null });
          setText(fold, shown.folded.has(row.key) ? '▸' : '▾');
          setText(text, groupText(row, shown.picture, this.context.trans));
          return;
        }
        const sign = shown.columns.join();
        if (kind !== 'worker' || made !== sign) {
          if (made !== sign) {
            cells = new Map(shown.columns.map(column => [column, this.makeCell(column)]));
            made = sign;
          }
          kind = 'worker';
          node.replaceChildren(...[...cells.values()].map(cell => cell.node));
        }
        const name = `plab-grid-row plab-row-${stateLook(row.worker.state).kind}`;
        if (!node.classList.contains(`plab-row-${stateLook(row.worker.state).kind}`) || node.classList.contains('plab-group-row')) {
          node.className = name;
        }
        setAttributes(node, { 'aria-expanded': null, 'aria-level': this.group === 'none' ? 1 : 2, 'data-worker': row.worker.name, 'data-state': row.worker.state });
        for (const cell of cells.values()) {
          cell.update(row, shown);
        }
      }
    };
  }

  private makeCell(column: ColumnId): Cell {
    const { trans } = this.context;
    switch (column) {
      case 'name': {
        const text = el('span', { class: 'plab-worker-name' });
        return cell(text, (row, node) => {
          setText(text, row.worker.name);
          setAttributes(node, { title: row.worker.name });
        });
      }
      case 'participant': {
        const tone = swatch();
        const text = el('span', { class: 'plab-cut' });
        return cell(el('span', { class: 'plab-owned-by' }, tone.node, text), (row, _, shown) => {
          tone.update(shown.toneOf(row.worker.participant));
          setText(text, row.worker.participant);
        });
      }
      case 'state': {
        const mark = pill();
        return cell(mark.node, ({ worker }, node, shown) => {
          mark.update(worker.state, workerWord(worker, shown.picture.over, trans));
          const why = [isIdle(worker) && !shown.picture.over ? trans.__('next to nothing to do in its last rounds') : '', worker.reason, shown.deathMarks.get(worker.name) ?? '', worker.pid === null ? '' : trans.__('process %1', worker.pid)];
          setAttributes(node, { title: why.filter(Boolean).join(', ') || null });
        });
      }
      case 'cpu':
        return meter(row => row.worker.cpu_percent);
      case 'gpu':
        return meter(row => row.worker.gpu_percent);
      case 'busy':
        return meter(row => {
          const busy = busyOf(row.worker);
          return busy === null ? null : 100 * busy;
        });
      case 'share': {
        const fill = el('span', { class: 'plab-bar-fill' });
        const text = el('span', { class: 'plab-value' });
        return cell(el('span', { class: 'plab-meter' }, el('span', { class: 'plab-bar', 'aria-hidden': 'true' }, fill), text), (row, node, shown) => {
          fill.style.width = `${shown.mostShare ? (100 * row.worker.share) / shown.mostShare : 0}%`;
          const name = `plab-bar-fill plab-fill-${shown.toneOf(row.worker.participant)}`;
          if (fill.className !== name) {
            fill.className = name;
          }
          setText(text, percent(row.worker.share));
          setAttributes(node, { title: trans.__('%1, %2 tokens', si(row.worker.work_flops, 'FLOP'), si(row.worker.tokens)) });
        });
      }
      case 'device':
        return plain(column, row => row.worker.device);
      case 'memory':
        return plain(column, row => si(row.worker.memory_bytes, 'B'));
      case 'gpuMemory':
        return plain(column, row => si(row.worker.gpu_memory_bytes, 'B'));
      case 'speed':
        return plain(column, row => si(row.speed));
      case 'sending':
        return plain(column, row => (isTraining(row.worker.state) ? si(row.worker.bytes_per_s, 'B/s') : NOT_KNOWN));
      case 'sent':
        return plain(column, row => si(row.worker.bytes_out, 'B'));
      case 'round':
        return plain(column, row => (row.worker.round === null ? NOT_KNOWN : String(row.worker.round)));
      case 'delay':
        return plain(column, row => fixed(row.worker.delay, 1));
      case 'seen':
        return plain(column, row => {
          const silent_s = row.worker.silent_s ?? null;
          return silent_s === null ? NOT_KNOWN : silent_s < 1 ? trans.__('now') : trans.__('%1 ago', duration(silent_s));
        });
      case 'deaths':
        return plain(column, row => String(row.worker.deaths || ''));
    }
  }
}

/** The width below which the grid scrolls sideways. */
function leastWidth(columns: readonly ColumnId[]): number {
  return columns.reduce((sum, column) => sum + Number(/\d+/.exec(TRACKS[column])?.[0] ?? 0) + GAP, GAP);
}

interface Cell {
  readonly node: HTMLElement;
  update(row: WorkerRow, shown: Shown): void;
}

function cell(content: HTMLElement, update: (row: WorkerRow, node: HTMLElement, shown: Shown) => void): Cell {
  const node = el('div', { role: 'gridcell' }, content);
  return { node, update: (row, shown) => update(row, node, shown) };
}

function plain(column: ColumnId, text: (row: WorkerRow) => string): Cell {
  const node = el('div', { role: 'gridcell', class: NUMBERS.has(column) ? 'plab-number' : 'plab-cut' });
  return { node, update: row => setText(node, text(row)) };
}

function meter(value: (row: WorkerRow) => number | null | undefined): Cell {
  const fill = el('span', { class: 'plab-bar-fill plab-bar-load' });
  const text = el('span', { class: 'plab-value' });
  return cell(el('span', { class: 'plab-meter' }, el('span', { class: 'plab-bar', 'aria-hidden': 'true' }, fill), text), row => {
    const share = value(row);
    fill.style.width = `${Math.min(100, share ?? 0)}%`;
    setText(text, share === null || share === undefined ? NOT_KNOWN : `${Math.round(share)} %`);
  });
}
