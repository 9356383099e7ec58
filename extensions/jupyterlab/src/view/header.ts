/** The strip above the panes: which run this is, how it stands, what can be done with it, and whether the picture is fresh. */

import type { CommandRegistry } from '@lumino/commands';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { RunPicture } from '../api/types';
import type { RunFeed } from '../live/feed';
import { duration, el, setAttributes, setText } from './core';
import { whyNoInvitation, whyNoWorker } from '../runs/rows';
import { button, explain, messageOf, note, pill, stateWord } from './parts';

const SERVER_SILENT_S = 15;
const STALE_S = 10;

const ATTACH = 'pluralis-lab:attach-worker';
const INVITE = 'pluralis-lab:invite-workers';
const DEEDS = [ATTACH, INVITE, 'pluralis-lab:stop-run', 'pluralis-lab:resume-run', 'pluralis-lab:insert-code'] as const;
type DeedId = (typeof DEEDS)[number];
/** The picture is newer than the list of runs that a command goes by: whether these can be done is said from it. */
const REASONS: Partial<Record<DeedId, typeof whyNoWorker>> = { [ATTACH]: whyNoWorker, [INVITE]: whyNoInvitation };

export class RunHeader {
  readonly node: HTMLElement;
  private readonly heading: HTMLElement;
  private readonly state = pill();
  private readonly rounds = el('span', { class: 'plab-rounds' });
  private readonly times = el('span', { class: 'plab-muted' });
  private readonly done = el('span', { class: 'plab-progress-fill' });
  private readonly progress: HTMLElement;
  private readonly freshness = note();
  private readonly trouble = note();
  private readonly buttons: Map<DeedId, HTMLButtonElement>;
  private readonly whyNot = new Map<DeedId, string>();
  private pulsedAt = performance.now();

  constructor(
    private readonly options: {
      run: string;
      name: string;
      trans: TranslationBundle;
      commands: CommandRegistry;
      readOnly: () => boolean;
    }
  ) {
    const { trans } = options;
    this.heading = el('h3', { class: 'plab-heading', text: options.name, title: options.run });
    this.progress = el(
      'div',
      { class: 'plab-progress', role: 'progressbar', 'aria-label': trans.__('rounds done'), 'aria-valuemin': '0' },
      this.done
    );
    const texts: Record<DeedId, string> = {
      [ATTACH]: trans.__('Add a worker…'),
      [INVITE]: trans.__('Invite…'),
      'pluralis-lab:stop-run': trans.__('Stop…'),
      'pluralis-lab:resume-run': trans.__('Resume'),
      'pluralis-lab:insert-code': trans.__('Insert code')
    };
    this.buttons = new Map(DEEDS.map(id => [id, button(texts[id], () => this.execute(id))]));
    for (const one of this.buttons.values()) {
      one.hidden = true;
    }
    this.node = el(
      'div',
      { class: 'plab plab-run-header' },
      el(
        'div',
        { class: 'plab-header' },
        this.heading,
        this.state.node,
        this.rounds,
        this.times,
        el('span', { class: 'plab-space' }),
        ...this.buttons.values()
      ),
      this.progress,
      this.freshness.node,
      this.trouble.node
    );
  }

  draw(picture: RunPicture): void {
    const { trans } = this.options;
    setText(this.heading, picture.name);
    const isFinished = picture.state === 'stopped' && picture.rounds_done >= picture.steps;
    this.state.update(picture.state, isFinished ? trans.__('finished') : stateWord(picture.state, trans));
    setText(this.rounds, trans.__('%1 of %2 rounds', picture.rounds_done, picture.steps));
    const left = picture.remaining_s && !picture.over ? trans.__(', about %1 left', duration(picture.remaining_s)) : '';
    const virtual = picture.engine === 'virtual' ? trans.__(' (virtual clock)') : '';
    setText(this.times, picture.elapsed_s === null ? '' : `${duration(picture.elapsed_s)}${virtual}${left}`);
    this.done.style.width = `${(100 * picture.rounds_done) / Math.max(1, picture.steps)}%`;
    setAttributes(this.progress, {
      'aria-valuemax': picture.steps,
      'aria-valuenow': picture.rounds_done,
      'aria-valuetext': trans.__('%1 of %2 rounds', picture.rounds_done, picture.steps)
    });
    const { commands, run } = this.options;
    for (const [id, one] of this.buttons) {
      const reason = REASONS[id];
      const isWanted =
        id === 'pluralis-lab:stop-run' || reason ? !picture.over : id === 'pluralis-lab:resume-run' ? picture.over && !isFinished : true;
      const isAllowed = id === 'pluralis-lab:insert-code' || !this.options.readOnly();
      const isEnabled = commands.hasCommand(id) && (reason !== undefined || commands.isEnabled(id, { run }));
      one.hidden = !isWanted || !isAllowed || !isEnabled;
      if (reason) {
        this.whyNot.set(id, reason(picture, trans));
        explain(one, this.whyNot.get(id) ?? '');
      }
    }
  }

  heard(): void {
    this.pulsedAt = performance.now();
  }

  /** Say what is known about how fresh the picture is; '' when it is. Returns whether it is stale. */
  drawFreshness(feed: RunFeed): boolean {
    const { trans } = this.options;
    const { picture, pulse, status } = feed;
    const age = (performance.now() - this.pulsedAt) / 1000;
    const silent = pulse.silent_s === null ? null : pulse.silent_s + age;
    let text = '';
    let isStale = false;
    if (status === 'gone') {
      text = picture
        ? trans.__('This run is no longer on the server; what is drawn is the last that was known of it.')
        : trans.__('This run is not on this server. It may have been deleted, or belong to another home (PLURALIS_LAB_HOME).');
      isStale = true;
    } else if (feed.reading && (feed.partial || !picture)) {
      const share = feed.reading.total ? Math.round((100 * feed.reading.done) / feed.reading.total) : 0;
      text = trans.__('reading the record of this run: %1 %', share);
    } else if (!picture) {
      text = trans.__('asking the server for this run…');
    } else if (!picture.over && pulse.problem) {
      text = pulse.problem;
      isStale = true;
    } else if (!picture.over && status === 'connecting') {
      text = trans.__('The connection to the server is lost; trying again. What is drawn may be old.');
      isStale = true;
    } else if (!picture.over && status !== 'standby' && age > SERVER_SILENT_S) {
      text = trans.__('The server has sent nothing for %1: what is drawn is old, the run itself may go on.', duration(age));
      isStale = true;
    } else if (!picture.over && picture.state !== 'serving' && silent !== null && silent >= Math.max(STALE_S, 4 * (picture.round_s ?? 0))) {
      text = trans.__('No news from the run for %1.', duration(silent));
      isStale = true;
    } else if (!picture.over && status === 'polling') {
      text = trans.__('No live connection (a proxy may block web sockets): asking for news every few seconds.');
    }
    this.freshness.update(text, isStale ? (status === 'gone' ? 'trouble' : 'coming') : 'info');
    return isStale;
  }

  private execute(id: DeedId): void {
    this.trouble.update('');
    const why = this.whyNot.get(id);
    if (why) {
      this.trouble.update(why);
      return;
    }
    this.options.commands.execute(id, { run: this.options.run }).catch((error: unknown) => {
      this.trouble.update(messageOf(error), 'trouble');
    });
  }
}
