/** Small pieces that every pane is made of: marks of states, figures, choices, notes. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { WorkerPicture } from '../api/types';
import { el, fixed, setAttributes, setText } from './core';
import { isIdle } from './rounds';

/** What a state looks like: a class for its colour and a mark beside it, so that colour is never the only sign. */
export function stateLook(state: string): { kind: 'live' | 'dead' | 'stopped' | 'coming'; mark: string } {
  switch (state) {
    case 'active':
    case 'running':
      return { kind: 'live', mark: '●' };
    case 'serving':
      return { kind: 'live', mark: '◆' };
    case 'dead':
    case 'failed':
    case 'damaged':
      return { kind: 'dead', mark: '✕' };
    case 'stopped':
      return { kind: 'stopped', mark: '■' };
    default:
      return { kind: 'coming', mark: '◐' };
  }
}

/** The word for a state of a worker or a run; a state that we do not know is said as it is. */
export function stateWord(state: string, trans: TranslationBundle): string {
  switch (state) {
    case 'starting':
      return trans.__('starting');
    case 'joining':
      return trans.__('joining');
    case 'syncing':
      return trans.__('syncing');
    case 'warming':
      return trans.__('warming');
    case 'active':
      return trans.__('active');
    case 'serving':
      return trans.__('serving');
    case 'running':
      return trans.__('running');
    case 'paused':
      return trans.__('paused');
    case 'stopped':
      return trans.__('stopped');
    case 'dead':
      return trans.__('dead');
    case 'aside':
      return trans.__('set aside');
    case 'failed':
      return trans.__('failed');
    case 'damaged':
      return trans.__('damaged');
    default:
      return state;
  }
}

/** The word for a worker's state, and that it is idle where it is; of a run that is over that says nothing. */
export function workerWord(worker: WorkerPicture, isOver: boolean, trans: TranslationBundle): string {
  return isIdle(worker) && !isOver ? trans.__('%1, idle', stateWord(worker.state, trans)) : stateWord(worker.state, trans);
}

/** How late the gradients of a stage are; '' where they are not. */
export function delayText(delay: number | null, trans: TranslationBundle): string {
  return delay === null || Number(delay.toFixed(1)) === 0 ? '' : trans.__('%1 steps late', fixed(delay, 1));
}

export interface Pill {
  readonly node: HTMLElement;
  update(state: string, words: string): void;
}

export function pill(): Pill {
  const mark = el('span', { class: 'plab-pill-mark', 'aria-hidden': 'true' });
  const text = el('span');
  const node = el('span', { class: 'plab-pill' }, mark, text);
  return {
    node,
    update(state, words) {
      const look = stateLook(state);
      const name = `plab-pill plab-${look.kind}`;
      if (node.className !== name) {
        node.className = name;
      }
      setText(mark, look.mark);
      setText(text, words);
    }
  };
}

export interface Figure {
  readonly node: HTMLElement;
  update(text: string, note?: string): void;
}

/** A headline figure; `definition` says how it is computed, on the page for a screen reader and when pointed at. */
export function figure(label: string, definition = ''): Figure {
  const value = el('div', { class: 'plab-figure-value' });
  const note = el('div', { class: 'plab-figure-note' });
  const name = el('div', { class: 'plab-figure-label', text: label });
  const node = el(
    'div',
    { class: 'plab-figure', role: 'group', 'aria-label': definition ? `${label}. ${definition}` : label, title: definition || null },
    name,
    value,
    note
  );
  if (definition) {
    node.tabIndex = 0;
    node.classList.add('plab-has-definition');
  }
  return {
    node,
    update(text, extra = '') {
      setText(value, text);
      setText(note, extra);
    }
  };
}

let choices = 0;

export interface Choice<Value extends string> {
  readonly node: HTMLElement;
  /** Show these options, `value` chosen; with fewer than two there is nothing to choose, and nothing is drawn. */
  update(options: readonly { value: Value; text: string; title?: string }[], value: Value): void;
}

/** A row of options of which one is chosen: radio buttons, so that a keyboard and a screen reader know them. */
export function choice<Value extends string>(label: string, onChange: (value: Value) => void): Choice<Value> {
  const name = `plab-choice-${(choices += 1)}`;
  const node = el('span', { class: 'plab-choice', role: 'radiogroup', 'aria-label': label });
  const known = new Map<Value, { input: HTMLInputElement; text: HTMLElement; label: HTMLElement }>();
  return {
    node,
    update(options, value) {
      node.hidden = options.length < 2;
      for (const [key, part] of known) {
        if (!options.some(option => option.value === key)) {
          part.label.remove();
          known.delete(key);
        }
      }
      for (const option of options) {
        let part = known.get(option.value);
        if (!part) {
          const input = el('input', { type: 'radio', name, value: option.value });
          const text = el('span');
          input.addEventListener('change', () => {
            if (input.checked) {
              onChange(option.value);
            }
          });
          part = { input, text, label: el('label', {}, input, text) };
          known.set(option.value, part);
        }
        if (part.label.parentNode !== node) {
          node.append(part.label);
        }
        setText(part.text, option.text);
        setAttributes(part.label, { title: option.title ?? null });
        part.input.checked = option.value === value;
      }
    }
  };
}

export function button(text: string, onClick: () => void, kind: 'plain' | 'danger' | 'main' = 'plain'): HTMLButtonElement {
  const node = el('button', {
    type: 'button',
    class: `plab-button${kind === 'danger' ? ' plab-danger' : kind === 'main' ? ' plab-main' : ''}`,
    text
  });
  node.addEventListener('click', onClick);
  return node;
}

/** Say why a button does nothing; '' when it works. It can still be reached, or a keyboard would never come to the reason. */
export function explain(node: HTMLButtonElement, why: string): void {
  setAttributes(node, { 'aria-disabled': why ? 'true' : null, title: why || null });
}

export interface Note {
  readonly node: HTMLElement;
  /** '' hides it. */
  update(text: string, kind?: 'info' | 'coming' | 'trouble' | 'good'): void;
}

/** A line that tells what is missing, what comes, or what went wrong. */
export function note(): Note {
  const node = el('p', { class: 'plab-note', role: 'status' });
  node.hidden = true;
  return {
    node,
    update(text, kind = 'info') {
      setText(node, text);
      const name = `plab-note plab-note-${kind}`;
      if (node.className !== name) {
        node.className = name;
      }
      setAttributes(node, { role: kind === 'trouble' ? 'alert' : 'status' });
      node.hidden = !text;
    }
  };
}

/** A table that is made only when it is opened: what a chart shows, for a screen reader or to copy. */
export function asTable(title: string, rows: () => { heads: string[]; rows: string[][] }): { node: HTMLElement; update(): void } {
  const body = el('div', { class: 'plab-scroll' });
  const node = el('details', { class: 'plab-as-table' }, el('summary', { text: title }), body);
  const make = (): void => {
    if (!node.open) {
      return;
    }
    const table = rows();
    body.replaceChildren(
      el(
        'table',
        { class: 'plab-table' },
        el('thead', {}, el('tr', {}, ...table.heads.map(head => el('th', { scope: 'col', text: head })))),
        el('tbody', {}, ...table.rows.map(cells => el('tr', {}, ...cells.map((text, i) => el(i ? 'td' : 'th', { scope: i ? null : 'row', text })))))
      )
    );
  };
  node.addEventListener('toggle', make);
  return { node, update: make };
}

export function section(title: string, ...children: (Node | string)[]): HTMLElement {
  return el('section', { class: 'plab-section', 'aria-label': title }, el('h4', { class: 'plab-title', text: title }), ...children);
}

/** A swatch in a participant's tone. */
export function swatch(): { node: HTMLElement; update(tone: number): void } {
  const node = el('span', { class: 'plab-swatch', 'aria-hidden': 'true' });
  return {
    node,
    update(tone) {
      const name = `plab-swatch plab-fill-${tone}`;
      if (node.className !== name) {
        node.className = name;
      }
    }
  };
}

/** What an error says; a refusal of the server names the value and the remedy. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
