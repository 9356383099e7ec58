/** A run in a notebook's output: live by its id where this server knows the run, else as it was when the notebook was saved. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { type CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';
import { type CompactView, createRunView } from '@pluralis-lab/views/view.js';

import type { RunPicture } from '../api/types';
import { CommandIDs } from '../ids';
import type { RunFeed } from '../live/feed';
import type { ILab } from '../tokens';
import { readStored, RUN_MIME } from './stored';

/**
 * Draws `application/vnd.pluralis.run+json`. It asks and listens only while it can be seen, and never commands anything:
 * there is no Stop here, because whoever opens a notebook has not asked for one.
 */
export class RunOutput extends Widget implements IRenderMime.IRenderer {
  constructor(
    private readonly lab: ILab,
    private readonly commands: CommandRegistry
  ) {
    super();
    this.addClass('plab-output');
    this.openButton = el('button', { type: 'button', class: 'jp-mod-styled plab-do', text: lab.trans.__('Open') });
    this.openButton.addEventListener('click', () => {
      if (this.stored) {
        void commands.execute(CommandIDs.openRun, { run: this.stored.run });
      }
    });
    this.openButton.hidden = true;
    this.bar = el('div', { class: 'plab-output-bar' }, this.badge, this.note, el('span', { class: 'plab-space' }), this.openButton);
    this.node.append(this.bar, this.root);
    this.seen = new IntersectionObserver(entries => this.onSeen(entries.some(entry => entry.isIntersecting)));
  }

  renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const { trans } = this.lab;
    const read = readStored(model.data[RUN_MIME]);
    if ('problem' in read) {
      this.release();
      this.stored = null;
      this.bar.hidden = true;
      this.root.replaceChildren(
        el('p', {
          class: 'plab-fault',
          text:
            read.problem === 'version'
              ? trans.__('This run was stored by a newer pluralis_lab; update it to see the run here.')
              : trans.__('What is stored here is not a picture of a run.')
        })
      );
      return Promise.resolve();
    }
    if (this.stored?.run !== read.picture.run) {
      this.release();
    }
    this.stored = read.picture;
    this.bar.hidden = false;
    if (!this.feed?.picture) {
      this.draw(read.picture);
    }
    this.say();
    return Promise.resolve();
  }

  override dispose(): void {
    this.seen.disconnect();
    this.release();
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.seen.observe(this.node);
  }

  protected override onBeforeDetach(message: Message): void {
    super.onBeforeDetach(message);
    this.seen.disconnect();
    this.feed?.setVisible(false);
  }

  private onSeen(isSeen: boolean): void {
    this.isSeen = isSeen;
    if (isSeen && this.stored && !this.feed && !this.isElsewhere) {
      void this.look(this.stored.run);
    }
    this.feed?.setVisible(isSeen);
  }

  /** Ask the list first: for a run that is not on this machine no socket is tried, again and again, for nothing. */
  private async look(run: string): Promise<void> {
    const { runs } = this.lab;
    if (!runs.find(run)) {
      await runs.refresh();
    }
    if (this.isDisposed || this.stored?.run !== run || this.feed) {
      return;
    }
    this.isElsewhere = runs.rows !== null && !runs.problem && !runs.find(run);
    if (!this.isElsewhere) {
      this.follow(run);
    }
    this.say();
  }

  private follow(run: string): void {
    const feed = this.lab.feeds.get(run);
    this.feed = feed;
    feed.changed.connect((_, picture) => {
      this.draw(picture);
      this.say();
    });
    feed.pulsed.connect((_, pulse) => this.view?.pulse(pulse));
    feed.statusChanged.connect(() => this.say());
    if (feed.picture) {
      this.draw(feed.picture);
    }
    feed.setVisible(this.isSeen);
  }

  private draw(picture: RunPicture): void {
    this.view ??= createRunView(this.root, { feeder: this.lab.trans.__('the Jupyter server') });
    this.view.update(picture);
    // A stored picture of a live run is old by nature; the bar above says so, better than a note of silence.
    this.view.pulse({ silent_s: null, problem: '', stored: !this.feed?.picture });
  }

  /** Say whether this is live or stored. */
  private say(): void {
    const { trans } = this.lab;
    const { feed } = this;
    const isHere = Boolean(feed?.picture);
    const isLive = isHere && feed?.status !== 'gone';
    this.bar.dataset.kind = isLive ? 'live' : 'stored';
    const isOver = feed?.picture?.over === true;
    setText(this.badge, !isLive ? `▣ ${trans.__('stored picture')}` : isOver ? `■ ${trans.__('read from this machine')}` : `● ${trans.__('live')}`);
    if (isLive) {
      setText(this.note, feed?.status === 'connecting' ? trans.__('the Jupyter server is silent; asking again…') : '');
    } else {
      const isGone = feed?.status === 'gone' || this.isElsewhere;
      setText(this.note, isGone ? trans.__('this run is not on this machine') : trans.__('looking for the run…'));
    }
    this.openButton.hidden = !isLive || !this.commands.hasCommand(CommandIDs.openRun);
  }

  private release(): void {
    this.feed?.dispose();
    this.feed = null;
    this.isElsewhere = false;
    this.view?.destroy();
    this.view = null;
  }

  private readonly badge = el('span', { class: 'plab-output-badge' });
  private readonly note = el('span', { class: 'plab-soft', role: 'status' });
  private readonly openButton: HTMLButtonElement;
  private readonly bar: HTMLElement;
  private readonly root = el('div', { class: 'plab-output-root' });
  private readonly seen: IntersectionObserver;
  private isSeen = false;
  private isElsewhere = false;
  private stored: RunPicture | null = null;
  private feed: RunFeed | null = null;
  private view: CompactView | null = null;
}
