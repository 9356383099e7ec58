/** The Contributions pane: who does the work, round by round, how the gradients agree, and who counter-signed. */

import type { RunPicture } from '../api/types';
import { coversRun, epochStream, heatGrid, isMeasured, roundStream } from './contributionsmodel';
import { el, percent, si, stackedChart } from './core';
import { HeatMap } from './heatmap';
import { epochsOf } from './ownershipmodel';
import { OwnTexts } from './owntexts';
import type { Pane, PaneContext, PaneKind } from './pane';
import { asTable, choice, note } from './parts';
import { Receipts } from './receipts';

export const contributions: PaneKind = {
  id: 'contributions',
  title: trans => trans.__('Contributions'),
  caption: trans => trans.__('Work of each participant, gradients of each worker, receipts'),
  place: 'above',
  isShown: picture => picture.workers.some(worker => (worker.work_flops ?? 0) > 0),
  create: context => new ContributionsPane(context)
};

type Span = 'run' | 'window';

class ContributionsPane implements Pane {
  readonly node: HTMLElement;
  private readonly stream;
  private readonly along;
  private readonly by;
  private readonly measure;
  private readonly span;
  private readonly heat: HeatMap;
  private readonly receipts: Receipts;
  private readonly ownTexts: OwnTexts;
  private readonly waiting = note();
  private readonly streamTable;
  private streamAlong: 'epochs' | 'rounds' = 'rounds';
  private streamBy: 'participant' | 'worker' = 'participant';
  private figure: 'norm' | 'agreement' = 'norm';
  private heatSpan: Span = 'window';
  private selected = '';
  private picture: RunPicture | null = null;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    const redraw = (): void => context.redraw();
    this.stream = stackedChart({ title: trans.__('Work'), unit: trans.__('FLOP a round, stacked'), height: 190 });
    this.along = choice<'epochs' | 'rounds'>(trans.__('Count along'), value => {
      this.streamAlong = value;
      redraw();
    });
    this.by = choice<'participant' | 'worker'>(trans.__('Stack by'), value => {
      this.streamBy = value;
      redraw();
    });
    this.measure = choice<'norm' | 'agreement'>(trans.__('Figure'), value => {
      this.figure = value;
      redraw();
    });
    this.span = choice<Span>(trans.__('Rounds shown'), value => {
      this.heatSpan = value;
      redraw();
    });
    this.heat = new HeatMap(trans, worker => this.select(worker));
    this.receipts = new Receipts(context, worker => this.select(worker));
    this.ownTexts = new OwnTexts(context);
    this.streamTable = asTable(trans.__('As a table'), () => this.streamRows());
    this.node = el(
      'div',
      { class: 'plab-contributions' },
      this.waiting.node,
      el('div', { class: 'plab-tools' }, this.along.node, this.by.node),
      this.stream.node,
      this.streamTable.node,
      this.ownTexts.node,
      el('div', { class: 'plab-tools' }, this.measure.node, this.span.node),
      this.heat.node,
      this.receipts.node
    );
  }

  draw(picture: RunPicture): void {
    const { trans, detail, ledger } = this.context;
    this.picture = picture;
    detail.want(picture);
    if (picture.epochs_closed > picture.epochs.length) {
      // The picture holds the latest epochs only; the ledger has all.
      ledger.want(picture);
    }
    this.waiting.update(
      detail.problem
        ? trans.__('Earlier rounds cannot be read (%1): what is drawn was seen since this view was opened.', detail.problem)
        : detail.settled
          ? ''
          : trans.__('reading the latest rounds…'),
      detail.problem ? 'trouble' : 'coming'
    );
    this.drawStream(picture);
    this.ownTexts.draw(picture);
    this.drawHeat(picture);
    this.receipts.draw(picture, this.selected);
  }

  repaint(): void {
    this.heat.repaint();
  }

  select(worker: string): void {
    this.selected = worker;
    this.context.redraw();
  }

  dispose(): void {
    this.stream.destroy();
    this.heat.dispose();
    this.receipts.dispose();
  }

  private drawStream(picture: RunPicture): void {
    const { trans, detail } = this.context;
    const others = trans.__('others');
    const hasEpochs = picture.epochs_closed > 0;
    const along = hasEpochs ? this.streamAlong : 'rounds';
    this.along.update(
      hasEpochs
        ? [
            { value: 'rounds', text: trans.__('latest rounds'), title: trans.__('What every worker did, counted or not') },
            { value: 'epochs', text: trans.__('epochs'), title: trans.__('Shares that were signed at the close of each epoch') }
          ]
        : [],
      along
    );
    this.by.update(
      along === 'rounds'
        ? [
            { value: 'participant', text: trans.__('by participant') },
            { value: 'worker', text: trans.__('by worker') }
          ]
        : [],
      this.streamBy
    );
    if (along === 'epochs') {
      const stream = epochStream(picture, epochsOf(picture, this.context.ledger.value), others);
      this.stream.update({ ...stream, whole: true, axis: { name: trans.__('epoch'), whole: true, format: String }, format: percent });
    } else {
      const stream = roundStream(picture, detail.window, this.streamBy, others);
      this.stream.update({ ...stream, axis: { name: trans.__('round'), whole: true, format: String }, format: y => si(y, 'F') });
    }
    this.streamTable.update();
  }

  private drawHeat(picture: RunPicture): void {
    const { trans, detail } = this.context;
    const measured = (['norm', 'agreement'] as const).filter(one => isMeasured(picture, detail.window, one));
    this.heat.node.hidden = measured.length === 0;
    const figure = measured.includes(this.figure) ? this.figure : (measured[0] ?? 'norm');
    const texts = {
      norm: { text: trans.__('gradient norm'), title: trans.__('Length of the worker’s gradient in the round') },
      agreement: {
        text: trans.__('agreement'),
        title: trans.__('Cosine of the worker’s gradient with the mean of the others of its stage: 1 is the same direction, -1 the opposite')
      }
    };
    this.measure.update(
      measured.map(value => ({ value, ...texts[value] })),
      figure
    );
    const covers = coversRun(picture, figure) && (picture.round ?? 0) >= detail.window.size;
    const span = covers ? this.heatSpan : 'window';
    this.span.update(
      covers
        ? [
            { value: 'window', text: trans.__('latest rounds'), title: trans.__('Every round of the latest ones') },
            { value: 'run', text: trans.__('whole run'), title: trans.__('What stands out in each stretch of the run') }
          ]
        : [],
      span
    );
    const title = figure === 'norm' ? trans.__('Gradient norm of each worker') : trans.__('Agreement with the other replicas');
    this.heat.update(heatGrid(picture, detail.window, figure, span), title, '', this.selected);
  }

  private streamRows(): { heads: string[]; rows: string[][] } {
    const { trans, detail, ledger } = this.context;
    const picture = this.picture;
    if (!picture) {
      return { heads: [], rows: [] };
    }
    const others = trans.__('others');
    const isEpochs = this.streamAlong === 'epochs' && picture.epochs_closed > 0;
    const stream = isEpochs
      ? epochStream(picture, epochsOf(picture, ledger.value), others)
      : roundStream(picture, detail.window, this.streamBy, others);
    return {
      heads: [isEpochs ? trans.__('Epoch') : trans.__('Round'), ...stream.layers.map(layer => layer.name)],
      rows: stream.x
        .map((x, i) => [String(x), ...stream.layers.map(layer => (isEpochs ? percent(layer.y[i] ?? 0) : si(layer.y[i] ?? 0, 'FLOP')))])
        .reverse()
    };
  }
}
