/** The fields of our dialogs: a label, something to choose or to type, and what it means; and the lines that say how it goes. */

import { el, setText } from '@pluralis-lab/views/dom.js';

export interface Option {
  value: string;
  text: string;
}

let counter = 0;

/** A label and its field, for two columns. */
export function labelled(label: string, field: HTMLSelectElement | HTMLInputElement, ...about: HTMLElement[]): [HTMLElement, HTMLElement] {
  field.id = `plab-asking-${(counter += 1)}`;
  about.forEach((one, i) => {
    one.id = `${field.id}-about-${i}`;
  });
  if (about.length) {
    field.setAttribute('aria-describedby', about.map(one => one.id).join(' '));
  }
  return [el('label', { for: field.id, text: label }), el('div', {}, field, ...about)];
}

/** Offer `options`; what was chosen stays chosen, and what is `wanted` becomes so, offered or not: the server says what is wrong with it. */
export function fill(select: HTMLSelectElement, options: Option[], wanted = ''): void {
  const chosen = select.value || wanted;
  const all = options.some(one => one.value === chosen) || !chosen ? options : [...options, { value: chosen, text: chosen }];
  select.replaceChildren(...all.map(one => el('option', { value: one.value, text: one.text })));
  select.value = chosen || (all[0]?.value ?? '');
}

/** What is being done, and why it was not: two lines below the fields. */
export class Outcome {
  readonly nodes: [HTMLElement, HTMLElement];
  private readonly status = el('p', { class: 'plab-asking-status', role: 'status' });
  private readonly trouble = el('p', { class: 'plab-fault', role: 'alert' });

  constructor() {
    this.nodes = [this.status, this.trouble];
  }

  busy(text: string): void {
    setText(this.status, text);
    if (text) {
      setText(this.trouble, '');
    }
  }

  refuse(text: string): void {
    setText(this.trouble, `✕ ${text}`);
  }
}
