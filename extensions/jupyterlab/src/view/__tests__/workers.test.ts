import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import { workersNote } from '../overviewmodel';
import { workerWord } from '../parts';
import { headParts, planOf } from '../topologymodel';
import { busyOf, columnsOf, type GroupRow, groupText, matches, rowsOf, Speeds, type WorkerRow } from '../workersmodel';
import { crowd, recorded } from './pictures';

const trans = nullTranslator.load('pluralis_lab');

describe('the workers', () => {
  it('draws no column that says nothing', () => {
    const picture = recorded();
    const columns = columnsOf(picture);
    expect(columns).not.toContain('gpu');
    expect(columns).not.toContain('deaths');
    expect(columns).not.toContain('delay');
    picture.workers[0].gpu_percent = 40;
    picture.workers[0].deaths = 1;
    picture.workers[0].delay = 0;
    expect(columnsOf(picture)).toContain('delay');
    expect(columnsOf(picture)).toContain('gpu');
    expect(columnsOf(picture)).toContain('deaths');
  });

  it('says how busy each is, sorted with those that are away last, and who is idle', () => {
    const picture = crowd(6, 2);
    expect(columnsOf(picture)).not.toContain('busy');
    picture.workers.forEach((worker, i) => Object.assign(worker, { state: i === 5 ? 'dead' : 'active', busy: i / 10, idle: i === 0 }));
    expect(columnsOf(picture)).toContain('busy');
    const options = { filter: '', grouping: 'none' as const, folded: new Set<string>(), sorting: { column: 'busy' as const, descending: true } };
    const { rows } = rowsOf(picture, new Speeds(), options);
    expect(rows.map(row => busyOf((row as WorkerRow).worker))).toEqual([0.4, 0.3, 0.2, 0.1, 0, null]);
    const idle = picture.workers[0];
    expect([workerWord(idle, false, trans), workerWord(idle, true, trans)]).toEqual(['active, idle', 'active']);
    expect(workerWord({ ...idle, state: 'dead' }, false, trans)).toBe('dead');
    expect(workerWord({ ...idle, idle: undefined }, false, trans)).toBe('active');
    expect(rowsOf(picture, new Speeds(), { ...options, filter: 'idle' }).shown).toBe(1);
  });

  it('says of a stage how late it is and how many idle, of a run that is over only the first', () => {
    const picture = crowd(4, 2);
    picture.stage_parameters = [];
    const late = [4, 3, 0, 0];
    picture.workers.forEach((worker, i) => Object.assign(worker, { state: 'active', bytes_per_s: 0, delay: late[i], idle: i === 1 }));
    const options = { filter: '', grouping: 'stage' as const, folded: new Set(['g stage 0', 'g stage 1']), sorting: null };
    const heads = (): string[] => rowsOf(picture, new Speeds(), options).rows.map(row => groupText(row as GroupRow, picture, trans));
    expect(heads()).toEqual(['Stage 0: 2 of 2 live, 1 idle, 3.5 steps late', 'Stage 1: 2 of 2 live']);
    expect(workersNote(picture, trans)).toBe('1 idle');
    expect(planOf(picture, [], 900).columns.map(column => headParts(column, trans))).toEqual([
      ['2 of 2 live', '1 idle', '3.5 steps late'],
      ['2 of 2 live']
    ]);
    picture.over = true;
    expect(heads()).toEqual(['Stage 0: 2 workers, 3.5 steps late', 'Stage 1: 2 workers']);
    expect(workersNote(picture, trans)).toBe('none died');
    expect(planOf(picture, [], 900).columns[0].idle).toBe(0);
    picture.workers.forEach(worker => (worker.delay = null));
    expect(heads()[0]).toBe('Stage 0: 2 workers');
  });

  it('filters by words and by stage', () => {
    const worker = { ...(recorded().workers[0]), name: 'worker-<b>x</b>', stage: 2, participant: 'lab-a', state: 'dead', reason: 'killed by signal 9' };
    expect(matches(worker, '')).toBe(true);
    expect(matches(worker, 'LAB-A dead')).toBe(true);
    expect(matches(worker, 'stage:2 signal')).toBe(true);
    expect(matches(worker, 'stage:1')).toBe(false);
    expect(matches(worker, '<b>x')).toBe(true);
    expect(matches(worker, 'nobody')).toBe(false);
  });

  it('groups, folds and sorts; what is not known goes last both ways', () => {
    const picture = crowd(24, 2);
    picture.workers.forEach((worker, i) => (worker.cpu_percent = i === 0 ? null : i));
    const options = { filter: '', grouping: 'none' as const, folded: new Set<string>() };
    for (const descending of [true, false]) {
      const { rows } = rowsOf(picture, new Speeds(), { ...options, sorting: { column: 'cpu', descending } });
      const values = rows.map(row => (row as WorkerRow).worker.cpu_percent);
      expect(values.at(-1)).toBeNull();
      expect(values[0]).toBe(descending ? 23 : 1);
    }
    const byName = rowsOf(picture, new Speeds(), { ...options, sorting: { column: 'name', descending: false } }).rows;
    expect(byName.map(row => (row as WorkerRow).worker.name).slice(8, 11)).toEqual(['worker-8', 'worker-9', 'worker-10']);
    const folded = rowsOf(picture, new Speeds(), { ...options, grouping: 'stage', sorting: null, folded: new Set(['g stage 0']) });
    expect(folded.rows.map(row => row.kind).slice(0, 3)).toEqual(['group', 'group', 'worker']);
    expect(folded.shown).toBe(24);
  });

  it('prepares 500 rows in a few milliseconds', () => {
    const picture = crowd(500);
    const speeds = new Speeds();
    speeds.take(picture);
    const begun = performance.now();
    for (let i = 0; i < 10; i += 1) {
      rowsOf(picture, speeds, { filter: 'worker', grouping: 'stage', sorting: { column: 'name', descending: true }, folded: new Set() });
    }
    expect((performance.now() - begun) / 10).toBeLessThan(25);
  });

  it('measures speed between pictures on the run’s own clock', () => {
    const [before, after] = [recorded(), recorded()];
    before.elapsed_s = 10;
    after.elapsed_s = 15;
    const worker = after.workers[0];
    worker.state = 'active';
    worker.tokens = (before.workers[0]?.tokens ?? 0) + 500;
    const speeds = new Speeds();
    speeds.take(before);
    speeds.take(after);
    expect(speeds.of(worker, { ...after, over: false })).toBeCloseTo(100);
    expect(speeds.of({ ...worker, state: 'dead' }, after)).toBeNull();
    expect(speeds.of({ ...worker, name: 'worker-99', tokens: 250 }, after)).toBeCloseTo(50); // attached between the two
  });
});
