/** The question before money moves: what, how much, to whom; "cancel" has the focus. */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { el } from './core';

export interface Question {
  title: string;
  /** One sentence that says what will happen. */
  says: string;
  /** Label and value of each fact, in order: amount, payer, chain. */
  facts: [string, string][];
  /** Who gets how much; at most so many are listed, the others are counted. */
  recipients: { name: string; account: string; amount: string }[];
  warning: string;
  accept: string;
}

const MOST = 12;

export async function confirmed(question: Question, trans: TranslationBundle): Promise<boolean> {
  const listed = question.recipients.slice(0, MOST);
  const rest = question.recipients.length - listed.length;
  const node = el(
    'div',
    { class: 'plab-confirm' },
    el('p', { text: question.says }),
    el('dl', {}, ...question.facts.flatMap(([label, value]) => [el('dt', { text: label }), el('dd', { text: value })]))
  );
  if (listed.length) {
    node.append(
      el(
        'table',
        { class: 'plab-table' },
        el(
          'thead',
          {},
          el('tr', {}, ...[trans.__('Recipient'), trans.__('Account'), trans.__('Amount')].map(text => el('th', { scope: 'col', text })))
        ),
        el(
          'tbody',
          {},
          ...listed.map(one =>
            el('tr', {}, el('th', { scope: 'row', text: one.name }), el('td', { class: 'plab-mono', text: one.account }), el('td', { text: one.amount }))
          )
        )
      )
    );
  }
  if (rest > 0) {
    node.append(el('p', { text: trans._n('and %1 more', 'and %1 more', rest) }));
  }
  if (question.warning) {
    node.append(el('p', { class: 'plab-confirm-warning', text: question.warning }));
  }
  const result = await showDialog({
    title: question.title,
    body: new Widget({ node }),
    buttons: [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.warnButton({ label: question.accept })],
    defaultButton: 0
  });
  return result.button.accept;
}
