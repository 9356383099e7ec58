import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { WorkerPicture } from '../api/types';
import { accountOptions, deviceOptions, mayBring, sourceOf, stageOptions } from './options';

const trans = nullTranslator.load('pluralis_lab');
const worker = (stage: number, state: string) => ({ stage, state }) as WorkerPicture;

describe('what can be chosen for a new worker', () => {
  it('names the devices of the machine', () => {
    const gpu = { device: 'cuda:0', name: 'NVIDIA H100 80GB HBM3', memory_bytes: 85_520_809_984 };
    expect(deviceOptions([{ device: 'cpu', name: '', memory_bytes: null }, gpu], trans)).toEqual([
      { value: 'cpu', text: 'cpu: the processor' },
      { value: 'cuda:0', text: 'cuda:0: NVIDIA H100 80GB HBM3, 85.5 GB' }
    ]);
  });

  it('leaves the stage to the run first, and says how many workers each has once that is known', () => {
    expect(stageOptions(2, null, trans).map(one => one.text).slice(1)).toEqual(['stage 0', 'stage 1']);
    const known = stageOptions(2, [worker(0, 'active'), worker(0, 'dead'), worker(1, 'serving')], trans);
    expect(known.map(one => one.value)).toEqual(['', '0', '1']);
    expect(known.map(one => one.text).slice(1)).toEqual(['stage 0: 1 of 2 live', 'stage 1: 1 of 1 live']);
  });

  it('offers the founder first, then who can sign here, or else who takes part', () => {
    const row = { account: 'lab-a', participants: ['lab-b', 'lab-a'] };
    expect(accountOptions(row, null, trans)).toEqual([
      { value: '', text: 'lab-a, the founder' },
      { value: 'lab-b', text: 'lab-b' }
    ]);
    expect(accountOptions(row, ['lab-z', 'lab-c', 'lab-a'], trans).map(one => one.value)).toEqual(['', 'lab-c', 'lab-z']);
  });

  it('asks for a text of its own only where the run draws from it and the worker may be a head', () => {
    expect(['', '0', '1'].map(stage => mayBring({ own_data: 0.5 }, stage))).toEqual([true, true, false]);
    expect(mayBring({ own_data: 0 }, '')).toBe(false);
  });

  it('takes a bare path for one, and nothing for nothing', () => {
    expect(['', '  ', 'path:', ' path:/a b.txt ', '~/notes.txt'].map(sourceOf)).toEqual(['', '', '', 'path:/a b.txt', 'path:~/notes.txt']);
  });
});
