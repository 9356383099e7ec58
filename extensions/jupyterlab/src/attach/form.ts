/** The questions about a worker that is added: on which device, in which stage, for whom, and with what text of its own. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';

import type { NewWorker } from '../api/client';
import type { RunRow } from '../api/types';
import type { Asking } from '../asking/dialog';
import { fill, labelled, type Option, Outcome } from '../asking/fields';
import { mayBring, sourceOf } from './options';

export class AttachForm extends Widget implements Asking<NewWorker> {
  constructor(
    private readonly trans: TranslationBundle,
    private readonly row: Pick<RunRow, 'name' | 'own_data'>,
    data = ''
  ) {
    super();
    this.addClass('plab-asking');
    this.addClass('plab-attach');
    this.data.value = data;
    this.ownData = labelled(
      trans.__('Its own text'),
      this.data,
      el('p', {
        class: 'plab-about',
        text: trans.__('A file or folder of the server’s machine; %1 of its micro-batches are drawn from it. Empty: none.', `${Number((100 * row.own_data).toFixed(1))} %`)
      }),
      el('p', { class: 'plab-warning', text: trans.__('⚠ Every stage can read what is drawn, as token ids.') })
    );
    this.node.append(
      el('p', { text: trans.__('Run %1 goes on meanwhile. The worker gets its stage’s state from another one, then they share the work.', row.name) }),
      el(
        'div',
        { class: 'plab-asking-fields' },
        ...labelled(trans.__('Device'), this.device, this.deviceNote),
        ...labelled(trans.__('Stage'), this.stage),
        ...labelled(trans.__('Account'), this.account, el('p', { class: 'plab-about', text: trans.__('Owns what the worker does.') })),
        ...this.ownData
      ),
      ...this.outcome.nodes
    );
    this.stage.addEventListener('change', () => this.showOwnData());
    this.showOwnData();
  }

  get value(): NewWorker {
    const worker: NewWorker = { device: this.device.value };
    if (this.stage.value) {
      worker.stage = Number(this.stage.value);
    }
    if (this.account.value) {
      worker.account = this.account.value;
    }
    const source = mayBring(this.row, this.stage.value) ? sourceOf(this.data.value) : '';
    if (source) {
      worker.data = source;
    }
    return worker;
  }

  setDevices(options: Option[], wanted = ''): void {
    fill(this.device, options, wanted);
    setText(this.deviceNote, options.length > 1 ? '' : this.trans.__('The server sees no GPU on this machine.'));
  }

  setStages(options: Option[], wanted = ''): void {
    fill(this.stage, options, wanted);
    this.showOwnData();
  }

  setAccounts(options: Option[], wanted = ''): void {
    fill(this.account, options, wanted);
  }

  busy(text: string): void {
    this.outcome.busy(text);
  }

  refuse(text: string): void {
    this.outcome.refuse(text);
  }

  private showOwnData(): void {
    for (const node of this.ownData) {
      node.hidden = !mayBring(this.row, this.stage.value);
    }
  }

  private readonly device = el('select', { class: 'jp-mod-styled' });
  private readonly deviceNote = el('p', { class: 'plab-about' });
  private readonly stage = el('select', { class: 'jp-mod-styled' });
  private readonly account = el('select', { class: 'jp-mod-styled' });
  private readonly data = el('input', {
    type: 'text',
    class: 'jp-mod-styled',
    placeholder: 'path:/data/notes.txt',
    autocomplete: 'off',
    spellcheck: 'false'
  });
  private readonly ownData: [HTMLElement, HTMLElement];
  private readonly outcome = new Outcome();
}
