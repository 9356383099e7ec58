/** A heat map of workers by rounds on a canvas: only what is seen is painted; pointed at or with the arrow keys it reads single cells. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { css, diverging, sequential } from './colours';
import type { HeatGrid } from './contributionsmodel';
import { el, fixed, precise, setAttributes, setText } from './core';
import { isDark, variable } from './theme';

const LABELS = 118;
const AXIS = 18;
const ROW = 20;
const HIGHEST = 320;

interface Cursor {
  row: number;
  column: number;
}

export class HeatMap {
  readonly node: HTMLElement;
  private readonly title = el('span', { class: 'plab-title' });
  private readonly readout = el('span', { class: 'plab-readout' });
  private readonly legend = el('span', { class: 'plab-scale', role: 'img' });
  private readonly scaleLow = el('span');
  private readonly scaleHigh = el('span');
  private readonly ramp = el('canvas', { width: 96, height: 8, class: 'plab-ramp', 'aria-hidden': 'true' });
  private readonly canvas = el('canvas', { 'aria-hidden': 'true' });
  private readonly spacer = el('div', { class: 'plab-heat-spacer' });
  private readonly scroller = el('div', { class: 'plab-heat-scroll', tabindex: '0', role: 'img' });
  private readonly resized: ResizeObserver;
  private grid: HeatGrid | null = null;
  private unit = '';
  private cursor: Cursor | null = null;
  private selected = '';
  private frame = 0;

  constructor(
    private readonly trans: TranslationBundle,
    private readonly onSelect: (worker: string) => void
  ) {
    this.legend.append(this.scaleLow, this.ramp, this.scaleHigh);
    this.scroller.append(this.canvas, this.spacer);
    this.node = el(
      'figure',
      { class: 'plab-chart plab-heat' },
      el('figcaption', {}, this.title, this.legend, this.readout),
      this.scroller
    );
    this.scroller.addEventListener('scroll', () => this.later(), { passive: true });
    this.scroller.addEventListener('pointermove', event => this.point(this.cellAt(event), false));
    this.scroller.addEventListener('pointerleave', () => this.point(null, false));
    this.scroller.addEventListener('blur', () => this.point(null, false));
    this.scroller.addEventListener('click', event => {
      const cell = this.cellAt(event, true);
      const row = cell ? this.grid?.rows[cell.row] : undefined;
      if (row) {
        this.onSelect(row.name);
      }
    });
    this.scroller.addEventListener('keydown', event => this.onKey(event));
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.scroller);
  }

  update(grid: HeatGrid, title: string, unit: string, selected: string): void {
    this.grid = grid;
    this.unit = unit;
    this.selected = selected;
    setText(this.title, title);
    const text = (value: number): string => (grid.diverging || value === 0 ? fixed(value, 0) : precise(value));
    this.scroller.style.setProperty('--plab-heat-height', `${Math.min(HIGHEST, grid.rows.length * ROW + AXIS)}px`);
    setText(this.scaleLow, text(grid.low));
    setText(this.scaleHigh, grid.diverging ? text(grid.high) : this.trans.__('%1 and more', text(grid.high)));
    setAttributes(this.legend, { 'aria-label': this.trans.__('Colour scale from %1 to %2', text(grid.low), text(grid.high)) });
    this.spacer.style.height = `${grid.rows.length * this.rowHeight + AXIS}px`;
    this.paint();
  }

  repaint(): void {
    this.paint();
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    this.resized.disconnect();
  }

  /** High enough for a name where the workers are few; thin where they are many, and the pane scrolls. */
  private get rowHeight(): number {
    const count = this.grid?.rows.length ?? 1;
    return Math.max(5, Math.min(ROW, Math.floor((HIGHEST - AXIS) / Math.max(1, count))));
  }

  private later(): void {
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.paint();
      });
    }
  }

  private colour(value: number, dark: boolean): string {
    const grid = this.grid;
    if (!grid) {
      return '';
    }
    return css(grid.diverging ? diverging(value, dark) : sequential((value - grid.low) / (grid.high - grid.low || 1), dark));
  }

  private paint(): void {
    const { grid, canvas, scroller } = this;
    const context = canvas.getContext('2d');
    const width = scroller.clientWidth;
    const height = scroller.clientHeight;
    if (!grid || !context || !width || !height) {
      return;
    }
    const dark = isDark(scroller);
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.paintRamp(dark);
    const ink = variable(scroller, '--plab-ink', '#222');
    const soft = variable(scroller, '--plab-soft', '#666');
    const accent = variable(scroller, '--plab-accent', '#0072b2');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const family = getComputedStyle(scroller).fontFamily;
    context.textBaseline = 'middle';
    const row = this.rowHeight;
    const { columns, rows, values } = grid;
    const cell = columns.length ? (width - LABELS) / columns.length : 0;
    const gapX = cell >= 6 ? 1 : 0;
    const gapY = row >= 8 ? 1 : 0;
    const bottom = height - AXIS;
    const top = scroller.scrollTop;
    const first = Math.max(0, Math.floor(top / row));
    const last = Math.min(rows.length, Math.ceil((top + bottom) / row));
    context.save();
    context.beginPath();
    context.rect(0, 0, width, bottom);
    context.clip();
    for (let i = first; i < last; i += 1) {
      const y = i * row - top;
      for (let k = 0; k < columns.length; k += 1) {
        const value = values[i * columns.length + k];
        if (value !== undefined && !Number.isNaN(value)) {
          context.fillStyle = this.colour(value, dark);
          context.fillRect(LABELS + k * cell, y, Math.max(1, cell - gapX), row - gapY);
        }
      }
      this.paintLabel(context, i, y, row, first, ink, soft, family);
      if (rows[i]?.name === this.selected) {
        context.strokeStyle = accent;
        context.lineWidth = 2;
        context.strokeRect(1, y + 0.5, width - 2, row - 1);
      }
    }
    if (this.cursor && columns.length) {
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.strokeRect(LABELS + this.cursor.column * cell - 1, this.cursor.row * row - top - 1, cell + 2, row + 1);
    }
    context.restore();
    this.paintAxis(context, width, height, cell, soft, family);
    this.tell();
  }

  /** Names where a row is high enough for one; else the stage, once for all its rows. */
  private paintLabel(
    context: CanvasRenderingContext2D,
    index: number,
    y: number,
    row: number,
    first: number,
    ink: string,
    soft: string,
    family: string
  ): void {
    const worker = this.grid?.rows[index];
    const above = this.grid?.rows[index - 1];
    if (!worker) {
      return;
    }
    const isNewStage = !above || above.stage !== worker.stage;
    if (isNewStage && index > 0) {
      context.fillStyle = soft;
      context.fillRect(0, y - 0.5, LABELS - 6, 0.5);
    }
    if (row >= 11) {
      context.font = `${Math.min(12, row - 2)}px ${family}`;
      context.fillStyle = worker.dead ? soft : ink;
      context.fillText(cut(context, `${worker.dead ? '✕ ' : ''}${worker.name}`, LABELS - 14), 4, y + row / 2);
    } else if (isNewStage || index === first) {
      context.font = `11px ${family}`;
      context.fillStyle = soft;
      context.fillText(this.trans.__('stage %1', worker.stage), 4, y + 7);
    }
  }

  private paintAxis(context: CanvasRenderingContext2D, width: number, height: number, cell: number, soft: string, family: string): void {
    const { columns } = this.grid as HeatGrid;
    context.font = `10.5px ${family}`;
    context.fillStyle = soft;
    context.fillText(this.trans.__('round'), 0, height - AXIS / 2 + 2);
    const every = Math.max(1, Math.ceil(64 / Math.max(0.1, cell)));
    for (let k = 0; k < columns.length; k += every) {
      const column = columns[k];
      if (column && LABELS + k * cell < width - 20) {
        context.fillText(String(column.from), LABELS + k * cell, height - AXIS / 2 + 2);
      }
    }
  }

  private paintRamp(dark: boolean): void {
    const context = this.ramp.getContext('2d');
    const { grid } = this;
    if (!context || !grid) {
      return;
    }
    for (let x = 0; x < this.ramp.width; x += 1) {
      context.fillStyle = this.colour(grid.low + ((grid.high - grid.low) * x) / (this.ramp.width - 1), dark);
      context.fillRect(x, 0, 1, this.ramp.height);
    }
  }

  private cellAt(event: MouseEvent, anywhere = false): Cursor | null {
    const { grid } = this;
    if (!grid?.columns.length) {
      return null;
    }
    const box = this.scroller.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    const row = Math.floor((y + this.scroller.scrollTop) / this.rowHeight);
    const column = Math.floor(((x - LABELS) / (this.scroller.clientWidth - LABELS)) * grid.columns.length);
    if (y > this.scroller.clientHeight - AXIS || row < 0 || row >= grid.rows.length || (!anywhere && column < 0)) {
      return null;
    }
    return { row, column: Math.min(grid.columns.length - 1, Math.max(0, column)) };
  }

  private point(cell: Cursor | null, spoken: boolean): void {
    if (cell?.row === this.cursor?.row && cell?.column === this.cursor?.column) {
      return;
    }
    this.cursor = cell;
    setAttributes(this.readout, { role: spoken ? 'status' : null });
    this.later();
  }

  private tell(): void {
    const { grid, cursor } = this;
    const worker = cursor ? grid?.rows[cursor.row] : undefined;
    const column = cursor ? grid?.columns[cursor.column] : undefined;
    const summary = this.trans.__('%1: %2 workers, %3 columns of rounds; arrow keys read single cells, Enter selects the worker', this.title.textContent ?? '', grid?.rows.length ?? 0, grid?.columns.length ?? 0);
    setAttributes(this.scroller, { 'aria-label': summary });
    if (!grid || !cursor || !worker || !column) {
      setText(this.readout, '');
      return;
    }
    const value = grid.values[cursor.row * grid.columns.length + cursor.column];
    const rounds = column.from === column.to ? this.trans.__('round %1', column.from) : this.trans.__('rounds %1 to %2', column.from, column.to);
    const said = value === undefined || Number.isNaN(value) ? this.trans.__('nothing') : `${grid.diverging ? fixed(value, 3) : precise(value)} ${this.unit}`.trim();
    setText(this.readout, this.trans.__('%1, stage %2, %3: %4', worker.name, worker.stage, rounds, said));
  }

  private onKey(event: KeyboardEvent): void {
    const { grid } = this;
    if (!grid?.columns.length || !grid.rows.length) {
      return;
    }
    const here = this.cursor ?? { row: 0, column: grid.columns.length - 1 };
    const fresh = this.cursor === null;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight) - 1);
    const moves: Record<string, Cursor> = {
      ArrowLeft: { ...here, column: here.column - 1 },
      ArrowRight: { ...here, column: here.column + 1 },
      ArrowUp: { ...here, row: here.row - 1 },
      ArrowDown: { ...here, row: here.row + 1 },
      PageUp: { ...here, row: here.row - page },
      PageDown: { ...here, row: here.row + page },
      Home: { ...here, column: 0 },
      End: { ...here, column: grid.columns.length - 1 }
    };
    const move = moves[event.key];
    if (move) {
      const to = fresh ? here : move;
      const cell = {
        row: Math.min(grid.rows.length - 1, Math.max(0, to.row)),
        column: Math.min(grid.columns.length - 1, Math.max(0, to.column))
      };
      this.reveal(cell.row);
      this.point(cell, true);
    } else if ((event.key === 'Enter' || event.key === ' ') && grid.rows[here.row]) {
      this.onSelect((grid.rows[here.row]).name);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private reveal(row: number): void {
    const top = row * this.rowHeight;
    const room = this.scroller.clientHeight - AXIS;
    if (top < this.scroller.scrollTop) {
      this.scroller.scrollTop = top;
    } else if (top + this.rowHeight > this.scroller.scrollTop + room) {
      this.scroller.scrollTop = top + this.rowHeight - room;
    }
  }
}

function cut(context: CanvasRenderingContext2D, text: string, room: number): string {
  if (context.measureText(text).width <= room) {
    return text;
  }
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > room) {
    length -= 1;
  }
  return `${text.slice(0, length)}…`;
}
