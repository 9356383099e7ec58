/** The end of one worker's log, read again while it is seen and the run is on; and what can be done to that worker. */

import type { RunPicture, WorkerPicture } from '../api/types';
import { el, setText } from './core';
import type { PaneContext } from './pane';
import { leavable, whyNotNow } from './leaving';
import { button, explain, messageOf, note, pill, stateWord } from './parts';
import { isLive } from './rounds';

const LINES = 200;
const EVERY_MS = 2000;
export const KILL = 'pluralis-lab:kill-worker';
export const DETACH = 'pluralis-lab:detach-worker';

export class LogTail {
  readonly node: HTMLElement;
  private readonly heading = el('h4', { class: 'plab-title' });
  private readonly state = pill();
  private readonly reason = el('span', { class: 'plab-muted plab-cut' });
  private readonly trouble = note();
  private readonly text = el('pre', { class: 'plab-log', tabindex: '0' });
  private readonly kill: HTMLButtonElement;
  private readonly letGo: HTMLButtonElement;
  /** Processes that were asked to leave from here; one that is started in the place of another was not. */
  private readonly leaving = new Set<string>();
  private process = '';
  private readonly receipts: HTMLButtonElement;
  private worker = '';
  private readAt = -Infinity;
  private readFor = '';
  private request = 0;
  private timer = 0;

  constructor(
    private readonly context: PaneContext,
    onClose: () => void
  ) {
    const { trans } = context;
    this.kill = button(trans.__('Kill this worker…'), () => this.end(), 'danger');
    this.letGo = button(trans.__('Let it go…'), () => this.farewell());
    this.receipts = button(trans.__('Receipts'), () => context.open('contributions', this.worker));
    this.receipts.title = trans.__('Show who counter-signed the work of this worker');
    const close = button('✕', onClose);
    close.setAttribute('aria-label', trans.__('Close the log'));
    this.text.setAttribute('aria-label', trans.__('Log'));
    this.node = el(
      'section',
      { class: 'plab-log-tail', 'aria-label': trans.__('Selected worker') },
      el(
        'div',
        { class: 'plab-tools' },
        this.heading,
        this.state.node,
        this.reason,
        el('span', { class: 'plab-space' }),
        this.receipts,
        this.letGo,
        this.kill,
        close
      ),
      this.trouble.node,
      this.text
    );
    this.node.hidden = true;
  }

  draw(picture: RunPicture, worker: WorkerPicture | null): void {
    const { trans, commands } = this.context;
    this.node.hidden = worker === null;
    if (!worker) {
      this.worker = '';
      this.rest();
      return;
    }
    if (worker.name !== this.worker) {
      this.worker = worker.name;
      this.readFor = '';
      this.readAt = -Infinity;
      this.request += 1;
      setText(this.text, trans.__('reading…'));
      this.trouble.update('');
    }
    setText(this.heading, worker.name);
    this.state.update(worker.state, stateWord(worker.state, trans));
    setText(this.reason, worker.reason);
    this.receipts.hidden = picture.epochs_closed === 0;
    const args = { run: this.context.run, worker: worker.name };
    this.process = `${worker.name} ${worker.incarnation}`;
    this.letGo.hidden =
      this.context.readOnly() || !leavable(picture).includes(worker) || !commands.hasCommand(DETACH) || !commands.isEnabled(DETACH, args);
    const isLeaving = this.leaving.has(this.process);
    setText(this.letGo, isLeaving ? trans.__('Leaving…') : trans.__('Let it go…'));
    explain(this.letGo, isLeaving ? trans.__('It was asked to leave, and finishes what it has begun.') : whyNotNow(worker, picture, trans));
    this.kill.hidden =
      this.context.readOnly() || picture.over || !isLive(worker.state) || !commands.hasCommand(KILL) || !commands.isEnabled(KILL, args);
    this.want(picture, worker);
  }

  /** Nobody looks: read no more until the next `draw`. */
  rest(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
  }

  dispose(): void {
    this.rest();
    this.request += 1;
  }

  private want(picture: RunPicture, worker: WorkerPicture): void {
    const sign = `${worker.name} ${worker.state} ${picture.over}`;
    const wait = this.readAt + EVERY_MS - performance.now();
    if (sign === this.readFor && (picture.over || wait > 0 || this.timer)) {
      if (!picture.over && !this.timer) {
        this.timer = window.setTimeout(() => {
          this.timer = 0;
          this.context.redraw();
        }, Math.max(50, wait));
      }
      return;
    }
    this.readFor = sign;
    this.readAt = performance.now();
    void this.read(worker.name);
  }

  private async read(worker: string): Promise<void> {
    const request = (this.request += 1);
    try {
      const text = await this.context.source.log(worker, LINES);
      if (request !== this.request) {
        return;
      }
      this.trouble.update('');
      this.show(text);
    } catch (error) {
      if (request === this.request) {
        this.trouble.update(messageOf(error), 'trouble');
        setText(this.text, '');
      }
    }
  }

  /** Stay at the end if the reader is there; stay where they are if they scrolled up. */
  private show(text: string): void {
    const shown = text.trimEnd() || this.context.trans.__('The log is empty.');
    if (this.text.textContent === shown) {
      return;
    }
    const isAtEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 24;
    setText(this.text, shown);
    if (isAtEnd) {
      this.text.scrollTop = this.text.scrollHeight;
    }
  }

  private farewell(): void {
    if (this.letGo.ariaDisabled === 'true') {
      this.trouble.update(this.letGo.title);
      return;
    }
    const { process } = this;
    this.trouble.update('');
    this.context.commands
      .execute(DETACH, { run: this.context.run, worker: this.worker })
      .then((isMeant: unknown) => {
        if (isMeant) {
          this.leaving.add(process);
          this.context.redraw();
        }
      })
      .catch((error: unknown) => this.trouble.update(messageOf(error), 'trouble'));
  }

  private end(): void {
    // The command asks for confirmation: it can also be run from the palette.
    this.context.commands.execute(KILL, { run: this.context.run, worker: this.worker }).catch((error: unknown) => {
      this.trouble.update(messageOf(error), 'trouble');
    });
  }
}
