/** The questions about a worker that is added: on which device, in which stage, for whom. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';

import type { NewWorker } from '../api/client';
import type { Option } from './options';

export class AttachForm extends Widget {
  constructor(
    private readonly trans: TranslationBundle,
    runName: string
  ) {
    super();
    this.addClass('plab-attach');
    this.node.append(
      el('p', { text: trans.__('Run %1 goes on meanwhile. The worker gets its stage’s state from another one, then they share the work.', runName) }),
      el(
        'div',
        { class: 'plab-attach-fields' },
        ...labelled(trans.__('Device'), this.device, this.deviceNote),
        ...labelled(trans.__('Stage'), this.stage),
        ...labelled(trans.__('Account'), this.account, el('p', { class: 'plab-about', text: trans.__('Owns what the worker does.') }))
      ),
      this.status,
      this.trouble
    );
  }

  get value(): NewWorker {
    const worker: NewWorker = { device: this.device.value };
    if (this.stage.value) {
      worker.stage = Number(this.stage.value);
    }
    if (this.account.value) {
      worker.account = this.account.value;
    }
    return worker;
  }

  setDevices(options: Option[], wanted = ''): void {
    fill(this.device, options, wanted);
    setText(this.deviceNote, options.length > 1 ? '' : this.trans.__('The server sees no GPU on this machine.'));
  }

  setStages(options: Option[], wanted = ''): void {
    fill(this.stage, options, wanted);
  }

  setAccounts(options: Option[], wanted = ''): void {
    fill(this.account, options, wanted);
  }

  /** Say that the worker is being added; '' when it no longer is. */
  busy(text: string): void {
    setText(this.status, text);
    if (text) {
      setText(this.trouble, '');
    }
  }

  /** Say why it was not added. */
  refuse(text: string): void {
    setText(this.trouble, `✕ ${text}`);
  }

  private readonly device = el('select', { class: 'jp-mod-styled' });
  private readonly deviceNote = el('p', { class: 'plab-about' });
  private readonly stage = el('select', { class: 'jp-mod-styled' });
  private readonly account = el('select', { class: 'jp-mod-styled' });
  private readonly status = el('p', { class: 'plab-attach-status', role: 'status' });
  private readonly trouble = el('p', { class: 'plab-fault', role: 'alert' });
}

let counter = 0;

function labelled(label: string, select: HTMLSelectElement, about?: HTMLElement): HTMLElement[] {
  select.id = `plab-attach-${(counter += 1)}`;
  if (about) {
    about.id = `${select.id}-about`;
    select.setAttribute('aria-describedby', about.id);
  }
  return [el('label', { for: select.id, text: label }), el('div', {}, select, ...(about ? [about] : []))];
}

/** Offer `options`; what was chosen stays chosen, and what is `wanted` becomes so, offered or not: the server says what is wrong with it. */
function fill(select: HTMLSelectElement, options: Option[], wanted: string): void {
  const chosen = select.value || wanted;
  const all = options.some(one => one.value === chosen) || !chosen ? options : [...options, { value: chosen, text: chosen }];
  select.replaceChildren(...all.map(one => el('option', { value: one.value, text: one.text })));
  select.value = chosen || (all[0]?.value ?? '');
}
