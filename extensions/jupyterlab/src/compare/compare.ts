/** Two runs beside each other: their curves in one chart, what they reached, and where their specs differ. Live while they are. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';
import { lineChart } from '@pluralis-lab/views/linechart.js';
import { duration, fixed, si } from '@pluralis-lab/views/numbers.js';

import type { RunFacts, RunPicture } from '../api/types';
import { isDark } from '../dark';
import type { RunFeed } from '../live/feed';
import type { ILab } from '../tokens';
import { differences } from './diff';

interface Side {
  id: string;
  feed: RunFeed;
  facts: RunFacts | null;
}

export class CompareView extends Widget {
  constructor(
    private readonly lab: ILab,
    readonly runs: [string, string]
  ) {
    super();
    this.trans = lab.trans;
    this.addClass('plab-compare');
    this.sides = runs.map(id => ({ id, feed: lab.feeds.get(id), facts: null })) as [Side, Side];
    for (const { feed } of this.sides) {
      feed.changed.connect(() => this.later());
      feed.statusChanged.connect(() => this.later());
    }
    const { trans } = this;
    this.loss = lineChart({ title: trans.__('Loss'), unit: trans.__('nats a token'), height: 240 });
    this.validation = lineChart({ title: trans.__('Validation loss'), unit: trans.__('nats a token') });
    this.speed = lineChart({ title: trans.__('Speed'), unit: trans.__('tokens a second') });
    this.charts = el(
      'div',
      { class: 'plab plab-bare' },
      this.loss.node,
      el('div', { class: 'plab-charts' }, this.validation.node, this.speed.node),
      this.clocks
    );
    this.node.append(
      el('div', { class: 'plab-compare-inner' }, this.heading, this.trouble, this.charts, this.results, this.specs)
    );
    this.node.tabIndex = -1;
    this.draw();
    void this.read();
  }

  override dispose(): void {
    cancelAnimationFrame(this.frame);
    for (const { feed } of this.sides) {
      feed.dispose();
    }
    this.loss.destroy();
    this.validation.destroy();
    this.speed.destroy();
    super.dispose();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.sides.forEach(({ feed }) => feed.setVisible(true));
  }

  protected override onBeforeHide(message: Message): void {
    super.onBeforeHide(message);
    this.sides.forEach(({ feed }) => feed.setVisible(false));
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.focus();
  }

  private async read(): Promise<void> {
    try {
      for (const side of this.sides) {
        side.facts = await this.lab.api.run(side.id);
      }
    } catch (error) {
      setText(this.trouble, `⚠ ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!this.isDisposed) {
      this.draw();
    }
  }

  private later(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private draw(): void {
    const { trans } = this;
    this.charts.dataset.theme = isDark(this.node) ? 'dark' : 'light';
    const names = this.names();
    setText(this.heading, trans.__('%1 beside %2', ...names));
    const shown = this.sides.flatMap(({ feed }, i) => (feed.picture ? [{ picture: feed.picture, name: MARKS[i], tone: TONES[i] }] : []));
    const curves = (of: (picture: RunPicture) => RunPicture['loss']) =>
      shown.map(({ picture, name, tone }) => ({ name, tone, ...of(picture) }));
    const format = (y: number) => fixed(y, 2);
    const baselines = new Set(shown.map(({ picture }) => picture.unigram_nats));
    const [unigram] = baselines;
    const baseline = baselines.size === 1 && typeof unigram === 'number' ? { name: trans.__('unigram'), value: unigram } : null;
    this.loss.update({ series: curves(picture => picture.loss), baseline, format });
    this.validation.update({ series: curves(picture => picture.validation).map(one => ({ ...one, dots: true })), baseline, format });
    this.speed.update({ series: curves(picture => picture.tokens_per_s), fromZero: true, format: y => si(y) });
    const simulated = shown.filter(({ picture }) => picture.engine === 'virtual').map(({ name }) => name);
    const isMixed = simulated.length > 0 && simulated.length < shown.length;
    setText(
      this.clocks,
      isMixed ? trans.__('%1 is a simulation: its speed and time are those of the simulated network, not of a machine.', simulated.join()) : ''
    );
    this.drawResults(names);
    this.drawSpecs(names);
  }

  private names(): [string, string] {
    const [a, b] = this.sides.map(({ id, feed }) => feed.picture?.name ?? this.lab.runs.find(id)?.name ?? id.slice(0, 8));
    return [`${MARKS[0]} ${a}`, `${MARKS[1]} ${b}`];
  }

  private drawResults(names: [string, string]): void {
    const { trans } = this;
    const pictures = this.sides.map(({ feed }) => feed.picture);
    const ofClock = (picture: RunPicture, text: string) => (picture.engine === 'virtual' ? `${text} (${trans.__('virtual')})` : text);
    const last = (curve: { y: (number | null)[] } | undefined) => curve?.y.filter(y => y !== null).at(-1) ?? null;
    const lines: [string, (picture: RunPicture) => string][] = [
      [trans.__('State'), picture => picture.headline],
      [trans.__('Rounds'), picture => `${picture.rounds_done} / ${picture.steps}`],
      [trans.__('Training loss'), picture => fixed(last(picture.loss), 4)],
      [trans.__('Validation loss'), picture => fixed(last(picture.validation), 4)],
      [trans.__('Tokens'), picture => si(picture.tokens)],
      [trans.__('Tokens a second'), picture => ofClock(picture, si(picture.speed))],
      [trans.__('Time'), picture => ofClock(picture, duration(picture.elapsed_s))],
      [trans.__('Parameters'), picture => si(picture.model_parameters)],
      [trans.__('Boundary bytes a token'), picture => si(picture.wire.forward_bytes_per_token ?? null, 'B')],
      [trans.__('Deaths'), picture => String(picture.workers.reduce((sum, one) => sum + one.deaths, 0))]
    ];
    const missing = (i: number) => (this.sides[i].feed.status === 'gone' ? trans.__('not on this machine') : '…');
    this.results.replaceChildren(
      el('h3', { text: trans.__('What they reached') }),
      table(
        [trans.__('Figure'), ...names],
        lines.map(([name, of]) => [name, ...pictures.map((picture, i) => (picture ? of(picture) : missing(i)))])
      )
    );
  }

  private drawSpecs(names: [string, string]): void {
    const { trans } = this;
    const [a, b] = this.sides.map(side => side.facts);
    const title = el('h3', { text: trans.__('Where their specs differ') });
    if (!a || !b) {
      this.specs.replaceChildren(title, el('p', { class: 'plab-soft', text: trans.__('Reading the specs…') }));
      return;
    }
    const found = differences(a.spec, b.spec);
    this.specs.replaceChildren(
      title,
      found.length
        ? table(
            [trans.__('Setting'), ...names],
            found.map(one => [one.path, one.a, one.b])
          )
        : el('p', { class: 'plab-soft', text: trans.__('Nowhere: both have the same spec.') })
    );
  }

  private readonly trans: TranslationBundle;
  private readonly sides: [Side, Side];
  private readonly heading = el('h2');
  private readonly trouble = el('p', { class: 'plab-fault', role: 'alert' });
  private readonly charts: HTMLElement;
  private readonly clocks = el('p', { class: 'plab-soft', role: 'note' });
  private readonly results = el('section', { class: 'plab-compare-table' });
  private readonly specs = el('section', { class: 'plab-compare-table' });
  private readonly loss;
  private readonly validation;
  private readonly speed;
  private frame = 0;
}

const TONES = ['0', '5'];
/** Short names for the curves: colour is not the only mark. */
const MARKS = ['A', 'B'];

function table(heads: string[], rows: string[][]): HTMLElement {
  return el(
    'table',
    { class: 'plab-table' },
    el('thead', {}, el('tr', {}, ...heads.map(text => el('th', { scope: 'col', text })))),
    el('tbody', {}, ...rows.map(([name, ...cells]) => el('tr', {}, el('th', { scope: 'row', text: name }), ...cells.map(text => el('td', { text })))))
  );
}
