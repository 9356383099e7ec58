import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { Mark, RunEvent, RunPicture } from '../../api/types';
import { Clock } from '../clock';
import { contrast } from './contrast';
import { diverging, sequential } from '../colours';
import { epochStream, heatGrid, isMeasured, merged, roundStream, signersOf } from '../contributionsmodel';
import { along, axesOf, costOf, mapped, placedMarks, workersNote } from '../overviewmodel';
import { workerWord } from '../parts';
import { RoundDetail, windowStart } from '../rounddetail';
import { RoundWindow } from '../rounds';
import { edgeText, edgeWidth, dashSeconds, Deaths, fitting, headParts, planOf } from '../topologymodel';
import { busyOf, columnsOf, type GroupRow, groupText, matches, rowsOf, Speeds, type WorkerRow } from '../workersmodel';
import eventsJson from './recorded/events.json';
import finishedJson from './recorded/finished.json';
import midwayJson from './recorded/midway.json';

const trans = nullTranslator.load('pluralis_lab');
const recorded = (): RunPicture => structuredClone(midwayJson) as unknown as RunPicture;
const finished = (): RunPicture => structuredClone(finishedJson) as unknown as RunPicture;
const events = eventsJson as unknown as RunEvent[];

/** As many copies of the recorded workers as a big run has, told apart by name, stage and replica. */
function crowd(count: number, stages = 10): RunPicture {
  const picture = recorded();
  const model = picture.workers[0];
  picture.workers = Array.from({ length: count }, (_, i) => ({
    ...structuredClone(model),
    name: `worker-${i}`,
    stage: i % stages,
    replica: Math.floor(i / stages),
    participant: `lab-${i % 12}`
  }));
  picture.workers.sort((a, b) => a.stage - b.stage || a.replica - b.replica);
  return picture;
}

describe('the overview', () => {
  it('computes what a unit of loss cost, from the recorded run', () => {
    const picture = recorded();
    const clock = new Clock();
    clock.takeEvents(events);
    const cost = costOf(picture, clock);
    const sent = picture.workers.reduce((sum, worker) => sum + (worker.bytes_out ?? 0), 0);
    expect(cost.megabytes).toBeCloseTo(sent / 1e6);
    expect(cost.hours).toBeCloseTo(((clock.at(picture.round ?? 0) ?? 0) * picture.workers.length) / 3600, 6);
    expect(cost.gained).toBeGreaterThan(0);
    expect(cost.perHour).toBeCloseTo((cost.gained ?? 0) / (cost.hours ?? 1));
    expect(cost.onGpus).toBe(false);
    // One that is on its way has cost nothing yet.
    picture.workers.push({ ...picture.workers[0], name: 'worker-99', state: 'syncing', round: null, bytes_out: 0 });
    expect(costOf(picture, clock).hours).toBe(cost.hours);
  });

  it('offers time only when it is known, and keeps every point in order along any axis', () => {
    const picture = recorded();
    const clock = new Clock();
    expect(axesOf(picture, clock)).toEqual(['rounds', 'megabytes']);
    clock.takeEvents(events);
    expect(axesOf(picture, clock)).toEqual(['rounds', 'time', 'hours', 'megabytes']);
    for (const across of axesOf(picture, clock)) {
      const curve = mapped(picture.loss, along(picture, clock, across));
      expect(curve.x.length).toBe(picture.loss.x.length);
      expect(curve.x.every((x, i) => i === 0 || x > (curve.x[i - 1] ?? Infinity))).toBe(true);
    }
  });

  it('puts deaths and returns where they happened on the chosen axis', () => {
    const marks: Mark[] = [
      { kind: 'death', round: 5, worker: 'a', text: 'a died' },
      { kind: 'reroute', round: 5, worker: '', text: '' }
    ];
    expect(placedMarks(marks, round => round * 2)).toEqual([{ kind: 'death', round: 5, worker: 'a', text: 'a died', x: 10 }]);
  });
});

describe('the window of rounds', () => {
  it('tells exactly what the events say', () => {
    const window = new RoundWindow(64);
    window.takeEvents(events);
    for (const event of events.filter(one => one.kind === 'worker.round')) {
      expect(window.value(event.worker ?? '', event.round ?? 0, 'work')).toBeCloseTo(event.body.work_flops as number, -2);
    }
    expect(window.rounds()).toEqual(Array.from({ length: 35 }, (_, i) => i));
  });

  it('spreads work between two pictures evenly, and an event corrects the guess', () => {
    const [before, after] = [recorded(), recorded()];
    const worker = after.workers[0];
    const name = worker.name;
    worker.round = (before.workers[0]?.round ?? 0) + 4;
    worker.work_flops = (before.workers[0]?.work_flops ?? 0) + 400;
    const window = new RoundWindow(64);
    window.takePicture(before);
    window.takePicture(after);
    expect(window.value(name, worker.round, 'work')).toBe(100);
    expect(window.value(name, worker.round - 3, 'work')).toBe(100);
    window.takeEvents([{ seq: 1, time: 0, kind: 'worker.round', worker: name, round: worker.round, body: { work_flops: 70 } }]);
    expect(window.value(name, worker.round, 'work')).toBe(70);
    window.takePicture(before);
    window.takePicture(after);
    expect(window.value(name, worker.round, 'work')).toBe(70);
  });

  it('forgets what is older than its size, and keeps no more', () => {
    const window = new RoundWindow(8);
    const event = (round: number): RunEvent => ({ seq: round, time: 0, kind: 'worker.round', worker: 'w', round, body: { grad_norm: round } });
    window.takeEvents(Array.from({ length: 30 }, (_, i) => event(i)));
    expect(window.rounds()).toEqual([22, 23, 24, 25, 26, 27, 28, 29]);
    expect(window.value('w', 21, 'norm')).toBeNull();
    window.takeEvents([event(3)]);
    expect(window.value('w', 27, 'norm')).toBe(27);
  });

  it('begins anew when a resumed run goes on from far back', () => {
    const window = new RoundWindow(8);
    window.takeEvents([{ seq: 1, time: 0, kind: 'worker.round', worker: 'w', round: 500, body: { grad_norm: 1 } }]);
    window.takePicture(recorded());
    expect(window.last).toBeLessThan(40);
  });

  it('measures links between live workers only, and survives an odd event', () => {
    const picture = recorded();
    const window = new RoundWindow();
    window.takeEvents([
      { seq: 9999, time: 0, kind: 'worker.round', worker: 'worker-0', round: 34, body: { links: { 'worker-2': { forward_bytes: 1000, sync_bytes: 'x' }, 'worker-1': null } } }
    ]);
    picture.round_s = 0.5;
    const links = window.links(picture);
    expect(links).toContainEqual({ from: 'worker-0', to: 'worker-2', boundary: 2000, sync: 0 });
    picture.workers[2].state = 'dead';
    window.takeEvents(events.map(event => ({ ...event, seq: 10_000 + event.seq })));
    expect(window.links(picture).length).toBeGreaterThan(0);
    expect(window.links(picture).some(link => link.to === 'worker-2' || link.from === 'worker-2')).toBe(false);
  });

  it('shows what replicas that exchange every 20 rounds send as one rate, and not as a burst', () => {
    const picture = recorded();
    picture.round_s = 0.5;
    const window = new RoundWindow();
    const event = (seq: number, round: number): RunEvent => ({
      seq,
      time: 0,
      kind: 'worker.round',
      worker: 'worker-0',
      round,
      body: { links: { 'worker-2': { forward_bytes: 1000 }, ...(round % 20 === 19 ? { 'worker-1': { sync_bytes: 20_000 } } : {}) } }
    });
    window.takeEvents(Array.from({ length: 20 }, (_, round) => event(round, round)));
    for (let round = 20; round < 80; round += 1) {
      window.takeEvents([event(round, round)]);
      expect(window.links(picture)).toEqual([
        { from: 'worker-0', to: 'worker-2', boundary: 2000, sync: 0 },
        { from: 'worker-0', to: 'worker-1', boundary: 0, sync: 2000 }
      ]);
    }
    window.takeEvents([event(3, 3)]); // read once more
    expect(window.links(picture)).toHaveLength(2);
    window.takeEvents([event(100, 70)]); // which a resumed run trains again: of those before, ten are kept, without an exchange
    expect(window.links(picture)).toEqual([{ from: 'worker-0', to: 'worker-2', boundary: 2000, sync: 0 }]);
  });

  it('asks for no more events than it may, and for none again while the run is big', async () => {
    const picture = crowd(500);
    picture.seq = 500_000;
    picture.rounds_done = 1000;
    picture.round = 999;
    const asked: [number, number][] = [];
    let told = 0;
    const detail = new RoundDetail(
      (since, limit) => {
        asked.push([since, limit]);
        return Promise.resolve({ events: Array.from({ length: limit }, () => events[5]), next: since + limit });
      },
      () => (told += 1)
    );
    detail.want(picture);
    detail.want(picture);
    await new Promise(resolve => setTimeout(resolve));
    detail.want({ ...picture, seq: 600_000 });
    expect(asked.length * 2000).toBeLessThanOrEqual(8000);
    expect(asked[0]?.[0]).toBe(windowStart(picture, 240));
    expect(told).toBe(1);
    expect(detail.settled).toBe(true);
  });

  it('says why nothing could be read back, and goes on with pictures', async () => {
    const detail = new RoundDetail(() => Promise.reject(new Error('events are away')), () => undefined);
    detail.want(recorded());
    await new Promise(resolve => setTimeout(resolve));
    expect(detail.problem).toBe('events are away');
    expect(detail.settled).toBe(true);
  });

  it('does not take a part of the record for the whole', async () => {
    let asked = 0;
    const detail = new RoundDetail(
      () => {
        asked += 1;
        return Promise.resolve({ events: [], next: 0 });
      },
      () => undefined
    );
    detail.want({ ...recorded(), seq: 0 });
    await Promise.resolve();
    expect(asked).toBe(0);
  });
});

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
