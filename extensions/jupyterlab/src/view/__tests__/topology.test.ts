import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import { edgeText, edgeWidth, dashSeconds, Deaths, fitting, planOf } from '../topologymodel';
import { crowd, recorded } from './pictures';

const trans = nullTranslator.load('pluralis_lab');

describe('the topology', () => {
  it('draws measured links as one edge for both directions, and evenly divided ones before that', () => {
    const picture = recorded();
    picture.workers.forEach(worker => Object.assign(worker, { state: 'active', bytes_per_s: 600 }));
    const guessed = planOf(picture, [], 900);
    expect(guessed.compact).toBe(false);
    expect(guessed.edges.length).toBe(8);
    expect(guessed.edges.every(edge => !edge.isMeasured && edge.bytesPerS > 0)).toBe(true);
    const plan = planOf(
      picture,
      [
        { from: 'worker-0', to: 'worker-2', boundary: 100, sync: 0 },
        { from: 'worker-2', to: 'worker-0', boundary: 50, sync: 0 },
        { from: 'worker-0', to: 'worker-1', boundary: 0, sync: 9 },
        { from: 'worker-0', to: 'ghost', boundary: 5, sync: 0 }
      ],
      900
    );
    expect(plan.edges.map(edge => [edge.key, edge.bytesPerS])).toEqual([
      ['boundary worker-0 worker-2', 150],
      ['sync worker-0 worker-1', 9]
    ]);
    expect(edgeText(plan.edges[0], trans)).toBe('worker-0 → worker-2: 100 B/s\nworker-2 → worker-0: 50 B/s\nactivations and gradients');
    expect(edgeText(plan.edges[1], trans)).toContain('worker-1 → worker-0: 0 B/s\nexchange');
    expect(edgeText(guessed.edges[0], trans)).toMatch(/^worker-0 – worker-2: [\d.]+ B\/s$/);
    expect(plan.most).toBe(150);
    expect(plan.mostSync).toBe(9);
  });

  it('says of a stage what there is room for, the most telling first', () => {
    const parts = ['2 of 2 live', '3.5 steps late', '1.20 MB/s'];
    expect(fitting(parts, 300)).toBe('2 of 2 live, 3.5 steps late, 1.20 MB/s');
    expect(fitting(parts, 190)).toBe('2 of 2 live, 3.5 steps late');
    expect(fitting(parts, 112)).toBe('2 of 2 live');
    expect(fitting(parts, 40)).toBe('');
  });

  it('becomes a grid for a crowd, in which no two workers overlap', () => {
    for (const width of [300, 1100]) {
      const plan = planOf(crowd(500), [], width);
      expect(plan.compact).toBe(true);
      const places = new Set(plan.spots.map(spot => `${spot.x} ${spot.y}`));
      expect(places.size).toBe(500);
      expect(Math.max(...plan.spots.map(spot => spot.y + spot.height))).toBeLessThanOrEqual(plan.height);
      expect(Math.max(...plan.spots.map(spot => spot.x + spot.width))).toBeLessThanOrEqual(width);
    }
  });

  it('draws wider and faster what carries more', () => {
    expect(edgeWidth(100, 100)).toBe(9);
    expect(edgeWidth(25, 100)).toBe(5);
    expect(edgeWidth(0, 0)).toBe(1);
    expect(dashSeconds(100, 100)).toBeLessThan(dashSeconds(1, 100));
  });

  it('notices who dies between pictures, not who was dead before', () => {
    const deaths = new Deaths();
    const picture = recorded();
    picture.workers[0].deaths = 1;
    expect(deaths.take({ ...picture, seq: 0 })).toEqual([]);
    expect(deaths.take(picture)).toEqual([]);
    const next = structuredClone(picture);
    // The supervisor has already started it again: the state "dead" was never in a picture.
    Object.assign(next.workers[1], { state: 'starting', deaths: 1 });
    expect(deaths.take(next)).toEqual(['worker-1']);
    expect(deaths.take(next)).toEqual([]);
  });
});
