/** The questions about an invitation: for how many workers, where, how long; with what it gives them. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { el } from '@pluralis-lab/views/dom.js';

import type { NewInvitation } from '../api/client';
import type { RunRow } from '../api/types';
import type { Asking } from '../asking/dialog';
import { fill, labelled, type Option, Outcome } from '../asking/fields';
import { hourOptions, isLoopback, reachText } from './model';

export class InviteForm extends Widget implements Asking<NewInvitation> {
  constructor(trans: TranslationBundle, row: Pick<RunRow, 'name' | 'host'>, seats: number) {
    super();
    this.addClass('plab-asking');
    this.addClass('plab-invite');
    this.seats.value = String(seats);
    fill(this.hours, hourOptions(trans), '24');
    this.node.append(
      el('p', {
        text: trans.__(
          'Whoever has its text may bring a worker into run %1. It gets the weights of one stage and takes part; what it does is its own account’s. It can command nothing, and is sent no corpus.',
          row.name
        )
      }),
      el(
        'div',
        { class: 'plab-asking-fields' },
        ...labelled(trans.__('Seats'), this.seats, el('p', { class: 'plab-about', text: trans.__('How many workers may come with it.') })),
        ...labelled(trans.__('Stage'), this.stage),
        ...labelled(trans.__('Holds for'), this.hours, el('p', { class: 'plab-about', text: trans.__('It cannot be taken back. Who has come stays.') }))
      ),
      el('p', { class: 'plab-reach', text: row.host ? reachText(row.host, isLoopback(row.host), trans) : '' }),
      ...this.outcome.nodes
    );
  }

  get value(): NewInvitation {
    const wanted: NewInvitation = { seats: Number(this.seats.value), for_hours: Number(this.hours.value) };
    if (this.stage.value) {
      wanted.stage = Number(this.stage.value);
    }
    return wanted;
  }

  setStages(options: Option[], wanted = ''): void {
    fill(this.stage, options, wanted);
  }

  busy(text: string): void {
    this.outcome.busy(text);
  }

  refuse(text: string): void {
    this.outcome.refuse(text);
  }

  private readonly seats = el('input', { type: 'number', class: 'jp-mod-styled', min: '1', max: '1024', step: '1' });
  private readonly stage = el('select', { class: 'jp-mod-styled' });
  private readonly hours = el('select', { class: 'jp-mod-styled' });
  private readonly outcome = new Outcome();
}
