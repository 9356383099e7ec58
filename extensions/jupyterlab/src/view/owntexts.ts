/** The texts that participants brought along: whose, how large, how much of the training was drawn from each. */

import type { RunPicture } from '../api/types';
import { tonesOf } from './contributionsmodel';
import { el, percent, si } from './core';
import type { PaneContext } from './pane';
import { section, swatch } from './parts';

export class OwnTexts {
  readonly node: HTMLElement;
  private readonly rows = el('tbody');
  private shown = '';

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    const heads = [trans.__('Participant'), trans.__('Worker'), trans.__('Text'), trans.__('Size'), trans.__('Drawn'), trans.__('Of all tokens')];
    this.node = section(
      trans.__('Texts of their own'),
      el('p', { class: 'plab-muted plab-tight', text: trans.__('Brought along by workers of stage 0; what was drawn is counted by stage 1. Every stage can read it, as token ids.') }),
      el(
        'div',
        { class: 'plab-scroll' },
        el(
          'table',
          { class: 'plab-table' },
          el('thead', {}, el('tr', {}, ...heads.map((text, i) => el('th', { scope: 'col', text, class: i > 2 ? 'plab-number' : null })))),
          this.rows
        )
      )
    );
    this.node.hidden = true;
  }

  draw(picture: RunPicture): void {
    const { trans } = this.context;
    const texts = picture.own_texts ?? [];
    this.node.hidden = texts.length === 0;
    const shown = JSON.stringify(texts);
    if (shown === this.shown) {
      return;
    }
    this.shown = shown;
    const tones = tonesOf(picture);
    this.rows.replaceChildren(
      ...texts.map(text => {
        const tone = swatch();
        tone.update(tones.get(text.participant) ?? 7);
        const figures = [trans.__('%1 tokens', si(text.size)), trans.__('%1 tokens', si(text.tokens)), percent(text.share)];
        return el(
          'tr',
          {},
          el('th', { scope: 'row' }, el('span', { class: 'plab-owned-by' }, tone.node, el('span', { text: text.participant }))),
          el('td', { text: text.worker }),
          el('td', { text: text.corpus, title: trans.__('SHA-256 %1', text.hash) }),
          ...figures.map(figure => el('td', { class: 'plab-number', text: figure }))
        );
      })
    );
  }
}
