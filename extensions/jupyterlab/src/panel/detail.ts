/** The chosen run, below the list: what it is, what it takes on the disk, and everything that can be done with it. */

import { showErrorMessage } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';
import { el, setText } from '@pluralis-lab/views/dom.js';
import { si } from '@pluralis-lab/views/numbers.js';

import type { DiskUse, RunRow } from '../api/types';
import { CommandIDs } from '../ids';
import { canResume, isLive, whyNoInvitation, whyNoWorker, workerFacts } from '../runs/rows';
import type { ILab } from '../tokens';
import { explain } from '../view/parts';
import { button } from './button';

/** A run that grows is measured again after this long. */
const MEASURE_AGAIN_MS = 20_000;

export class RunDetail {
  constructor(
    private readonly lab: ILab,
    private readonly commands: CommandRegistry
  ) {
    const { trans } = lab;
    this.does = [
      { node: this.make(trans.__('Open'), 'jp-mod-accept', CommandIDs.openRun), when: row => row.state !== 'damaged' },
      {
        node: this.make(trans.__('Add a worker…'), '', CommandIDs.attachWorker),
        when: row => isLive(row) && !lab.readOnly(),
        whyNot: row => whyNoWorker(row, trans)
      },
      {
        node: this.make(trans.__('Invite…'), '', CommandIDs.inviteWorkers),
        when: row => isLive(row) && !lab.readOnly(),
        whyNot: row => whyNoInvitation(row, trans)
      },
      { node: this.make(trans.__('Stop…'), '', CommandIDs.stopRun), when: row => isLive(row) && !lab.readOnly() },
      { node: this.make(trans.__('Resume'), '', CommandIDs.resumeRun), when: row => canResume(row) && !lab.readOnly() },
      { node: this.make(trans.__('Insert code'), '', CommandIDs.insertCode), when: row => row.state !== 'damaged' },
      { node: this.make(trans.__('Start one like it…'), '', CommandIDs.newRun), when: row => row.state !== 'damaged' && !lab.readOnly() },
      { node: this.make(trans.__('Delete…'), '', CommandIDs.deleteRun), when: row => !isLive(row) && !lab.readOnly() }
    ];
    this.node = el(
      'section',
      { class: 'plab-detail', 'aria-label': trans.__('The chosen run'), hidden: true },
      this.heading,
      this.facts,
      this.workers,
      this.reason,
      this.disk,
      el('div', { class: 'plab-detail-buttons', role: 'group', 'aria-label': trans.__('Actions') }, ...this.does.map(one => one.node))
    );
  }

  readonly node: HTMLElement;

  show(row: RunRow | null): void {
    this.node.hidden = !row;
    if (!row) {
      this.row = null;
      return;
    }
    const { trans } = this.lab;
    const isOther = this.row?.id !== row.id;
    this.row = row;
    setText(this.heading, row.name);
    setText(
      this.facts,
      [
        row.data,
        trans._n('%1 stage', '%1 stages', row.stages),
        trans._n('%1 replica', '%1 replicas', row.replicas),
        row.engine === 'virtual' ? trans.__('simulated') : trans.__('real workers'),
        row.account
      ]
        .filter(Boolean)
        .join(' · ')
    );
    const workers = workerFacts(row, trans);
    setText(this.workers, workers.join(' · '));
    this.workers.hidden = !workers.length;
    setText(this.reason, row.reason);
    this.reason.hidden = !row.reason;
    this.reason.classList.toggle('plab-mod-bad', row.state === 'failed' || row.state === 'damaged');
    for (const { node, when, whyNot } of this.does) {
      node.hidden = !when(row);
      explain(node, whyNot?.(row) ?? '');
    }
    if (isOther) {
      setText(this.disk, '');
      this.measured = 0;
    }
    void this.measure(row);
  }

  private make(label: string, kind: string, command: string): HTMLButtonElement {
    const node = button(label, kind, () => {
      if (this.row && node.ariaDisabled === 'true') {
        void showErrorMessage(label, node.title);
      } else if (this.row) {
        this.commands.execute(command, { run: this.row.id }).catch((error: unknown) => {
          void showErrorMessage(this.lab.trans.__('That did not work'), error instanceof Error ? error.message : String(error));
        });
      }
    });
    return node;
  }

  private async measure(row: RunRow): Promise<void> {
    const now = Date.now();
    if (row.state === 'damaged' || !this.node.isConnected || now - this.measured < MEASURE_AGAIN_MS) {
      return;
    }
    this.measured = now;
    try {
      const { disk } = await this.lab.api.run(row.id);
      if (this.row?.id === row.id) {
        setText(this.disk, diskText(disk, this.lab));
      }
    } catch (error) {
      if (this.row?.id === row.id) {
        setText(this.disk, error instanceof Error ? error.message : String(error));
      }
    }
  }

  private readonly heading = el('h3', { class: 'plab-detail-title' });
  private readonly facts = el('p', { class: 'plab-soft' });
  private readonly workers = el('p', { class: 'plab-soft plab-detail-workers' });
  private readonly reason = el('p', { class: 'plab-detail-reason' });
  private readonly disk = el('p', { class: 'plab-soft plab-disk' });
  private readonly does: { node: HTMLButtonElement; when: (row: RunRow) => boolean; whyNot?: (row: RunRow) => string }[];
  private row: RunRow | null = null;
  private measured = 0;
}

function diskText(disk: DiskUse, { trans }: ILab): string {
  const parts = [
    trans.__('checkpoints %1', si(disk.checkpoints, 'B')),
    trans.__('events %1', si(disk.events, 'B')),
    trans.__('evidence %1', si(disk.evidence, 'B')),
    trans.__('logs %1', si(disk.logs, 'B'))
  ];
  return trans.__('%1 on disk: %2', si(disk.total, 'B'), parts.join(', '));
}
