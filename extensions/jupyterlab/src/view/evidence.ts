/** The Evidence pane: what was signed, and an audit of it. */

import type { AuditReply, Finding, RunPicture } from '../api/types';
import { duration, el, keyed, NOT_KNOWN, percent, setAttributes, setText, si } from './core';
import { differs, type EpochRow, epochRows, isOutdated, shareRows } from './evidencemodel';
import { shortHex } from './money';
import { hasOwnership } from './ownershipmodel';
import type { Pane, PaneContext, PaneKind } from './pane';
import { button, figure, messageOf, note, section } from './parts';

export const evidence: PaneKind = {
  id: 'evidence',
  title: trans => trans.__('Evidence'),
  caption: trans => trans.__('Signed epochs, and an audit that computes the shares again'),
  place: 'above',
  isShown: hasOwnership,
  create: context => new EvidencePane(context)
};

class EvidencePane implements Pane {
  readonly node: HTMLElement;
  private readonly run: HTMLButtonElement;
  private readonly progress: HTMLProgressElement;
  private readonly doing = el('span', { class: 'plab-muted', role: 'status' });
  private readonly trouble = note();
  private readonly verdict: HTMLElement;
  private readonly verdictMark = el('span', { class: 'plab-verdict-mark', 'aria-hidden': 'true' });
  private readonly verdictText = el('span');
  private readonly outdated = note();
  private readonly figures;
  private readonly numbers: HTMLElement;
  private readonly findings: HTMLElement;
  private readonly shares: HTMLElement;
  private readonly epochs = el('tbody');
  private readonly epochsNote = note();
  private audit: AuditReply | null = null;
  private begun: number | null = null;
  private timer = 0;
  private isDisposed = false;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    this.run = button(trans.__('Run the audit'), () => void this.runAudit(), 'main');
    this.run.title = trans.__('Check every signature and compute every share again, from the evidence alone');
    this.progress = el('progress', { class: 'plab-audit-progress', 'aria-label': trans.__('Audit') });
    this.progress.hidden = true;
    this.verdict = el('div', { class: 'plab-verdict', role: 'status' }, this.verdictMark, this.verdictText);
    this.verdict.hidden = true;
    this.figures = {
      epochs: figure(trans.__('epochs')),
      statements: figure(trans.__('signed statements')),
      attestations: figure(trans.__('attestations'), trans.__('Signatures of attesters under the roots of the epochs')),
      unpaid: figure(trans.__('unattested work'), trans.__('Tokens of work that no neighbour counter-signed: they are not paid')),
      seconds: figure(trans.__('took'))
    };
    this.numbers = el('div', { class: 'plab-figures' }, ...Object.values(this.figures).map(box => box.node));
    this.numbers.hidden = true;
    this.findings = el('div', { class: 'plab-findings' });
    this.shares = el('div');
    const heads = [
      trans.__('Epoch'),
      trans.__('Rounds'),
      trans.__('Root'),
      trans.__('Statements'),
      trans.__('Unattested tokens'),
      trans.__('Attested by')
    ];
    this.node = el(
      'div',
      { class: 'plab-evidence-pane' },
      el('div', { class: 'plab-tools' }, this.run, this.progress, this.doing),
      this.trouble.node,
      this.verdict,
      this.outdated.node,
      this.numbers,
      this.findings,
      this.shares,
      section(
        trans.__('Epochs'),
        this.epochsNote.node,
        el(
          'div',
          { class: 'plab-scroll', tabindex: '0', role: 'group', 'aria-label': trans.__('Epochs') },
          el('table', { class: 'plab-table' }, el('thead', {}, el('tr', {}, ...heads.map(text => el('th', { scope: 'col', text })))), this.epochs)
        )
      )
    );
  }

  draw(picture: RunPicture): void {
    const { trans, ledger } = this.context;
    ledger.want(picture);
    this.epochsNote.update(ledger.problem ? trans.__('Roots cannot be read: %1', ledger.problem) : '', 'trouble');
    keyed(
      this.epochs,
      epochRows(picture, ledger.value),
      row => row.epoch,
      () => this.epochRow()
    );
    this.drawAudit(picture);
  }

  dispose(): void {
    this.isDisposed = true;
    window.clearInterval(this.timer);
  }

  private epochRow(): { node: HTMLElement; update(row: EpochRow): void } {
    const head = el('th', { scope: 'row' });
    const [rounds, statements, unpaid, attested] = [el('td'), el('td'), el('td'), el('td')];
    const root = el('td', { class: 'plab-mono' });
    return {
      node: el('tr', {}, head, rounds, root, statements, unpaid, attested),
      update: row => {
        setText(head, String(row.epoch));
        setText(rounds, `${row.from}–${row.to}`);
        setText(root, row.root ? shortHex(row.root) : NOT_KNOWN);
        setAttributes(root, { title: row.root || null });
        setText(statements, si(row.statements));
        setText(unpaid, row.unpaid === null ? NOT_KNOWN : si(row.unpaid));
        setText(attested, row.attestedBy.length ? row.attestedBy.join(', ') : this.context.trans.__('nobody yet'));
      }
    };
  }

  private drawAudit(picture: RunPicture): void {
    const { trans, ledger } = this.context;
    const { audit } = this;
    this.verdict.hidden = this.numbers.hidden = !audit;
    if (!audit) {
      return;
    }
    setAttributes(this.verdict, { class: `plab-verdict ${audit.ok ? 'plab-verdict-good' : 'plab-verdict-bad'}` });
    setText(this.verdictMark, audit.ok ? '✓' : '✕');
    setText(this.verdictText, audit.verdict);
    this.outdated.update(
      isOutdated(audit, picture)
        ? trans._n('%1 epoch was closed since: run the audit again.', '%1 epochs were closed since: run the audit again.', picture.epochs_closed - audit.epochs)
        : ''
    );
    const { figures } = this;
    figures.epochs.update(String(audit.epochs), '');
    figures.statements.update(si(audit.statements), '');
    figures.attestations.update(si(audit.attestations), '');
    figures.unpaid.update(si(Number(audit.unattested_units)), '');
    figures.seconds.update(duration(audit.seconds), '');
    const rows = shareRows(audit, picture, ledger.value);
    const hasRecord = rows.some(row => row.recorded !== null);
    const heads = [trans.__('Participant'), trans.__('Recomputed'), ...(hasRecord ? [trans.__('Recorded'), ''] : [])];
    this.shares.replaceChildren(
      section(
        trans.__('Shares, computed again from the statements'),
        el(
          'table',
          { class: 'plab-table' },
          el('thead', {}, el('tr', {}, ...heads.map(text => el('th', { scope: 'col', text })))),
          el(
            'tbody',
            {},
            ...rows.map(row =>
              el(
                'tr',
                {},
                el('th', { scope: 'row', text: row.participant }),
                el('td', { text: percent(row.recomputed) }),
                ...(hasRecord
                  ? [el('td', { text: percent(row.recorded) }), el('td', { text: differs(row) ? trans.__('✕ differs') : trans.__('✓ the same') })]
                  : [])
              )
            )
          )
        )
      )
    );
  }

  private async runAudit(): Promise<void> {
    const { trans, source } = this.context;
    this.run.disabled = true;
    this.progress.hidden = false;
    this.trouble.update('');
    this.begun = performance.now();
    this.tick();
    this.timer = window.setInterval(() => this.tick(), 500);
    try {
      this.audit = await source.audit();
      if (this.isDisposed) {
        return;
      }
      this.findings.replaceChildren(
        ...this.list(trans.__('Findings'), this.audit.findings, 'plab-finding'),
        ...this.list(trans.__('Notes'), this.audit.notes, 'plab-remark')
      );
    } catch (error) {
      this.trouble.update(messageOf(error), 'trouble');
    } finally {
      window.clearInterval(this.timer);
      this.begun = null;
      this.run.disabled = false;
      this.progress.hidden = true;
      setText(this.run, this.audit ? trans.__('Run the audit again') : trans.__('Run the audit'));
      setText(this.doing, '');
    }
    this.context.redraw();
  }

  private tick(): void {
    if (this.begun !== null) {
      setText(this.doing, this.context.trans.__('checking signatures and computing shares: %1', duration((performance.now() - this.begun) / 1000)));
    }
  }

  private list(title: string, findings: readonly Finding[], kind: string): HTMLElement[] {
    const { trans } = this.context;
    if (!findings.length) {
      return [];
    }
    return [
      section(
        `${title} (${findings.length})`,
        el(
          'ul',
          { class: `plab-finding-list ${kind}` },
          ...findings.map(finding =>
            el(
              'li',
              {},
              el('strong', { text: finding.kind }),
              ` ${[...new Set([finding.epoch === null ? '' : trans.__('epoch %1', finding.epoch), finding.subject])].filter(Boolean).join(', ')}`,
              el('div', { class: 'plab-muted', text: finding.detail })
            )
          )
        )
      )
    ];
  }
}
