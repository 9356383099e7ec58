/** The receipts of one worker: what it did, and who counter-signed it. */

import type { Receipt, RunPicture } from '../api/types';
import { signersOf, tonesOf } from './contributionsmodel';
import { el, fixed, precise, setText, si } from './core';
import { shortHex } from './money';
import type { PaneContext } from './pane';
import { button, messageOf, note, swatch } from './parts';

const PAGE = 200;

export class Receipts {
  readonly node: HTMLElement;
  private readonly picker: HTMLSelectElement;
  private readonly summary = el('p', { class: 'plab-signers' });
  private readonly told = note();
  private readonly body = el('tbody');
  private readonly table: HTMLElement;
  private readonly more: HTMLButtonElement;
  private worker = '';
  private readEpochs = -1;
  private receipts: Receipt[] = [];
  private total = 0;
  private request = 0;
  private picture: RunPicture | null = null;

  constructor(
    private readonly context: PaneContext,
    onPick: (worker: string) => void
  ) {
    const { trans } = context;
    this.picker = el('select', { class: 'plab-select', 'aria-label': trans.__('Receipts of worker') });
    this.picker.addEventListener('change', () => onPick(this.picker.value));
    const heads = [
      trans.__('Epoch'),
      trans.__('Round'),
      trans.__('Kind'),
      trans.__('Counter-signed by'),
      trans.__('Tokens'),
      trans.__('Micro-batches'),
      trans.__('Norm'),
      trans.__('Agreement'),
      trans.__('Digest')
    ];
    this.table = el(
      'div',
      { class: 'plab-scroll', tabindex: '0', role: 'group', 'aria-label': trans.__('Receipts') },
      el('table', { class: 'plab-table' }, el('thead', {}, el('tr', {}, ...heads.map(text => el('th', { scope: 'col', text })))), this.body)
    );
    this.more = button(trans.__('Older receipts'), () => void this.read(this.receipts.at(-1)?.epoch));
    this.node = el(
      'section',
      { class: 'plab-section', 'aria-label': trans.__('Receipts') },
      el('div', { class: 'plab-tools' }, el('h4', { class: 'plab-title', text: trans.__('Receipts') }), this.picker),
      this.told.node,
      this.summary,
      this.table,
      this.more
    );
    this.show();
  }

  draw(picture: RunPicture, selected: string): void {
    const { trans } = this.context;
    this.picture = picture;
    this.node.hidden = picture.epochs_closed === 0 && !selected;
    const names = ['', ...picture.workers.map(worker => worker.name)];
    if (this.picker.options.length !== names.length || names.some((name, i) => this.picker.options[i]?.value !== name)) {
      this.picker.replaceChildren(...names.map(name => el('option', { value: name, text: name || trans.__('choose a worker, or click its row above') })));
    }
    this.picker.value = selected;
    if (selected !== this.worker) {
      this.worker = selected;
      this.receipts = [];
      this.total = 0;
      this.readEpochs = -1;
      this.show();
    }
    if (selected && picture.epochs_closed !== this.readEpochs) {
      this.readEpochs = picture.epochs_closed;
      void this.read();
    }
  }

  dispose(): void {
    this.request += 1;
  }

  /** The newest page, or what is older than the epoch `before`, which may itself have been cut: it is read again. */
  private async read(before?: number): Promise<void> {
    const { trans, source } = this.context;
    const request = (this.request += 1);
    const worker = this.worker;
    if (!this.receipts.length) {
      this.told.update(trans.__('reading the receipts of %1…', worker), 'coming');
    }
    try {
      const page = await source.receipts(worker, PAGE, before === undefined ? undefined : before + 1);
      if (request !== this.request) {
        return;
      }
      const known = new Set((before === undefined ? [] : this.receipts).map(sign));
      const fresh = page.receipts.filter(receipt => !known.has(sign(receipt)));
      const isEnd = before !== undefined && fresh.length === 0;
      this.receipts = before === undefined ? page.receipts : [...this.receipts, ...fresh];
      this.total = isEnd ? this.receipts.length : page.total;
      this.told.update(this.receipts.length ? '' : trans.__('%1 has no receipts yet: they are written when its neighbours have counter-signed.', worker));
    } catch (error) {
      if (request !== this.request) {
        return;
      }
      this.told.update(messageOf(error), 'trouble');
    }
    this.show();
  }

  private show(): void {
    const { trans } = this.context;
    const signers = signersOf(this.receipts);
    this.table.hidden = !this.receipts.length;
    this.summary.hidden = !this.receipts.length;
    this.more.hidden = this.receipts.length >= this.total;
    if (!this.worker) {
      this.told.update('');
    }
    const tones = this.picture ? tonesOf(this.picture) : new Map<string, number>();
    this.summary.replaceChildren(
      el('span', {
        class: 'plab-muted',
        text:
          this.receipts.length < this.total
            ? trans.__('Newest %1 of %2 receipts, counter-signed by', this.receipts.length, this.total)
            : trans._n('%1 receipt, counter-signed by', '%1 receipts, counter-signed by', this.receipts.length)
      }),
      ...signers.map(signer => {
        const mark = swatch();
        mark.update(tones.get(signer.participant) ?? 7);
        return el('span', { class: 'plab-signer' }, mark.node, trans.__('%1 (%2): %3', signer.name, signer.participant, signer.receipts));
      })
    );
    this.body.replaceChildren(...this.receipts.map(receipt => this.row(receipt, tones)));
  }

  private row(receipt: Receipt, tones: ReadonlyMap<string, number>): HTMLElement {
    const mark = swatch();
    mark.update(tones.get(receipt.signer_participant) ?? 7);
    const digest = el('td', { class: 'plab-mono', title: receipt.digest });
    setText(digest, shortHex(receipt.digest));
    return el(
      'tr',
      {},
      el('th', { scope: 'row', text: String(receipt.epoch) }),
      el('td', { text: String(receipt.round) }),
      el('td', { text: this.kindWord(receipt.kind) }),
      el('td', {}, mark.node, ` ${receipt.signer} `, el('span', { class: 'plab-muted', text: receipt.signer_participant })),
      el('td', { text: si(receipt.tokens) }),
      el('td', { text: String(receipt.micro_batches) }),
      el('td', { text: precise(receipt.norm) }),
      el('td', { text: fixed(receipt.agreement, 3) }),
      digest
    );
  }

  private kindWord(kind: Receipt['kind']): string {
    const { trans } = this.context;
    switch (kind) {
      case 'forward':
        return trans.__('forward');
      case 'backward':
        return trans.__('backward');
      case 'contribution':
        return trans.__('weight gradient');
    }
  }
}

function sign(receipt: Receipt): string {
  return `${receipt.epoch} ${receipt.round} ${receipt.kind} ${receipt.signer} ${receipt.digest}`;
}
