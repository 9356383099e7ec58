/** Asks what worker to add to a run, and adds it. */

import type { NewWorker } from '../api/client';
import type { Attached, RunRow } from '../api/types';
import { AskingDialog } from '../asking/dialog';
import type { ILab } from '../tokens';
import { AttachForm } from './form';
import { accountOptions, deviceOptions, stageOptions } from './options';

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
  const form = new AttachForm(trans, row, wanted.data);
  form.setDevices(deviceOptions([{ device: 'cpu', name: '', memory_bytes: null }], trans), wanted.device);
  form.setStages(stageOptions(row.stages, null, trans), wanted.stage === undefined ? '' : String(wanted.stage));
  form.setAccounts(accountOptions(row, null, trans), wanted.account);
  // The dialog is there at once; what the server knows besides comes as it answers. Without an answer, what stands there will do.
  const fill = (answer: Promise<void>) => void answer.catch((error: unknown) => console.warn('pluralis-lab:', error));
  fill(api.devices().then(devices => form.setDevices(deviceOptions(devices, trans))));
  fill(api.picture(row.id, null, 8).then(({ picture }) => form.setStages(stageOptions(row.stages, picture?.workers ?? null, trans))));
  fill(api.ownership(row.id).then(({ accounts }) => form.setAccounts(accountOptions(row, accounts.length ? accounts : null, trans))));
  const question = { title: trans.__('Add a worker'), accept: trans.__('Add it'), busy: trans.__('Adding it…') };
  await new AskingDialog(form, question, async worker => onAdded(await api.attach(row.id, worker)), trans).launch();
}
