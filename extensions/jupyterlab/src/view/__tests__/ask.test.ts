import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { WorkerPicture } from '../../api/types';
import { numberIn, whyNoText } from '../askmodel';

const trans = nullTranslator.load('pluralis_lab');
const worker = (stage: number, state: string) => ({ stage, state }) as WorkerPicture;
const run = { engine: 'swarm' as const, over: false, stages: 2, workers: [worker(0, 'active'), worker(1, 'serving')] };

describe('asking the model', () => {
  it('takes a live worker in each stage, and says what is missing', () => {
    expect(whyNoText(run, trans)).toBe('');
    expect(whyNoText({ ...run, engine: 'virtual' }, trans)).toContain('simulation');
    expect(whyNoText({ ...run, over: true }, trans)).toContain('resume it');
    expect(whyNoText({ ...run, workers: [worker(0, 'active'), worker(1, 'syncing')] }, trans)).toContain('Stage 1 has no live worker');
  });

  it('reads numbers as they are typed, and nothing else', () => {
    expect(numberIn(' 80 ', 1, 100, true)).toBe(80);
    expect(numberIn('0.8', 0, 10, false)).toBe(0.8);
    for (const text of ['', ' ', 'x', '0', '101', '1.5', '1e999']) {
      expect(numberIn(text, 1, 100, true)).toBeNull();
    }
  });
});
