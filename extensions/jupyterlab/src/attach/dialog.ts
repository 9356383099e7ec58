/** Asks what worker to add to a run, and adds it. */

import { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { NewWorker } from '../api/client';
import type { Attached, RunRow } from '../api/types';
import type { ILab } from '../tokens';
import { AttachForm } from './form';
import { accountOptions, deviceOptions, stageOptions } from './options';

const ADD = 1;

/** Stays open until the worker is added or the question is dropped: a refusal is said beside what can be changed about it. */
class AttachDialog extends Dialog<NewWorker> {
  constructor(
    private readonly form: AttachForm,
    private readonly add: (worker: NewWorker) => Promise<void>,
    private readonly trans: TranslationBundle
  ) {
    super({
      title: trans.__('Add a worker'),
      body: form,
      buttons: [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.okButton({ label: trans.__('Add it') })],
      defaultButton: ADD,
      focusNodeSelector: 'select'
    });
  }

  override resolve(index = ADD): void {
    if (index !== ADD) {
      super.resolve(index);
    } else if (!this.isAdding) {
      void this.ask();
    }
  }

  private async ask(): Promise<void> {
    this.isAdding = true;
    this.form.busy(this.trans.__('Adding it…'));
    try {
      await this.add(this.form.value);
      super.resolve(ADD);
    } catch (error) {
      this.form.refuse(error instanceof Error ? error.message : String(error));
    } finally {
      this.isAdding = false;
      this.form.busy('');
    }
  }

  private isAdding = false;
}

/**
 * Ask for the worker to add to the run of `row`.
 *
 * @param onAdded - told of the worker, also if the dialog was closed while it was being added.
 */
export async function askAndAttach(
  { api, trans }: Pick<ILab, 'api' | 'trans'>,
  row: RunRow,
  wanted: NewWorker,
  onAdded: (added: Attached) => void
): Promise<void> {
  const form = new AttachForm(trans, row.name);
  form.setDevices(deviceOptions([{ device: 'cpu', name: '', memory_bytes: null }], trans), wanted.device);
  form.setStages(stageOptions(row.stages, null, trans), wanted.stage === undefined ? '' : String(wanted.stage));
  form.setAccounts(accountOptions(row, null, trans), wanted.account);
  // The dialog is there at once; what the server knows besides comes as it answers. Without an answer, what stands there will do.
  const fill = (answer: Promise<void>) => void answer.catch((error: unknown) => console.warn('pluralis-lab:', error));
  fill(api.devices().then(devices => form.setDevices(deviceOptions(devices, trans))));
  fill(api.picture(row.id, null, 8).then(({ picture }) => form.setStages(stageOptions(row.stages, picture?.workers ?? null, trans))));
  fill(api.ownership(row.id).then(({ accounts }) => form.setAccounts(accountOptions(row, accounts.length ? accounts : null, trans))));
  await new AttachDialog(form, async worker => onAdded(await api.attach(row.id, worker)), trans).launch();
}
