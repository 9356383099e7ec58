/** A list of many rows of one height, of which only the visible ones are on the page; with a keyboard, as a grid of foldable groups. */

import { el, setAttributes } from './core';

export interface RowPart<Item> {
  readonly node: HTMLElement;
  /** Show `item`; a part is used again for other rows while the reader scrolls. */
  update(item: Item, index: number): void;
}

export interface VirtualRowsOptions<Item> {
  label: string;
  rowHeight: number;
  /** Stays on top while the rows scroll. */
  head: HTMLElement;
  keyOf: (item: Item) => string;
  make: () => RowPart<Item>;
  /** Enter, space or a click on the row at `index`. */
  onChoose: (item: Item) => void;
  /** Left (fold) and right (unfold). */
  onFold: (item: Item, fold: boolean) => void;
}

const OVERSCAN = 4;
let grids = 0;

/** Focus stays on the grid itself and points at its active row, so that it survives rows that scroll away. */
export class VirtualRows<Item> {
  readonly node: HTMLElement;
  private readonly body = el('div', { class: 'plab-rows', role: 'rowgroup' });
  private readonly pool: RowPart<Item>[] = [];
  private readonly id = `plab-grid-${(grids += 1)}`;
  private items: readonly Item[] = [];
  private active = '';
  private chosen = '';
  private frame = 0;
  private readonly resized: ResizeObserver;

  constructor(private readonly options: VirtualRowsOptions<Item>) {
    this.node = el('div', { class: 'plab-grid-host', role: 'treegrid', tabindex: '0', 'aria-label': options.label }, options.head, this.body);
    this.node.addEventListener('scroll', () => this.later(), { passive: true });
    this.node.addEventListener('keydown', event => this.onKey(event));
    this.node.addEventListener('focus', () => this.render());
    this.body.addEventListener('click', event => this.onClick(event));
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.node);
  }

  update(items: readonly Item[], chosen: string, columns: number): void {
    this.items = items;
    this.chosen = chosen;
    setAttributes(this.node, { 'aria-rowcount': items.length + 1, 'aria-colcount': columns });
    this.body.style.height = `${items.length * this.options.rowHeight}px`;
    this.render();
  }

  /** Scroll to the chosen row, if it is among the rows. */
  revealChosen(): void {
    const index = this.items.findIndex(item => this.options.keyOf(item) === this.chosen);
    if (index >= 0) {
      this.reveal(index);
      this.render();
    }
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    this.resized.disconnect();
  }

  private later(): void {
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.render();
      });
    }
  }

  private render(): void {
    const { rowHeight, keyOf, make } = this.options;
    const headHeight = this.options.head.offsetHeight;
    const top = this.node.scrollTop;
    const first = Math.max(0, Math.floor(top / rowHeight) - OVERSCAN);
    const count = Math.ceil(Math.max(0, this.node.clientHeight - headHeight) / rowHeight) + 2 * OVERSCAN;
    const last = Math.min(this.items.length, first + count);
    while (this.pool.length < last - first) {
      const part = make();
      this.pool.push(part);
      this.body.append(part.node);
    }
    let activeId: string | null = null;
    this.pool.forEach((part, slot) => {
      const index = first + ((slot - (first % this.pool.length) + this.pool.length) % this.pool.length);
      if (index >= last) {
        part.node.hidden = true;
        return;
      }
      const item = this.items[index];
      const key = keyOf(item);
      part.node.hidden = false;
      part.update(item, index);
      const place = `translateY(${index * rowHeight}px)`;
      if (part.node.style.transform !== place) {
        part.node.style.transform = place;
      }
      setAttributes(part.node, {
        id: `${this.id}-${slot}`,
        'aria-rowindex': index + 2,
        'aria-selected': key === this.chosen ? 'true' : 'false',
        'data-index': index
      });
      part.node.classList.toggle('plab-active', key === this.active);
      if (key === this.active) {
        activeId = part.node.id;
      }
    });
    setAttributes(this.node, { 'aria-activedescendant': activeId });
  }

  private onClick(event: MouseEvent): void {
    const row = event.target instanceof Element ? event.target.closest<HTMLElement>('[data-index]') : null;
    const item = row ? this.items[Number(row.dataset.index)] : undefined;
    if (item !== undefined) {
      this.active = this.options.keyOf(item);
      this.node.focus({ preventScroll: true });
      this.options.onChoose(item);
    }
  }

  private onKey(event: KeyboardEvent): void {
    if (event.target !== this.node || !this.items.length) {
      return;
    }
    const { keyOf, rowHeight } = this.options;
    const here = this.items.findIndex(item => keyOf(item) === this.active);
    const page = Math.max(1, Math.floor(this.node.clientHeight / rowHeight) - 2);
    const moves: Record<string, number> = {
      ArrowDown: here + 1,
      ArrowUp: here < 0 ? 0 : here - 1,
      PageDown: here + page,
      PageUp: here - page,
      Home: 0,
      End: this.items.length - 1
    };
    const current = this.items[here];
    if (event.key in moves) {
      const to = Math.min(this.items.length - 1, Math.max(0, moves[event.key] ?? 0));
      this.active = keyOf(this.items[to]);
      this.reveal(to);
      this.render();
    } else if ((event.key === 'Enter' || event.key === ' ') && current !== undefined) {
      this.options.onChoose(current);
    } else if ((event.key === 'ArrowLeft' || event.key === 'ArrowRight') && current !== undefined) {
      this.options.onFold(current, event.key === 'ArrowLeft');
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private reveal(index: number): void {
    const { rowHeight, head } = this.options;
    const room = this.node.clientHeight - head.offsetHeight;
    const top = index * rowHeight;
    if (top < this.node.scrollTop) {
      this.node.scrollTop = top;
    } else if (top + rowHeight > this.node.scrollTop + room) {
      this.node.scrollTop = top + rowHeight - room;
    }
  }
}
