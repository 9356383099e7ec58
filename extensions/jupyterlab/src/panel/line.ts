/** One run in the list: state, name, progress, figures. Two lines of text, no control inside, so that it can be an option. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { el, setAttributes, setText } from '@pluralis-lab/views/dom.js';
import { sparkline } from '@pluralis-lab/views/sparkline.js';

import type { RunRow } from '../api/types';
import { ageText, figures, isLive, rowLabel, stateMark, stateText } from '../runs/rows';

export interface LineState {
  isChosen: boolean;
  isTicked: boolean;
  now_s: number;
  trail: { x: number[]; y: (number | null)[] } | undefined;
}

export function runLine(trans: TranslationBundle): { node: HTMLElement; update(row: RunRow, state: LineState): void } {
  const tick = el('span', { class: 'plab-tick-box', 'aria-hidden': 'true', title: trans.__('Tick two runs to compare them') });
  const mark = el('span', { class: 'plab-state-mark', 'aria-hidden': 'true' });
  const name = el('span', { class: 'plab-line-name' });
  const state = el('span', { class: 'plab-line-state' });
  const age = el('span', { class: 'plab-line-age' });
  const trend = sparkline({ width: 56, height: 16 });
  const trendBox = el('span', { class: 'plab plab-bare plab-line-trend', 'aria-hidden': 'true' }, trend.node);
  const numbers = el('span', { class: 'plab-line-numbers' });
  const done = el('span', { class: 'plab-line-done' });
  const bar = el('span', { class: 'plab-line-bar', 'aria-hidden': 'true' }, done);
  const node = el(
    'div',
    { class: 'plab-line-item', role: 'option' },
    el('div', { class: 'plab-line-row' }, mark, name, state, el('span', { class: 'plab-space' }), el('span', { class: 'plab-line-end' }, age, tick)),
    el('div', { class: 'plab-line-row plab-soft' }, numbers, el('span', { class: 'plab-space' }), trendBox),
    bar
  );
  return {
    node,
    update(row, { isChosen, isTicked, now_s, trail }) {
      setAttributes(node, {
        'data-run': row.id,
        'data-state': row.state,
        'aria-selected': String(isTicked || isChosen),
        'aria-label': rowLabel(row, now_s, trans) + (isTicked ? `, ${trans.__('ticked for comparison')}` : ''),
        tabindex: isChosen ? '0' : '-1',
        title: row.reason || `${row.id.slice(0, 12)}… · ${row.data}`
      });
      node.classList.toggle('plab-mod-chosen', isChosen);
      node.classList.toggle('plab-mod-ticked', isTicked);
      node.classList.toggle('plab-mod-live', isLive(row));
      setText(tick, isTicked ? '☑' : '☐');
      setText(mark, stateMark(row.state));
      setText(name, row.name);
      setText(state, stateText(row, trans));
      setText(age, ageText(row.created, now_s, trans));
      setText(numbers, [`${row.rounds_done}/${row.steps}`, ...figures(row, trans)].join(' · '));
      trendBox.hidden = !trail || trail.x.length < 2;
      if (trail && trail.x.length >= 2) {
        trend.update(trail);
      }
      done.style.width = `${Math.min(100, (100 * row.rounds_done) / Math.max(1, row.steps))}%`;
    }
  };
}
