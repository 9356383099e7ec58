/** A dialog that stays open until what it asks for is done or dropped: a refusal is said beside what can be changed about it. */

import { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Widget } from '@lumino/widgets';

/** The body of such a dialog. */
export interface Asking<Value> extends Widget {
  readonly value: Value;
  /** Say what is being done; '' when it no longer is. */
  busy(text: string): void;
  /** Say why it was not done. */
  refuse(text: string): void;
}

export interface Question {
  title: string;
  accept: string;
  /** Said while it is being done. */
  busy: string;
}

const ACCEPT = 1;

export class AskingDialog<Value> extends Dialog<Value> {
  constructor(
    private readonly form: Asking<Value>,
    private readonly question: Question,
    private readonly act: (value: Value) => Promise<void>,
    trans: TranslationBundle
  ) {
    super({
      title: question.title,
      body: form,
      buttons: [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.okButton({ label: question.accept })],
      defaultButton: ACCEPT,
      focusNodeSelector: 'select, input'
    });
  }

  override resolve(index = ACCEPT): void {
    if (index !== ACCEPT) {
      super.resolve(index);
    } else if (!this.isActing) {
      void this.ask();
    }
  }

  private async ask(): Promise<void> {
    this.isActing = true;
    this.form.busy(this.question.busy);
    try {
      await this.act(this.form.value);
      super.resolve(ACCEPT);
    } catch (error) {
      this.form.refuse(error instanceof Error ? error.message : String(error));
    } finally {
      this.isActing = false;
      this.form.busy('');
    }
  }

  private isActing = false;
}
