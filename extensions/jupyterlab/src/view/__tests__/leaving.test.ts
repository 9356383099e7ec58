import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { RunPicture, WorkerPicture } from '../../api/types';
import { isAttached, leavable, whyNotNow } from '../leaving';

const trans = nullTranslator.load('pluralis_lab');
const worker = (name: string, stage: number, replica: number, state = 'active') => ({ name, stage, replica, state }) as WorkerPicture;
const run = (workers: WorkerPicture[], more: Partial<RunPicture> = {}) =>
  ({ replicas: 1, engine: 'swarm', over: false, workers, ...more }) as RunPicture;

describe('a worker that is let go', () => {
  it('is one that came later, and is there', () => {
    const picture = run([worker('worker-0', 0, 0), worker('worker-1', 1, 0), worker('worker-2', 0, 1), worker('worker-3', 0, 2, 'stopped')]);
    expect(picture.workers.map(one => isAttached(one, picture))).toEqual([false, false, true, true]);
    expect(leavable(picture).map(one => one.name)).toEqual(['worker-2']);
    expect(leavable({ ...picture, over: true })).toEqual([]);
    expect(leavable({ ...picture, engine: 'virtual' })).toEqual([]);
  });

  it('is not the last that has its stage, and is up', () => {
    const [founder, later, coming] = [worker('worker-0', 0, 0, 'dead'), worker('worker-2', 0, 1), worker('worker-3', 0, 2, 'joining')];
    expect(whyNotNow(later, run([founder, later, coming]), trans)).toContain('the only one that has stage 0');
    expect(whyNotNow(later, run([{ ...founder, state: 'active' }, later]), trans)).toBe('');
    expect(whyNotNow(coming, run([founder, later, coming]), trans)).toContain('not up yet');
    expect(whyNotNow({ ...coming, state: 'syncing' }, run([founder, later, coming]), trans)).toBe('');
  });
});
