/** The Overview pane: how the run goes, how fast, and what it costs. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { RunPicture } from '../api/types';
import { duration, el, fixed, lineChart, NOT_KNOWN, precise, si } from './core';
import type { ChartAxis } from './core';
import { type Across, along, axesOf, costOf, lastKnown, mapped, placedMarks, workersNote } from './overviewmodel';
import type { Pane, PaneContext, PaneKind } from './pane';
import { asTable, choice, figure, messageOf, note } from './parts';

export const overview: PaneKind = {
  id: 'overview',
  title: trans => trans.__('Overview'),
  caption: trans => trans.__('Loss, speed and cost of the run'),
  place: 'above',
  isShown: () => true,
  create: context => new OverviewPane(context)
};

function axisOf(across: Across, trans: TranslationBundle): ChartAxis {
  switch (across) {
    case 'rounds':
      return { name: trans.__('round'), format: String, whole: true };
    case 'time':
      return { name: trans.__('time'), format: shortDuration };
    case 'hours':
      return { name: trans.__('worker-h'), format: x => precise(x) };
    case 'megabytes':
      return { name: trans.__('MB sent'), format: x => si(x) };
  }
}

/** For ticks: "90 s", "15 min", "3.5 h". */
function shortDuration(seconds: number): string {
  if (Math.abs(seconds) < 300) {
    return `${Number(seconds.toPrecision(3))} s`;
  }
  return seconds < 10800 ? `${Number((seconds / 60).toPrecision(3))} min` : `${Number((seconds / 3600).toPrecision(3))} h`;
}

class OverviewPane implements Pane {
  readonly node: HTMLElement;
  private readonly empty = note();
  private readonly trouble = note();
  private readonly figures;
  private readonly loss;
  private readonly speed;
  private readonly charts: HTMLElement;
  private readonly numbers: HTMLElement;
  private readonly notes = el('ul', { class: 'plab-notes' });
  private readonly announcer = el('div', { class: 'plab-hidden', role: 'status', 'aria-live': 'polite' });
  private readonly across;
  private readonly logarithmic: HTMLInputElement;
  private readonly table;
  private axis: Across = 'rounds';
  private picture: RunPicture | null = null;
  private announced = '';
  private clockAsked = false;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    this.figures = {
      loss: figure(trans.__('training loss'), trans.__('Mean loss of the last round, in nats a token')),
      validation: figure(
        trans.__('validation loss'),
        trans.__('Loss on text that is not trained on. Unigram: the loss of a model that only knows how frequent each token is')
      ),
      speed: figure(trans.__('speed'), trans.__('Trained tokens a second, the mean of the last 20 rounds')),
      workers: figure(trans.__('workers')),
      perHour: figure(
        trans.__('loss per worker-hour'),
        trans.__(
          'Loss of the first round less the mean of the last 5, divided by the hours of live workers (one worker is one device: with GPUs these are GPU-hours)'
        )
      ),
      perMegabyte: figure(
        trans.__('loss per megabyte'),
        trans.__('Loss of the first round less the mean of the last 5, divided by all megabytes that workers sent')
      )
    };
    this.loss = lineChart({ title: trans.__('Loss'), unit: trans.__('nats a token'), height: 230 });
    this.speed = lineChart({ title: trans.__('Speed'), unit: trans.__('tokens a second'), height: 230 });
    this.across = choice<Across>(trans.__('Count along'), value => this.choose(value));
    this.logarithmic = el('input', { type: 'checkbox' });
    this.logarithmic.addEventListener('change', () => this.redraw());
    this.table = asTable(trans.__('As a table'), () => this.rows());
    this.numbers = el('div', { class: 'plab-figures' }, ...Object.values(this.figures).map(box => box.node));
    this.charts = el(
      'div',
      { class: 'plab-column' },
      el(
        'div',
        { class: 'plab-tools' },
        this.across.node,
        el('label', { class: 'plab-check' }, this.logarithmic, trans.__('logarithmic loss'))
      ),
      el('div', { class: 'plab-pair' }, this.loss.node, this.speed.node),
      this.table.node
    );
    this.node = el(
      'div',
      { class: 'plab-overview' },
      this.trouble.node,
      this.empty.node,
      this.numbers,
      this.charts,
      this.notes,
      this.announcer
    );
  }

  draw(picture: RunPicture): void {
    this.picture = picture;
    const { trans } = this.context;
    const error = picture.errors.at(-1);
    this.trouble.update(
      picture.state === 'failed' ? picture.headline : error ? `${error.worker || trans.__('run')}: ${error.message}` : '',
      'trouble'
    );
    const waiting = picture.round === null;
    this.empty.update(waiting && !picture.over ? this.startText(picture) : waiting ? trans.__('This run ended before its first round.') : '');
    this.numbers.hidden = this.charts.hidden = waiting;
    if (!waiting) {
      this.drawFigures(picture);
      this.drawCharts(picture);
    }
    const told = picture.marks.slice(-5).reverse();
    this.notes.replaceChildren(...told.map(mark => el('li', { class: `plab-note-${mark.kind}`, text: mark.text })));
    const newest = picture.marks.filter(mark => mark.kind !== 'reroute').at(-1);
    const text = newest ? `${picture.headline}. ${newest.text}` : picture.headline;
    if (text !== this.announced) {
      this.announcer.textContent = text;
      this.announced = text;
    }
  }

  dispose(): void {
    this.loss.destroy();
    this.speed.destroy();
  }

  private startText(picture: RunPicture): string {
    const counts = new Map<string, number>();
    for (const worker of picture.workers) {
      counts.set(worker.state, (counts.get(worker.state) ?? 0) + 1);
    }
    const detail = [...counts].map(([state, count]) => `${count} ${state}`).join(', ');
    return detail ? `${picture.headline} (${detail})` : picture.headline;
  }

  private drawFigures(picture: RunPicture): void {
    const { trans } = this.context;
    const { figures } = this;
    const loss = lastKnown(picture.loss);
    const first = picture.loss.y[0];
    figures.loss.update(
      loss === null ? NOT_KNOWN : trans.__('%1 nats', fixed(loss, 3)),
      first === undefined ? '' : trans.__('round %1: %2', picture.loss.x[0] ?? 0, fixed(first, 3))
    );
    const validation = lastKnown(picture.validation);
    const gain = validation === null || picture.unigram_nats === null ? null : picture.unigram_nats - validation;
    figures.validation.update(
      validation === null ? NOT_KNOWN : trans.__('%1 nats', fixed(validation, 3)),
      gain === null
        ? ''
        : gain >= 0
          ? trans.__('%1 below unigram', fixed(gain, 2))
          : trans.__('%1 above unigram', fixed(-gain, 2))
    );
    figures.speed.update(
      picture.speed === null ? NOT_KNOWN : trans.__('%1 tokens/s', si(picture.speed)),
      picture.round_s === null
        ? trans.__('%1 tokens so far', si(picture.tokens))
        : trans.__('%1 a round, %2 tokens', duration(picture.round_s), si(picture.tokens))
    );
    figures.workers.update(
      picture.over ? String(picture.workers.length) : trans.__('%1 of %2 live', picture.live_workers, picture.workers.length),
      workersNote(picture, trans)
    );
    const cost = costOf(picture, this.context.clock);
    const hours = cost.onGpus ? trans.__('%1 GPU-hours so far', precise(cost.hours)) : trans.__('%1 worker-hours so far', precise(cost.hours));
    figures.perHour.node.hidden = cost.hours === null;
    figures.perHour.update(cost.perHour === null ? NOT_KNOWN : trans.__('%1 nats', precise(cost.perHour)), hours);
    figures.perMegabyte.node.hidden = cost.megabytes === null;
    figures.perMegabyte.update(
      cost.perMegabyte === null
        ? NOT_KNOWN
        : Math.abs(cost.perMegabyte) < 1e-3
          ? trans.__('%1 nats a GB', precise(cost.perMegabyte * 1000))
          : trans.__('%1 nats', precise(cost.perMegabyte)),
      trans.__('%1, %2/token', si((cost.megabytes ?? 0) * 1e6, 'B'), si(cost.bytesPerToken, 'B'))
    );
  }

  private drawCharts(picture: RunPicture): void {
    const { trans, clock } = this.context;
    const there = axesOf(picture, clock);
    // Time is offered before it is known: choosing it reads the record of the rounds.
    const offered: Across[] = [...new Set<Across>(['rounds', 'time', 'hours', ...there])];
    const texts: Record<Across, [string, string]> = {
      rounds: [trans.__('rounds'), trans.__('One optimizer step of every stage')],
      time: [trans.__('time'), trans.__('Time of the run’s own clock since training began, pauses left out')],
      hours: [trans.__('worker-hours'), trans.__('Hours of live workers: the cost in devices')],
      megabytes: [trans.__('megabytes'), trans.__('Megabytes that all workers sent, spread evenly over the rounds')]
    };
    this.across.update(
      offered.map(value => ({ value, text: texts[value][0], title: texts[value][1] })),
      this.axis
    );
    const across = there.includes(this.axis) ? this.axis : 'rounds';
    const place = along(picture, clock, across);
    const axis = axisOf(across, trans);
    const marks = placedMarks(picture.marks, place);
    this.loss.update({
      series: [
        { name: trans.__('train'), tone: 'train', ...mapped(picture.loss, place) },
        { name: trans.__('valid.'), tone: 'validation', dots: true, ...mapped(picture.validation, place) }
      ],
      baseline: picture.unigram_nats === null ? null : { name: trans.__('unigram'), value: picture.unigram_nats },
      format: y => fixed(y, 2),
      marks,
      axis,
      log: this.logarithmic.checked
    });
    this.speed.update({
      series: [{ name: '', tone: 'train', ...mapped(picture.tokens_per_s, place) }],
      fromZero: true,
      format: y => si(y),
      marks,
      axis
    });
    this.table.update();
  }

  private choose(across: Across): void {
    this.axis = across;
    if ((across === 'time' || across === 'hours') && !this.clockAsked) {
      this.clockAsked = true;
      void this.context
        .readClock()
        .catch((error: unknown) => {
          // Asked again at the next choice; until then the pictures that come fill the clock.
          this.clockAsked = false;
          this.trouble.update(this.context.trans.__('The times of the rounds cannot be read: %1', messageOf(error)), 'trouble');
        })
        .finally(() => this.redraw());
    }
    this.redraw();
  }

  private redraw(): void {
    this.context.redraw();
  }

  private rows(): { heads: string[]; rows: string[][] } {
    const { trans } = this.context;
    const picture = this.picture;
    const heads = [trans.__('Round'), trans.__('Training loss'), trans.__('Validation loss'), trans.__('Tokens a second')];
    if (!picture) {
      return { heads, rows: [] };
    }
    const rounds = [...new Set([...picture.loss.x, ...picture.validation.x, ...picture.tokens_per_s.x])].sort((a, b) => b - a);
    const columns = [picture.loss, picture.validation, picture.tokens_per_s].map(
      curve => new Map(curve.x.map((round, i) => [round, curve.y[i] ?? null]))
    );
    return {
      heads,
      rows: rounds.map(round => [
        String(round),
        ...columns.map((values, i) => {
          const value = values.get(round);
          return value === undefined || value === null ? '' : i === 2 ? si(value) : fixed(value, 4);
        })
      ])
    };
  }
}
