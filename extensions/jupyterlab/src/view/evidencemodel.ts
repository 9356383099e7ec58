/** What the Evidence pane lists: the closed epochs with their roots, and an audit's shares beside the recorded ones. DOM-free. */

import type { AuditReply, Ownership, RunPicture } from '../api/types';
import { epochsOf } from './ownershipmodel';

export interface EpochRow {
  epoch: number;
  /** First and last round. */
  from: number;
  to: number;
  root: string;
  statements: number | null;
  unpaid: number | null;
  attestedBy: string[];
}

/** Newest first; the picture knows statements of its latest epochs, the ledger roots of all. */
export function epochRows(picture: RunPicture, ledger: Ownership | null): EpochRow[] {
  const roots = new Map(ledger?.epochs.map(epoch => [epoch.epoch, epoch]) ?? []);
  const told = new Map(picture.epochs.map(epoch => [epoch.epoch, epoch]));
  const numbers = [...new Set([...roots.keys(), ...told.keys()])].sort((a, b) => b - a);
  return numbers.map(epoch => {
    const [root, picture_] = [roots.get(epoch), told.get(epoch)];
    const from = epoch * picture.epoch_rounds;
    return {
      epoch,
      from,
      to: picture_?.round ?? Math.min(from + picture.epoch_rounds, picture.steps) - 1,
      root: root?.root ?? '',
      statements: picture_?.statements ?? null,
      unpaid: picture_?.unpaid ?? null,
      attestedBy: picture_?.attested_by ?? root?.attested_by ?? []
    };
  });
}

export interface ShareRow {
  participant: string;
  /** Mean share over the audited epochs, recomputed from the statements. */
  recomputed: number;
  recorded: number | null;
}

/** Each participant's mean share over the epochs: recomputed by the audit, and as recorded. */
export function shareRows(audit: AuditReply, picture: RunPicture, ledger: Ownership | null): ShareRow[] {
  const epochs = new Set(audit.ownership.map(row => row.epoch));
  const count = Math.max(1, epochs.size);
  const recomputed = new Map<string, number>();
  for (const row of audit.ownership) {
    recomputed.set(row.participant, (recomputed.get(row.participant) ?? 0) + row.percent / 100 / count);
  }
  const known = epochsOf(picture, ledger).filter(epoch => epochs.has(epoch.epoch));
  // Only if every audited epoch is at hand: a mean over others would look like a finding.
  const isWhole = known.length === epochs.size;
  const recorded = new Map<string, number>();
  for (const epoch of known) {
    for (const [name, share] of Object.entries(epoch.shares)) {
      recorded.set(name, (recorded.get(name) ?? 0) + (share ?? 0) / count);
    }
  }
  return [...new Set([...recomputed.keys(), ...(isWhole ? recorded.keys() : [])])]
    .map(participant => ({
      participant,
      recomputed: recomputed.get(participant) ?? 0,
      recorded: isWhole ? (recorded.get(participant) ?? 0) : null
    }))
    .sort((a, b) => b.recomputed - a.recomputed);
}

/** Whether a figure of the audit differs from the record by more than its rounding. */
export function differs(row: ShareRow): boolean {
  return row.recorded !== null && Math.abs(row.recorded - row.recomputed) > 1e-3;
}

/** The audit was made when fewer epochs were closed than now. */
export function isOutdated(audit: AuditReply, picture: RunPicture): boolean {
  return picture.epochs_closed > audit.epochs;
}
