/** The Lumino widget around a pane: draws it only while it is seen, and says so when it cannot be drawn. */

import { type Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { RunPicture } from '../api/types';
import type { Pane, PaneContext, PaneKind } from './pane';
import { messageOf, note } from './parts';
import { isDark } from './theme';

export class PaneWidget extends Widget {
  private readonly pane: Pane;
  private readonly trouble = note();
  private drawn: RunPicture | null = null;
  private isDirty = true;

  constructor(
    readonly kind: PaneKind,
    private readonly context: PaneContext
  ) {
    super();
    const { trans } = context;
    this.id = `plab-pane-${kind.id}-${context.run.slice(0, 8)}`;
    this.addClass('plab');
    this.addClass('plab-pane');
    this.title.label = kind.title(trans);
    this.title.caption = kind.caption(trans);
    this.title.closable = false;
    this.pane = kind.create(context);
    this.node.dataset.pane = kind.id;
    this.node.append(this.trouble.node, this.pane.node);
  }

  /** Draw `picture` if the pane is seen and there is something new to draw. */
  draw(picture: RunPicture): void {
    if (!this.isVisible || (!this.isDirty && picture === this.drawn)) {
      return;
    }
    this.isDirty = false;
    this.drawn = picture;
    try {
      this.pane.draw(picture);
      this.node.dataset.seq = String(picture.seq);
      this.trouble.update('');
    } catch (error) {
      // One broken pane must not take the others with it; the reader sees why, the console has the trace.
      console.error(`pluralis-lab: the pane "${this.kind.id}" cannot draw seq ${picture.seq}`, error);
      this.trouble.update(this.context.trans.__('This pane cannot be drawn: %1', messageOf(error)), 'trouble');
    }
  }

  markDirty(): void {
    this.isDirty = true;
  }

  select(worker: string): void {
    this.pane.select?.(worker);
  }

  /** Tell the style sheet what is really painted behind the pane. */
  retheme(): void {
    const theme = isDark(this.node) ? 'dark' : 'light';
    if (this.node.dataset.theme !== theme) {
      this.node.dataset.theme = theme;
    }
    if (this.isVisible) {
      this.pane.repaint?.();
    }
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.pane.dispose();
    }
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.retheme();
    this.wake();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.retheme();
    this.wake();
  }

  protected override onBeforeHide(message: Message): void {
    super.onBeforeHide(message);
    this.pane.hidden?.();
  }

  private wake(): void {
    this.isDirty = true;
    this.context.redraw();
  }
}
