import { describe, expect, it } from 'vitest';

import type { RunEvent } from '../../api/types';
import { contrast } from './contrast';
import { diverging, sequential } from '../colours';
import { epochStream, heatGrid, isMeasured, merged, roundStream, signersOf } from '../contributionsmodel';
import { RoundWindow } from '../rounds';
import { crowd, events, finished, recorded } from './pictures';

describe('contributions', () => {
  it('stacks the work of participants so that columns are the work of the round', () => {
    const picture = recorded();
    const window = new RoundWindow();
    window.takeEvents(events);
    const stream = roundStream(picture, window, 'worker', 'others');
    const round = stream.x[10] ?? 0;
    const sum = stream.layers.reduce((total, layer) => total + (layer.y[10] ?? 0), 0);
    const told = events.filter(event => event.kind === 'worker.round' && event.round === round);
    expect(sum).toBeCloseTo(told.reduce((total, event) => total + (event.body.work_flops as number), 0), -3);
  });

  it('leaves out the newest round while workers still tell of it', () => {
    const window = new RoundWindow();
    window.takeEvents(events);
    expect(roundStream({ ...recorded(), over: false }, window, 'participant', 'others').x.at(-1)).toBe(33);
    expect(roundStream({ ...recorded(), over: true }, window, 'participant', 'others').x.at(-1)).toBe(34);
  });

  it('keeps the seven biggest of many and adds the others up', () => {
    const layers = Array.from({ length: 20 }, (_, i) => ({ name: `w${i}`, tone: i % 8, y: [i, i] }));
    const kept = merged(layers, 'others');
    expect(kept.map(layer => layer.name)).toEqual(['w13', 'w14', 'w15', 'w16', 'w17', 'w18', 'w19', 'others']);
    expect(kept.at(-1)?.y).toEqual([78, 78]);
    expect(new Set(kept.map(layer => layer.tone)).size).toBe(8);
  });

  it('draws the shares that the epochs signed', () => {
    const picture = finished();
    const stream = epochStream(picture, picture.epochs, 'others');
    expect(stream.x).toEqual(picture.epochs.map(epoch => epoch.epoch));
    stream.x.forEach((_, i) => expect(stream.layers.reduce((sum, layer) => sum + (layer.y[i] ?? 0), 0)).toBeCloseTo(1, 3));
  });

  it('lays out a heat map in which every event has its cell', () => {
    const picture = recorded();
    const window = new RoundWindow();
    window.takeEvents(events);
    const grid = heatGrid(picture, window, 'norm', 'window');
    expect(grid.columns.length).toBe(35);
    expect(grid.values.length).toBe(picture.workers.length * 35);
    const event = events.find(one => one.kind === 'worker.round' && one.round === 12 && one.worker === 'worker-3');
    const row = grid.rows.findIndex(one => one.name === 'worker-3');
    expect(grid.values[row * 35 + 12]).toBeCloseTo(event?.body.grad_norm as number, 4);
    expect(grid.high).toBeGreaterThan(0);
  });

  it('shows what stands out where a column holds several rounds', () => {
    const picture = crowd(3, 1);
    const window = new RoundWindow(240);
    const event = (round: number, norm: number, agreement: number): RunEvent => ({
      seq: round,
      time: 0,
      kind: 'worker.round',
      worker: 'worker-0',
      round,
      body: { grad_norm: norm, agreement }
    });
    window.takeEvents(Array.from({ length: 240 }, (_, i) => event(i, i === 101 ? 9 : 1, i === 101 ? -0.8 : 0.7)));
    for (const [measure, extreme] of [['norm', 9], ['agreement', -0.8]] as const) {
      const grid = heatGrid(picture, window, measure, 'window');
      expect(grid.columns.length).toBe(120);
      expect(grid.values[50]).toBeCloseTo(extreme, 5);
    }
  });

  it('knows that nobody told an agreement', () => {
    const picture = crowd(2, 2);
    picture.workers.forEach(worker => (worker.agreement = { x: [], y: [] }));
    expect(isMeasured(picture, new RoundWindow(), 'agreement')).toBe(false);
    expect(isMeasured(picture, new RoundWindow(), 'norm')).toBe(true);
  });

  it('counts who counter-signed', () => {
    const receipt = { epoch: 0, kind: 'forward' as const, round: 1, worker: 'a', micro_batches: 1, norm: null, agreement: null, digest: 'd' };
    const signers = signersOf([
      { ...receipt, signer: 'b', signer_participant: 'lab-b', tokens: 5 },
      { ...receipt, signer: 'c', signer_participant: 'lab-c', tokens: 9 },
      { ...receipt, signer: 'c', signer_participant: 'lab-c', tokens: 1 }
    ]);
    expect(signers).toEqual([
      { name: 'c', participant: 'lab-c', receipts: 2, tokens: 10 },
      { name: 'b', participant: 'lab-b', receipts: 1, tokens: 5 }
    ]);
  });
});

describe('the scales of the heat map', () => {
  it('order by lightness alone, on light and on dark pages', () => {
    for (const dark of [false, true]) {
      const light = [0, 0.25, 0.5, 0.75, 1].map(share => contrast(sequential(share, dark)));
      const sorted = [...light].sort((a, b) => (dark ? a - b : b - a));
      expect(light).toEqual(sorted);
      expect(diverging(-1, dark)).not.toEqual(diverging(1, dark));
      expect(diverging(NaN, dark)).toEqual(diverging(0, dark));
    }
  });
});
