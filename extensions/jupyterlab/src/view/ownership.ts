/** The Ownership pane: who owns the model, what it earned, and what can be done about it. */

import type { Ownership, RunPicture } from '../api/types';
import { confirmed } from './confirm';
import { el, keyed, NOT_KNOWN, percent, setAttributes, setText, stackedChart } from './core';
import { ether, readAmount, shortHex, split, wei } from './money';
import { type Deed, deedsOf, hasOwnership, type HolderRow, holderRows, obstacleOf, ownedStream } from './ownershipmodel';
import type { Pane, PaneContext, PaneKind } from './pane';
import { asTable, button, figure, messageOf, note, section, swatch } from './parts';

export const ownership: PaneKind = {
  id: 'ownership',
  title: trans => trans.__('Ownership'),
  caption: trans => trans.__('Shares, holders, revenue and claims'),
  place: 'above',
  isShown: hasOwnership,
  create: context => new OwnershipPane(context)
};

class OwnershipPane implements Pane {
  readonly node: HTMLElement;
  private readonly state = note();
  private readonly result = note();
  private readonly figures;
  private readonly numbers: HTMLElement;
  private readonly chart;
  private readonly table;
  private readonly chain = el('dl', { class: 'plab-facts' });
  private readonly holders = el('tbody');
  private readonly holdersHead = el('tr');
  private readonly deeds: HTMLElement;
  private readonly account: HTMLSelectElement;
  private readonly amount: HTMLInputElement;
  private readonly amountNote = el('span', { class: 'plab-muted', role: 'status' });
  private readonly payForm: HTMLFormElement;
  private readonly tokenize: HTMLButtonElement;
  private readonly claim: HTMLButtonElement;
  private busy = false;
  private picture: RunPicture | null = null;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    this.figures = {
      paid: figure(trans.__('revenue'), trans.__('Everything that was paid to the owners')),
      claimed: figure(trans.__('claimed'), trans.__('What owners have taken out')),
      claimable: figure(trans.__('claimable'), trans.__('What owners can take out now')),
      supply: figure(trans.__('tokens'), trans.__('Tokens that exist: those of the epochs that the ledger has finalized')),
      epochs: figure(trans.__('epochs on the chain'), trans.__('Posted to the ledger, and past the time in which they can be challenged'))
    };
    this.numbers = el('div', { class: 'plab-figures' }, ...Object.values(this.figures).map(box => box.node));
    this.chart = stackedChart({ title: trans.__('Ownership over the epochs'), unit: trans.__('share of all tokens given out so far'), height: 190 });
    this.table = asTable(trans.__('As a table'), () => this.rows());
    this.account = el('select', { class: 'plab-select', 'aria-label': trans.__('Account that pays or claims') });
    this.amount = el('input', {
      type: 'text',
      inputmode: 'decimal',
      class: 'plab-search plab-amount',
      placeholder: '0.5',
      'aria-label': trans.__('Amount in ETH')
    });
    this.amount.addEventListener('input', () => this.drawAmount());
    const pay = el('button', { type: 'submit', class: 'plab-button plab-main', text: trans.__('Pay…') });
    this.payForm = el('form', { class: 'plab-tools' }, el('label', { text: trans.__('Pay the owners') }), this.amount, el('span', { text: 'ETH' }), pay, this.amountNote);
    this.payForm.addEventListener('submit', event => {
      event.preventDefault();
      void this.pay();
    });
    this.tokenize = button(trans.__('Tokenize…'), () => void this.makeToken(), 'main');
    this.claim = button(trans.__('Claim…'), () => void this.takeOut());
    this.deeds = el(
      'div',
      { class: 'plab-deeds' },
      el('div', { class: 'plab-tools' }, el('label', { class: 'plab-check' }, trans.__('as'), this.account), this.tokenize, this.claim),
      this.payForm
    );
    this.node = el(
      'div',
      { class: 'plab-ownership-pane' },
      this.state.node,
      this.numbers,
      this.deeds,
      this.result.node,
      this.chart.node,
      this.table.node,
      section(
        trans.__('Holders'),
        el('div', { class: 'plab-scroll', tabindex: '0', role: 'group', 'aria-label': trans.__('Holders') }, el('table', { class: 'plab-table' }, el('thead', {}, this.holdersHead), this.holders))
      ),
      section(trans.__('Chain'), this.chain)
    );
  }

  draw(picture: RunPicture): void {
    const { trans, ledger } = this.context;
    this.picture = picture;
    ledger.want(picture);
    const value = ledger.value;
    const readOnly = this.context.readOnly();
    const obstacle = value ? obstacleOf(value, readOnly) : null;
    this.state.update(
      ledger.problem
        ? trans.__('The state of the chain cannot be read: %1', ledger.problem)
        : !value
          ? trans.__('reading the state of the chain…')
          : obstacle === 'unreachable'
            ? trans.__('The chain does not answer: %1', value.problem)
            : obstacle === 'no-chain'
              ? trans.__('This run was launched without a chain: the shares below are signed, but no token stands for them.')
              : obstacle === 'read-only'
                ? trans.__('This server is read-only: it pays and claims nothing.')
                : obstacle === 'no-account'
                  ? trans.__('You cannot pay or claim here: %1', value.problem || trans.__('no account of this home is unlocked for this chain'))
                  : value.state === 'untokenized'
                    ? trans.__('Not tokenized yet: the epochs are signed; tokenizing deploys the token and posts them.')
                    : '',
      ledger.problem || obstacle === 'unreachable' ? 'trouble' : !value ? 'coming' : 'info'
    );
    this.drawFigures(value);
    const stream = ownedStream(picture, value, trans.__('others'));
    this.chart.update({ ...stream, whole: true, axis: { name: trans.__('epoch'), whole: true, format: String }, format: percent });
    this.table.update();
    this.drawHolders(picture, value);
    this.drawDeeds(value, readOnly);
    this.drawChain(value);
  }

  dispose(): void {
    this.chart.destroy();
  }

  private drawFigures(value: Ownership | null): void {
    const { trans } = this.context;
    const token = value?.token ?? null;
    this.numbers.hidden = !token;
    if (!token) {
      return;
    }
    const { figures } = this;
    figures.paid.update(trans.__('%1 ETH', ether(token.paid_wei)), '');
    figures.claimed.update(trans.__('%1 ETH', ether(token.claimed_wei)), '');
    figures.claimable.update(
      trans.__('%1 ETH', ether(token.claimable_wei)),
      wei(token.dust_wei) > 0n ? trans.__('%1 wei cannot be divided', wei(token.dust_wei).toString()) : ''
    );
    figures.supply.update(ether(token.supply_wei, 2), `${token.symbol}, ${token.name}`);
    figures.epochs.update(trans.__('%1 posted', token.epochs_posted), trans.__('%1 finalized', token.epochs_finalized));
  }

  private drawHolders(picture: RunPicture, value: Ownership | null): void {
    const { trans } = this.context;
    const rows = holderRows(picture, value);
    const hasToken = Boolean(value?.token);
    const heads = [
      trans.__('Holder'),
      trans.__('Share'),
      ...(hasToken ? [trans.__('Account'), trans.__('Claimable'), trans.__('Claimed')] : [])
    ];
    if (this.holdersHead.childElementCount !== heads.length) {
      this.holdersHead.replaceChildren(...heads.map(text => el('th', { scope: 'col', text })));
    }
    keyed(
      this.holders,
      rows,
      row => `${hasToken} ${row.account} ${row.name}`,
      () => {
        const tone = swatch();
        const name = el('span');
        const ours = el('span', { class: 'plab-muted' });
        const fill = el('span', { class: 'plab-bar-fill' });
        const share = el('span', { class: 'plab-value' });
        const rest = hasToken ? [el('td', { class: 'plab-mono' }), el('td'), el('td')] : [];
        return {
          node: el(
            'tr',
            {},
            el('th', { scope: 'row' }, tone.node, ' ', name, ours),
            el('td', {}, el('span', { class: 'plab-bar', 'aria-hidden': 'true' }, fill), share),
            ...rest
          ),
          update: (row: HolderRow) => {
            tone.update(row.tone);
            setText(name, row.name);
            setText(ours, row.isOurs ? ` ${trans.__('(an account here)')}` : '');
            fill.style.width = `${100 * row.share}%`;
            fill.className = `plab-bar-fill plab-fill-${row.tone}`;
            setText(share, percent(row.share));
            const [account, claimable, claimed] = rest;
            if (account && claimable && claimed) {
              setText(account, shortHex(row.account));
              setAttributes(account, { title: row.account });
              setText(claimable, trans.__('%1 ETH', ether(row.claimable_wei)));
              setText(claimed, trans.__('%1 ETH', ether(row.claimed_wei)));
            }
          }
        };
      }
    );
  }

  private drawDeeds(value: Ownership | null, readOnly: boolean): void {
    const deeds = new Set<Deed>(value ? deedsOf(value, readOnly) : []);
    this.deeds.hidden = deeds.size === 0;
    this.tokenize.hidden = !deeds.has('tokenize');
    this.claim.hidden = !deeds.has('claim');
    this.payForm.hidden = !deeds.has('pay');
    for (const control of [this.tokenize, this.claim, this.amount, this.account, ...this.payForm.querySelectorAll('button')]) {
      control.disabled = this.busy;
    }
    const names = value?.accounts ?? [];
    if (this.account.options.length !== names.length || names.some((name, i) => this.account.options[i]?.value !== name)) {
      this.account.replaceChildren(...names.map(name => el('option', { value: name, text: name })));
    }
  }

  private drawChain(value: Ownership | null): void {
    const { trans } = this.context;
    (this.chain.parentElement as HTMLElement).hidden = !value;
    if (!value) {
      return;
    }
    const words: Record<Ownership['state'], string> = {
      none: trans.__('no chain'),
      untokenized: trans.__('not tokenized'),
      tokenized: trans.__('tokenized'),
      unreachable: trans.__('does not answer')
    };
    const facts: [string, string, string][] = [
      [trans.__('State'), words[value.state], ''],
      [trans.__('Chain'), value.chain.kind === 'embedded' ? trans.__('embedded (of this home)') : value.chain.kind, ''],
      [trans.__('Chain id'), value.chain.chain_id === null ? NOT_KNOWN : String(value.chain.chain_id), ''],
      [trans.__('Ledger'), value.chain.ledger ?? NOT_KNOWN, 'plab-mono'],
      [trans.__('Token'), value.chain.token ?? NOT_KNOWN, 'plab-mono']
    ];
    const shown = facts.filter(([, text]) => text !== NOT_KNOWN);
    this.chain.replaceChildren(...shown.flatMap(([label, text, kind]) => [el('dt', { text: label }), el('dd', { class: kind || null, text })]));
  }

  private drawAmount(): void {
    const { trans } = this.context;
    const amount = readAmount(this.amount.value);
    const holders = this.context.ledger.value?.token?.holders ?? [];
    if (amount.ok) {
      const parts = split(amount.wei, holders).filter(one => one.wei > 0n).slice(0, 3);
      setText(this.amountNote, parts.map(one => trans.__('%1: %2', one.name, ether(one.wei.toString()))).join(', '));
    } else {
      setText(
        this.amountNote,
        amount.why === 'empty'
          ? ''
          : amount.why === 'zero'
            ? trans.__('nothing is not paid')
            : amount.why === 'fine'
              ? trans.__('ETH has 18 decimals at most')
              : trans.__('an amount such as 0.5')
      );
    }
    this.amount.setAttribute('aria-invalid', amount.ok || amount.why === 'empty' ? 'false' : 'true');
  }

  private async pay(): Promise<void> {
    const { trans, source, ledger } = this.context;
    const amount = readAmount(this.amount.value);
    const value = ledger.value;
    if (!amount.ok) {
      this.drawAmount();
      if (amount.why === 'empty') {
        setText(this.amountNote, trans.__('type an amount such as 0.5'));
      }
      this.amount.focus();
      return;
    }
    if (this.busy || !value?.token) {
      return;
    }
    const accounts = new Map(value.token.holders.map(holder => [holder.name, holder.account]));
    const isYes = await confirmed(
      {
        title: trans.__('Pay the owners of this model?'),
        says: trans.__('%1 ETH go from “%2” to the token’s contract, which divides them over the holders; each claims their part.', amount.text, this.account.value),
        facts: [
          [trans.__('Amount'), trans.__('%1 ETH', amount.text)],
          [trans.__('From'), this.account.value],
          [trans.__('To'), value.chain.token ?? value.token.name]
        ],
        recipients: split(amount.wei, value.token.holders)
          .filter(one => one.wei > 0n)
          .map(one => ({ name: one.name, account: shortHex(accounts.get(one.name) ?? ''), amount: trans.__('%1 ETH', ether(one.wei.toString(), 6)) })),
        warning: trans.__('A payment cannot be taken back.'),
        accept: trans.__('Pay %1 ETH', amount.text)
      },
      trans
    );
    if (isYes) {
      await this.do(trans.__('paying…'), async () => {
        const paid = await source.pay(amount.text, this.account.value || undefined);
        this.amount.value = '';
        setText(this.amountNote, '');
        return trans.__('%1 ETH paid by %2 in block %3 (%4).', ether(paid.wei, 6), paid.account, paid.block, shortHex(paid.transaction));
      });
    }
  }

  private async takeOut(): Promise<void> {
    const { trans, source, ledger } = this.context;
    const token = ledger.value?.token;
    if (this.busy || !token) {
      return;
    }
    // A claim is made for one account: what is due to the others stays theirs to claim, and is not in the question.
    const account = this.account.value;
    const due = token.holders.filter(holder => holder.name === account && wei(holder.claimable_wei) > 0n);
    const sum = due.reduce((total, holder) => total + wei(holder.claimable_wei), 0n);
    const isYes = await confirmed(
      {
        title: trans.__('Claim the revenue?'),
        says: trans.__('What is due to “%1” goes to its account, which also sends the transaction.', account),
        facts: [
          [trans.__('Amount'), trans.__('%1 ETH', ether(sum.toString(), 6))],
          [trans.__('Sent by'), account]
        ],
        recipients: due.map(holder => ({ name: holder.name, account: shortHex(holder.account), amount: trans.__('%1 ETH', ether(holder.claimable_wei, 6)) })),
        warning: '',
        accept: trans.__('Claim')
      },
      trans
    );
    if (isYes) {
      await this.do(trans.__('claiming…'), async () => {
        const { claims } = await source.claim(account || undefined);
        return claims.length
          ? claims.map(one => trans.__('%1 ETH went to %2.', ether(one.wei, 6), one.name || shortHex(one.account))).join(' ')
          : trans.__('There was nothing to claim.');
      });
    }
  }

  private async makeToken(): Promise<void> {
    const { trans, source, ledger } = this.context;
    const value = ledger.value;
    if (this.busy || !value || !this.picture) {
      return;
    }
    const isYes = await confirmed(
      {
        title: trans.__('Tokenize this model?'),
        says: trans.__('“%1” deploys the token and its ledger, and posts the signed epochs. The run is bound to this chain from then on.', this.account.value),
        facts: [
          [trans.__('Epochs'), String(this.picture.epochs_closed)],
          [trans.__('Chain'), value.chain.chain_id === null ? value.chain.kind : `${value.chain.kind}, ${value.chain.chain_id}`],
          [trans.__('Deployed by'), this.account.value]
        ],
        recipients: holderRows(this.picture, value).map(row => ({ name: row.name, account: shortHex(row.account), amount: percent(row.share) })),
        warning: trans.__('This cannot be undone.'),
        accept: trans.__('Tokenize')
      },
      trans
    );
    if (isYes) {
      await this.do(trans.__('deploying the token and posting the epochs…'), async () => {
        ledger.set(await source.tokenize(this.account.value || undefined));
        return trans.__('The model is tokenized.');
      });
    }
  }

  /** One deed at a time; the state of the chain is read again after it, however it ended. */
  private async do(doing: string, deed: () => Promise<string>): Promise<void> {
    this.busy = true;
    this.result.update(doing, 'coming');
    this.context.redraw();
    try {
      this.result.update(await deed(), 'good');
    } catch (error) {
      this.result.update(messageOf(error), 'trouble');
    }
    await this.context.ledger.reload();
    this.busy = false;
    this.context.redraw();
  }

  private rows(): { heads: string[]; rows: string[][] } {
    const { trans, ledger } = this.context;
    const { picture } = this;
    if (!picture) {
      return { heads: [], rows: [] };
    }
    const stream = ownedStream(picture, ledger.value, trans.__('others'));
    const total = (i: number): number => stream.layers.reduce((sum, layer) => sum + (layer.y[i] ?? 0), 0);
    return {
      heads: [trans.__('Epoch'), ...stream.layers.map(layer => layer.name)],
      rows: stream.x.map((epoch, i) => [String(epoch), ...stream.layers.map(layer => percent((layer.y[i] ?? 0) / (total(i) || 1)))]).reverse()
    };
  }
}
