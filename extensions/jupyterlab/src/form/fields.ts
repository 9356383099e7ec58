/** Controls for the fields of a spec. Each says what it takes, shows its fault beside it, and reports texts as values. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { el, setText } from '@pluralis-lab/views/dom.js';

import type { Spec } from '../api/types';
import { type Field, format, getIn, type Json, labelOf, parse, type UnionField, variantIn, variantValue } from '../spec/schema';

/** Where the controls read and write. */
export interface SpecHolder {
  readonly spec: Spec;
  readonly trans: TranslationBundle;
  set(path: string[], value: Json): void;
  /** The controls below `path` were made anew: old ones are gone. */
  register(path: string[], control: Control): void;
  forget(path: string[]): void;
}

export interface Control {
  /** Show what is wrong with this field; "" when nothing is. */
  fault(message: string): void;
  focus(): void;
}

let counter = 0;

/** The control for one field, or null where there is nothing to choose. */
export function fieldControl(field: Field, holder: SpecHolder): HTMLElement | null {
  switch (field.kind) {
    case 'fixed':
      return null;
    case 'group':
      return groupControl(field, holder);
    case 'union':
      return unionControl(field, holder);
    default:
      return plainControl(field, holder);
  }
}

function groupControl(field: Field & { kind: 'group' }, holder: SpecHolder): HTMLElement | null {
  const inner = field.fields.map(one => fieldControl(one, holder)).filter(one => one !== null);
  if (!inner.length) {
    return null; // a part of which there is only one form
  }
  const fault = el('p', { class: 'plab-fault', role: 'alert', hidden: true });
  holder.register(field.path, asControl(fault, () => inner[0].querySelector<HTMLElement>('input, select')?.focus()));
  return el('fieldset', { class: 'plab-group' }, el('legend', { text: labelOf(field), title: field.description }), fault, ...inner);
}

function unionControl(field: UnionField, holder: SpecHolder): HTMLElement {
  const { trans } = holder;
  const id = `plab-field-${(counter += 1)}`;
  const select = el('select', { id, class: 'jp-mod-styled', 'aria-describedby': `${id}-about` });
  if (field.optional) {
    select.append(el('option', { value: '', text: trans.__('chosen by itself') }));
  }
  for (const variant of field.variants) {
    select.append(el('option', { value: variant.value, text: variant.title }));
  }
  const about = el('p', { id: `${id}-about`, class: 'plab-about' });
  const fault = el('p', { class: 'plab-fault', role: 'alert', hidden: true });
  const inner = el('div', { class: 'plab-fields' });
  const draw = () => {
    const variant = variantIn(field, getIn(holder.spec, field.path));
    select.value = variant?.value ?? '';
    setText(about, variant?.description ?? field.description);
    const parts = (variant?.fields ?? []).map(one => fieldControl(one, holder)).filter(one => one !== null);
    inner.replaceChildren(...parts);
    inner.hidden = !parts.length;
  };
  select.addEventListener('change', () => {
    holder.forget(field.path);
    const variant = field.variants.find(one => one.value === select.value);
    holder.set(field.path, variant ? variantValue(variant) : null);
    draw();
    holder.register(field.path, asControl(fault, () => select.focus(), select));
  });
  draw();
  holder.register(field.path, asControl(fault, () => select.focus(), select));
  return el(
    'fieldset',
    { class: 'plab-group' },
    el('legend', { text: labelOf(field), title: field.description }),
    el('label', { for: id, class: 'plab-hidden-label', text: trans.__('kind of %1', labelOf(field)) }),
    select,
    about,
    fault,
    inner
  );
}

function plainControl(field: Field, holder: SpecHolder): HTMLElement {
  const { trans } = holder;
  const id = `plab-field-${(counter += 1)}`;
  const value = getIn(holder.spec, field.path);
  const input = inputFor(field, value, trans);
  input.id = id;
  input.setAttribute('aria-describedby', `${id}-about ${id}-fault`);
  input.dataset.path = field.path.join('.');
  input.classList.add('jp-mod-styled');
  input.addEventListener('input', () => {
    holder.set(field.path, input instanceof HTMLInputElement && input.type === 'checkbox' ? input.checked : parse(field, input.value));
  });
  const fault = el('p', { id: `${id}-fault`, class: 'plab-fault', role: 'alert', hidden: true });
  holder.register(field.path, asControl(fault, () => input.focus(), input));
  return el(
    'div',
    { class: 'plab-field' },
    el('label', { for: id, text: labelOf(field) }),
    input,
    el('p', { id: `${id}-about`, class: 'plab-about', text: aboutText(field, trans) }),
    fault
  );
}

function inputFor(field: Field, value: Json | undefined, trans: TranslationBundle): HTMLInputElement | HTMLSelectElement {
  if (field.kind === 'choice') {
    const select = el('select');
    if (field.optional) {
      select.append(el('option', { value: '', text: trans.__('chosen by itself') }));
    }
    select.append(...field.choices.map(one => el('option', { value: format(one), text: format(one) })));
    select.value = format(value);
    return select;
  }
  if (field.kind === 'flag') {
    const box = el('input', { type: 'checkbox' });
    box.checked = value === true;
    return box;
  }
  // Not type=number: it hides what was mistyped, and the check could then not name it.
  const input = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', inputmode: field.kind === 'number' ? 'decimal' : null });
  input.value = format(value);
  input.placeholder = field.optional ? trans.__('chosen by itself') : '';
  return input;
}

function aboutText(field: Field, trans: TranslationBundle): string {
  if (field.kind !== 'number') {
    return field.description;
  }
  const { min, max } = field;
  if (min !== undefined && max !== undefined && max < 1e15) {
    return trans.__('%1 (%2 to %3)', field.description, min, max);
  }
  return field.description;
}

function asControl(fault: HTMLElement, focus: () => void, input?: HTMLElement): Control {
  return {
    focus,
    fault(message) {
      setText(fault, message);
      fault.hidden = !message;
      input?.setAttribute('aria-invalid', String(Boolean(message)));
    }
  };
}
