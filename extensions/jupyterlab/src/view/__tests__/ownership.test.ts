import { describe, expect, it } from 'vitest';

import type { AuditReply, Ownership, RunPicture } from '../../api/types';
import { differs, epochRows, isOutdated, shareRows } from '../evidencemodel';
import { defaultLayout, onlyPanes, panesOf, readLayout } from '../layout';
import { Ledger } from '../ledger';
import { ether, readAmount, shortHex, split } from '../money';
import { deedsOf, fraction, hasOwnership, holderRows, obstacleOf, ownedStream } from '../ownershipmodel';
import finishedJson from './recorded/finished.json';

const picture = (): RunPicture => structuredClone(finishedJson) as unknown as RunPicture;

function ledger(change: Partial<Ownership> = {}): Ownership {
  return {
    chain: { kind: 'embedded', chain_id: 1337, ledger: '0xaa', token: '0xbb' },
    state: 'tokenized',
    problem: '',
    accounts: ['default'],
    can_pay: true,
    epochs: [
      { epoch: 0, root: '0x01', shares: { default: '1/4', 'lab-b': '3/4' }, amounts_wei: { default: '25', 'lab-b': '75' }, attested_by: ['default'] },
      { epoch: 1, root: '0x02', shares: { default: '1/2', 'lab-b': '1/2' }, amounts_wei: { default: '50', 'lab-b': '50' }, attested_by: [] }
    ],
    token: {
      name: 'Run',
      symbol: 'RUN',
      epochs_posted: 2,
      epochs_finalized: 1,
      supply_wei: '200',
      paid_wei: '0',
      claimed_wei: '0',
      claimable_wei: '0',
      dust_wei: '0',
      holders: [
        { account: '0x1', name: 'default', shares_wei: '75', percent: 37.5, claimable_wei: '0', claimed_wei: '0' },
        { account: '0x2', name: 'lab-b', shares_wei: '125', percent: 62.5, claimable_wei: '7', claimed_wei: '1' }
      ]
    },
    ...change
  };
}

describe('amounts', () => {
  it('reads wei beyond 2^53 and writes them in ether', () => {
    expect(ether('1500000000000000000')).toBe('1.5');
    expect(ether('123456789012345678901234567')).toBe('123\u202f456\u202f789.0123');
    expect(ether('1')).toBe('< 0.0001');
    expect(ether('0')).toBe('0');
    expect(ether('not a number')).toBe('0');
  });

  it('reads an amount as people type it, and nothing else', () => {
    expect(readAmount('0,5')).toEqual({ ok: true, text: '0.5', wei: 5n * 10n ** 17n });
    expect(readAmount(' .25 ')).toEqual({ ok: true, text: '0.25', wei: 25n * 10n ** 16n });
    expect(readAmount('3')).toMatchObject({ ok: true, wei: 3n * 10n ** 18n });
    expect(readAmount('0.0000000000000000001')).toEqual({ ok: false, why: 'fine' });
    expect(readAmount('0.0')).toEqual({ ok: false, why: 'zero' });
    expect(readAmount('')).toEqual({ ok: false, why: 'empty' });
    for (const odd of ['1e3', '-1', '0x10', '1.2.3', 'NaN', '½']) {
      expect(readAmount(odd)).toEqual({ ok: false, why: 'form' });
    }
  });

  it('divides a payment by shares without giving out more than there is', () => {
    const parts = split(100n, [
      { name: 'a', shares_wei: '1' },
      { name: 'b', shares_wei: '2' }
    ]);
    expect(parts).toEqual([
      { name: 'a', wei: 33n },
      { name: 'b', wei: 66n }
    ]);
    expect(split(5n, [])).toEqual([]);
  });

  it('shortens addresses only', () => {
    expect(shortHex(`0x${'ab'.repeat(20)}`)).toBe('0xabab…abab');
    expect(shortHex('lab-a')).toBe('lab-a');
  });
});

describe('ownership', () => {
  it('adds the epochs up, exactly where amounts are named', () => {
    const stream = ownedStream(picture(), ledger(), 'others');
    expect(stream.x).toEqual([0, 1]);
    const ours = stream.layers.find(layer => layer.name === 'default')?.y ?? [];
    const theirs = stream.layers.find(layer => layer.name === 'lab-b')?.y ?? [];
    expect(ours).toEqual([25, 75]);
    expect(theirs).toEqual([75, 125]);
  });

  it('reads shares in every form that an exact share is written in', () => {
    expect(fraction('3/7')).toBeCloseTo(3 / 7);
    expect(fraction(`${10n ** 30n}/${4n * 10n ** 30n}`)).toBe(0.25);
    expect(fraction('12.5 %')).toBe(0.125);
    expect(fraction('0.5')).toBe(0.5);
    expect(fraction('1/0')).toBeNull();
    expect(fraction('')).toBeNull();
  });

  it('lists holders biggest first, and ours', () => {
    expect(holderRows(picture(), ledger()).map(row => [row.name, row.isOurs])).toEqual([
      ['lab-b', false],
      ['default', true]
    ]);
    const untold = holderRows(picture(), null);
    expect(untold.map(row => row.name)).toEqual(['default']);
    expect(untold[0]?.share).toBe(1);
  });

  it('offers only what can be done, and says why not', () => {
    expect(deedsOf(ledger(), false)).toEqual(['pay', 'claim']);
    expect(deedsOf(ledger({ state: 'untokenized', token: null }), false)).toEqual(['tokenize']);
    expect(deedsOf(ledger({ state: 'untokenized', token: null, can_pay: false }), false)).toEqual(['tokenize']);
    expect(deedsOf(ledger({ state: 'untokenized', token: null, can_pay: false, accounts: [] }), false)).toEqual([]);
    expect(deedsOf(ledger({ can_pay: false }), false)).toEqual([]);
    expect(deedsOf(ledger(), true)).toEqual([]);
    expect(obstacleOf(ledger(), true)).toBe('read-only');
    expect(obstacleOf(ledger({ can_pay: false }), false)).toBe('no-account');
    expect(obstacleOf(ledger({ state: 'none', token: null, can_pay: false }), true)).toBe('no-chain');
    expect(obstacleOf(ledger({ state: 'unreachable' }), false)).toBe('unreachable');
    expect(hasOwnership({ ...picture(), epochs_closed: 0 })).toBe(false);
  });

  it('reads the ledger once an epoch, and keeps the last state when it fails', async () => {
    let reads = 0;
    let fails = false;
    const state = new Ledger(
      () => {
        reads += 1;
        return fails ? Promise.reject(new Error('the chain sleeps')) : Promise.resolve(ledger());
      },
      () => undefined
    );
    state.want(picture());
    state.want(picture());
    await state.reload();
    state.want(picture());
    expect(reads).toBe(1);
    fails = true;
    state.want({ ...picture(), epochs_closed: 99 });
    await state.reload();
    expect(state.problem).toBe('the chain sleeps');
    expect(state.value).not.toBeNull();
  });
});

describe('evidence', () => {
  const audit = (change: Partial<AuditReply> = {}): AuditReply => ({
    ok: true,
    verdict: '',
    findings: [],
    notes: [],
    epochs: 2,
    statements: 9,
    attestations: 2,
    unattested_units: '0',
    ownership: [
      { epoch: 0, participant: 'default', units: '1', share: '1/4', percent: 25 },
      { epoch: 0, participant: 'lab-b', units: '3', share: '3/4', percent: 75 },
      { epoch: 1, participant: 'default', units: '1', share: '1/2', percent: 50 },
      { epoch: 1, participant: 'lab-b', units: '1', share: '1/2', percent: 50 }
    ],
    seconds: 1,
    ...change
  });

  it('lists epochs newest first with their roots and who attested', () => {
    const rows = epochRows(picture(), ledger());
    expect(rows[0]?.epoch).toBe(5);
    const first = rows.at(-1);
    expect(first).toMatchObject({ epoch: 0, from: 0, to: 9, root: '0x01' });
    expect(first?.statements).toBeGreaterThan(0);
  });

  it('sets recomputed shares beside recorded ones, and sees a difference', () => {
    const same = shareRows(audit(), picture(), ledger());
    expect(same.map(row => row.participant)).toEqual(['lab-b', 'default']);
    expect(same.some(differs)).toBe(false);
    const forged = ledger();
    forged.epochs[0].shares = { default: '3/4', 'lab-b': '1/4' };
    expect(shareRows(audit(), picture(), forged).every(differs)).toBe(true);
  });

  it('compares nothing when an audited epoch is not at hand', () => {
    const short = ledger({ epochs: ledger().epochs.slice(0, 1) });
    expect(shareRows(audit(), picture(), short).every(row => row.recorded === null)).toBe(true);
  });

  it('knows an old audit', () => {
    expect(isOutdated(audit({ epochs: 6 }), picture())).toBe(false);
    expect(isOutdated(audit({ epochs: 5 }), picture())).toBe(true);
  });
});

describe('the arrangement of panes', () => {
  const layout = defaultLayout(['overview', 'contributions'], ['workers']);

  it('survives a trip through JSON', () => {
    expect(readLayout(JSON.parse(JSON.stringify(layout)))).toEqual(layout);
  });

  it('leaves out what is not there, and the empty places with it', () => {
    const kept = onlyPanes(layout, new Set(['overview', 'contributions']));
    expect(kept.main).toEqual({ type: 'tabs', panes: ['overview', 'contributions'], current: 0 });
    expect(panesOf(onlyPanes(layout, new Set()))).toEqual([]);
  });

  it('keeps the chosen tab when others leave', () => {
    const chosen = readLayout({ version: 1, main: { type: 'tabs', panes: ['a', 'b', 'c'], current: 2 } });
    expect(chosen && onlyPanes(chosen, new Set(['b', 'c'])).main).toEqual({ type: 'tabs', panes: ['b', 'c'], current: 1 });
  });

  it('refuses what is broken or hostile', () => {
    let deep: unknown = { type: 'tabs', panes: ['x'], current: 0 };
    for (let i = 0; i < 50; i += 1) {
      deep = { type: 'split', orientation: 'horizontal', children: [deep, { type: 'tabs', panes: [`p${i}`], current: 0 }], sizes: [1, 1] };
    }
    expect(readLayout(null)).toBeNull();
    expect(readLayout({ version: 2, main: layout.main })).toBeNull();
    expect(readLayout({ version: 1, main: { type: 'tabs', panes: [1, {}], current: 0 } })).toBeNull();
    expect(panesOf(readLayout({ version: 1, main: deep }) ?? { version: 1, main: null }).length).toBeLessThan(20);
    const twice = readLayout({ version: 1, main: { type: 'split', orientation: 'x', children: [{ type: 'tabs', panes: ['a', 'a'], current: 9 }, { type: 'tabs', panes: ['a'], current: 0 }], sizes: [NaN, -1] } });
    expect(twice?.main).toEqual({ type: 'tabs', panes: ['a'], current: 0 });
  });
});
