/**
 * Makes an invitation to a run and shows it.
 *
 * Its text is a secret: it is in the dialog that shows it and, when asked for, in the clipboard; in no notification, log, setting
 * or address, and not in the page once the dialog is closed.
 */

import { Clipboard, Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';

import type { Invited, RunRow } from '../api/types';
import { AskingDialog } from '../asking/dialog';
import { stageOptions } from '../attach/options';
import { button } from '../panel/button';
import type { ILab } from '../tokens';
import { InviteForm } from './form';
import { holdsText, joinLine, reachText } from './model';

/** Ask for how many the invitation to the run of `row` is, make it, show it. */
export async function askAndInvite({ api, trans }: Pick<ILab, 'api' | 'trans'>, row: RunRow, wanted: { seats?: number; stage?: number }): Promise<void> {
  const form = new InviteForm(trans, row, wanted.seats ?? 1);
  form.setStages(stageOptions(row.stages, null, trans), wanted.stage === undefined ? '' : String(wanted.stage));
  void api
    .picture(row.id, null, 8)
    .then(({ picture }) => form.setStages(stageOptions(row.stages, picture?.workers ?? null, trans)))
    .catch((error: unknown) => console.warn('pluralis-lab:', error));
  const question = { title: trans.__('Invite workers'), accept: trans.__('Make the invitation'), busy: trans.__('Making it…') };
  let made: Invited | null = null;
  const dialog = new AskingDialog(
    form,
    question,
    async asked => {
      made = await api.invite(row.id, asked);
    },
    trans
  );
  await dialog.launch();
  if (made) {
    await showInvitation(made, row.name, trans);
  }
}

async function showInvitation(made: Invited, name: string, trans: TranslationBundle): Promise<void> {
  const copied = el('p', { class: 'plab-asking-status', role: 'status' });
  const shown = (label: string, text: string, rows: number, said: string): HTMLElement => {
    const field = el('textarea', { class: 'plab-secret', readonly: true, rows, spellcheck: 'false', 'aria-label': label });
    field.value = text;
    field.addEventListener('focus', () => field.select());
    const copy = button(trans.__('Copy'), 'plab-copy', () => {
      Clipboard.copyToSystem(text);
      setText(copied, said);
    });
    copy.setAttribute('aria-label', trans.__('Copy: %1', label));
    return el('div', { class: 'plab-secret-row' }, el('div', { class: 'plab-secret-head' }, el('span', { text: label }), copy), field);
  };
  const body = new Widget();
  body.addClass('plab-asking');
  body.addClass('plab-invitation');
  body.node.append(
    el('p', { text: holdsText(made, undefined, trans) }),
    shown(trans.__('The invitation'), made.invitation, 4, trans.__('✓ The invitation is in the clipboard.')),
    shown(trans.__('In a shell of the machine that joins'), joinLine(made.invitation), 1, trans.__('✓ The line is in the clipboard.')),
    copied,
    el('p', { class: 'plab-about', text: trans.__('pluralis-lab join - reads the text from standard input: then it is not in the history of that shell.') }),
    el('p', { class: 'plab-reach', text: reachText(`${made.host}:${made.port}`, made.is_local, trans) }),
    el('p', {
      class: 'plab-warning',
      text: trans.__('⚠ It is a secret: hand it over as you would a password. It is shown here only, and kept in no log, event, setting or address; closed, it is gone.')
    })
  );
  await showDialog({
    title: trans.__('An invitation to %1', name),
    body,
    buttons: [Dialog.okButton({ label: trans.__('Close') })],
    focusNodeSelector: '.plab-copy'
  });
}
