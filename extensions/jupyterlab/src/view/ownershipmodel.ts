/** What the Ownership pane shows: who owns how much over the epochs, and what the chain says. DOM-free. */

import type { Ownership, RunPicture } from '../api/types';
import { type Layer, merged, type Stream, tonesOf } from './contributionsmodel';
import { wei } from './money';

export interface HolderRow {
  name: string;
  account: string;
  tone: number;
  share: number;
  /** null without a token. */
  claimable_wei: string | null;
  claimed_wei: string | null;
  isOurs: boolean;
}

/** What the drawn epochs are: those of the ledger, which has all of them, or the picture's latest. */
export function epochsOf(picture: RunPicture, ledger: Ownership | null): { epoch: number; shares: Record<string, number | null> }[] {
  if (!ledger?.epochs.length) {
    return picture.epochs;
  }
  return ledger.epochs.map(epoch => ({
    epoch: epoch.epoch,
    shares: Object.fromEntries(Object.entries(epoch.shares).map(([name, share]) => [name, fraction(share)]))
  }));
}

/** "3/7", "0.25" or "25 %" as a number; what cannot be read is null. */
export function fraction(text: string | number): number | null {
  if (typeof text === 'number') {
    return Number.isFinite(text) ? text : null;
  }
  const parts = /^\s*(\d+)\s*\/\s*(\d+)\s*$/.exec(text);
  if (parts) {
    const [over, under] = [BigInt(parts[1]), BigInt(parts[2])];
    // Both may exceed 2^53: divided as whole numbers first, to twelve digits.
    return under === 0n ? null : Number((over * 10n ** 12n) / under) / 1e12;
  }
  const value = text.trim().endsWith('%') ? parseFloat(text) / 100 : Number(text);
  return text.trim() !== '' && Number.isFinite(value) ? value : null;
}

/** What each participant owned of all tokens after every epoch: epochs give out alike, so shares add up. */
export function ownedStream(picture: RunPicture, ledger: Ownership | null, others: string): Stream {
  const epochs = epochsOf(picture, ledger);
  const tones = tonesOf(picture);
  const names = [...new Set([...picture.participants.map(one => one.name), ...epochs.flatMap(epoch => Object.keys(epoch.shares))])];
  const exact = ledger?.epochs.length ? amountsByName(ledger) : null;
  const layers: Layer[] = names.map((name, i) => {
    let sum = 0;
    const y = epochs.map((epoch, k) => {
      // Never shares and tokens in one sum.
      sum += exact ? (exact[k]?.get(name) ?? 0) : (epoch.shares[name] ?? 0);
      return sum;
    });
    return { name, tone: tones.get(name) ?? i % 8, y };
  });
  return { x: epochs.map(epoch => epoch.epoch), layers: merged(layers, others) };
}

/** Token wei of each epoch by name where the amounts are told by name; else null, and the shares are used. */
function amountsByName(ledger: Ownership): Map<string, number>[] | null {
  const named = ledger.epochs.every(epoch => Object.keys(epoch.amounts_wei).every(name => name in epoch.shares));
  const some = ledger.epochs.some(epoch => Object.keys(epoch.amounts_wei).length > 0);
  if (!named || !some) {
    return null;
  }
  return ledger.epochs.map(
    epoch => new Map(Object.entries(epoch.amounts_wei).map(([name, amount]) => [name, Number(wei(amount))]))
  );
}

export function holderRows(picture: RunPicture, ledger: Ownership | null): HolderRow[] {
  const tones = tonesOf(picture);
  const ours = new Set(ledger?.accounts ?? []);
  if (ledger?.token) {
    return ledger.token.holders
      .map((holder, i) => ({
        name: holder.name || holder.account,
        account: holder.account,
        tone: tones.get(holder.name) ?? i % 8,
        share: holder.percent / 100,
        claimable_wei: holder.claimable_wei,
        claimed_wei: holder.claimed_wei,
        isOurs: ours.has(holder.name) || ours.has(holder.account)
      }))
      .sort((a, b) => b.share - a.share);
  }
  return picture.participants
    .filter(one => one.owned !== null)
    .map(one => ({
      name: one.name,
      account: '',
      tone: tones.get(one.name) ?? OTHERS,
      share: one.owned ?? 0,
      claimable_wei: null,
      claimed_wei: null,
      isOurs: ours.has(one.name)
    }))
    .sort((a, b) => b.share - a.share);
}

const OTHERS = 7;

export type Deed = 'tokenize' | 'pay' | 'claim';

/** What can be done now; nothing in read-only mode or without an account here. */
export function deedsOf(ledger: Ownership, readOnly: boolean): Deed[] {
  if (readOnly) {
    return [];
  }
  if (canTokenize(ledger)) {
    return ['tokenize'];
  }
  if (ledger.can_pay && ledger.state === 'tokenized' && ledger.token) {
    return ledger.token.holders.some(holder => wei(holder.claimable_wei) > 0n) ? ['pay', 'claim'] : ['pay'];
  }
  return [];
}

/** Why nothing can be done: the first reason that applies. */
export function obstacleOf(ledger: Ownership, readOnly: boolean): 'read-only' | 'no-chain' | 'unreachable' | 'no-account' | null {
  if (ledger.state === 'none') {
    return 'no-chain';
  }
  if (ledger.state === 'unreachable') {
    return 'unreachable';
  }
  if (readOnly) {
    return 'read-only';
  }
  return ledger.can_pay || canTokenize(ledger) ? null : 'no-account';
}

/** `can_pay` is about a token; before there is one, an account on the embedded chain is what it takes. */
function canTokenize(ledger: Ownership): boolean {
  return ledger.state === 'untokenized' && ledger.accounts.length > 0 && (ledger.can_pay || ledger.chain.kind === 'embedded');
}

/** Whether the pane has anything to show: an epoch has been closed. */
export function hasOwnership(picture: RunPicture): boolean {
  return picture.epochs_closed > 0;
}
