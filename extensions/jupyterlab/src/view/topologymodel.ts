/** Where each worker stands in the drawing, what flows between them, and who has just died. DOM-free. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { RunPicture, WorkerPicture } from '../api/types';
import { si } from './core';
import { delayText } from './parts';
import { isIdle, isLive, isTraining, type Link, stageDelay } from './rounds';

export interface Spot {
  worker: WorkerPicture;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Column {
  stage: number;
  x: number;
  width: number;
  workers: number;
  live: number;
  bytesPerS: number;
  /** Steps that the stage's gradients are late; null under the synchronous schedule. */
  delay: number | null;
  idle: number;
}

export interface Edge {
  key: string;
  from: Spot;
  to: Spot;
  /** In both directions; `back` of these go from `to` to `from`. */
  bytesPerS: number;
  back: number;
  kind: 'boundary' | 'sync';
  /** The bytes are those of this link; else they are the worker's, divided evenly. */
  isMeasured: boolean;
}

export interface Plan {
  compact: boolean;
  width: number;
  height: number;
  columns: Column[];
  spots: Spot[];
  edges: Edge[];
  /** The largest bytes a second of an edge between stages, which is drawn widest; and of one between replicas. */
  most: number;
  mostSync: number;
}

/** Up to so many workers, and replicas a stage, each gets a box with its name; beyond, a cell of a grid. */
const MOST_BOXES = 48;
const MOST_ROWS = 12;
export const TOP = 34;
const CELL = 14;
const ARCS = 36;
const GAP = 3;

function columnsByStage(picture: RunPicture): [number, WorkerPicture[]][] {
  const stages = new Map<number, WorkerPicture[]>();
  for (const worker of picture.workers) {
    const column = stages.get(worker.stage);
    if (column) {
      column.push(worker);
    } else {
      stages.set(worker.stage, [worker]);
    }
  }
  return [...stages].sort(([a], [b]) => a - b);
}

/** Lay the workers out for a room of `width` pixels. */
export function planOf(picture: RunPicture, links: readonly Link[], width: number): Plan {
  const groups = columnsByStage(picture);
  const rows = Math.max(1, ...groups.map(([, workers]) => workers.length));
  const compact = picture.workers.length > MOST_BOXES || rows > MOST_ROWS;
  // At the right there is room for the arcs between the last stage's replicas.
  return compact ? gridPlan(groups, width, picture.over) : boxPlan(groups, links, width - ARCS, rows, picture.over);
}

function column(stage: number, workers: readonly WorkerPicture[], x: number, width: number, isOver: boolean): Column {
  const live = workers.filter(worker => isLive(worker.state));
  return {
    stage,
    x,
    width,
    workers: workers.length,
    live: live.length,
    bytesPerS: live.reduce((sum, one) => sum + (isTraining(one.state) ? (one.bytes_per_s ?? 0) : 0), 0),
    delay: stageDelay(workers),
    idle: isOver ? 0 : workers.filter(isIdle).length
  };
}

/** Bands of stages, each a grid of cells, as wide as the room; wrapped into several lines of stages when there are many. */
function gridPlan(groups: [number, WorkerPicture[]][], width: number, isOver: boolean): Plan {
  const most = Math.max(1, ...groups.map(([, workers]) => workers.length));
  const pitch = CELL + GAP;
  const across = Math.max(1, Math.min(groups.length, Math.floor(width / (pitch * 4 + 24))));
  const band = Math.floor(width / across);
  const perLine = Math.max(1, Math.floor((band - 20) / pitch));
  const lines = Math.ceil(most / perLine);
  const lineHeight = TOP + lines * pitch + 12;
  const spots: Spot[] = [];
  const columns: Column[] = [];
  groups.forEach(([stage, workers], i) => {
    const left = (i % across) * band;
    const top = Math.floor(i / across) * lineHeight;
    columns.push(column(stage, workers, left, band - 20, isOver));
    workers.forEach((worker, k) => {
      spots.push({
        worker,
        x: left + (k % perLine) * pitch,
        y: top + TOP + Math.floor(k / perLine) * pitch,
        width: CELL,
        height: CELL
      });
    });
  });
  const height = Math.ceil(groups.length / across) * lineHeight;
  return { compact: true, width, height, columns, spots, edges: [], most: Math.max(0, ...columns.map(one => one.bytesPerS)), mostSync: 0 };
}

function boxPlan(groups: [number, WorkerPicture[]][], links: readonly Link[], width: number, rows: number, isOver: boolean): Plan {
  const stages = Math.max(1, groups.length);
  const boxWidth = Math.max(112, Math.min(190, width / (stages + 0.75 * (stages - 1))));
  const gapX = stages > 1 ? Math.max(48, Math.min(200, (width - stages * boxWidth - 2) / (stages - 1))) : 0;
  const boxHeight = rows > 6 ? 34 : 52;
  const gapY = rows > 6 ? 8 : 22;
  const spots: Spot[] = [];
  const columns: Column[] = [];
  groups.forEach(([stage, workers], i) => {
    const x = 1 + i * (boxWidth + gapX);
    columns.push(column(stage, workers, x, boxWidth, isOver));
    workers.forEach((worker, k) => spots.push({ worker, x, y: TOP + k * (boxHeight + gapY), width: boxWidth, height: boxHeight }));
  });
  const edges = edgesOf(spots, links);
  return {
    compact: false,
    width: Math.max(width, stages * boxWidth + (stages - 1) * gapX + 2) + ARCS,
    height: TOP + rows * (boxHeight + gapY) + 4,
    columns,
    spots,
    edges,
    most: mostOf(edges, 'boundary'),
    mostSync: mostOf(edges, 'sync')
  };
}

function mostOf(edges: readonly Edge[], kind: Edge['kind']): number {
  return Math.max(0, ...edges.map(edge => (edge.kind === kind ? edge.bytesPerS : 0)));
}

/**
 * Both directions between two workers are one edge. Where no link was measured yet, a live worker's bytes are divided evenly
 * over the live workers of the neighbouring stages, so that the shape is right from the first picture on.
 */
function edgesOf(spots: readonly Spot[], links: readonly Link[]): Edge[] {
  const byName = new Map(spots.map(spot => [spot.worker.name, spot]));
  const edges = new Map<string, Edge>();
  const add = (a: Spot, b: Spot, bytesPerS: number, kind: Edge['kind'], isMeasured: boolean): void => {
    const [from, to] = a.worker.stage < b.worker.stage || (a.worker.stage === b.worker.stage && a.y <= b.y) ? [a, b] : [b, a];
    const key = `${kind} ${from.worker.name} ${to.worker.name}`;
    const edge = edges.get(key) ?? { key, from, to, bytesPerS: 0, back: 0, kind, isMeasured };
    edge.bytesPerS += bytesPerS;
    edge.back += from === a ? 0 : bytesPerS;
    edges.set(key, edge);
  };
  if (links.length) {
    for (const link of links) {
      const [from, to] = [byName.get(link.from), byName.get(link.to)];
      if (!from || !to) {
        continue;
      }
      if (link.boundary > 0) {
        add(from, to, link.boundary, 'boundary', true);
      }
      if (link.sync > 0) {
        add(from, to, link.sync, 'sync', true);
      }
    }
    return [...edges.values()];
  }
  const live = spots.filter(spot => isLive(spot.worker.state));
  for (const from of live) {
    const next = live.filter(to => Math.abs(to.worker.stage - from.worker.stage) === 1);
    for (const to of next) {
      add(from, to, (isTraining(from.worker.state) ? (from.worker.bytes_per_s ?? 0) : 0) / next.length, 'boundary', false);
    }
  }
  return [...edges.values()];
}

/** What goes over an edge, each direction by itself where it is measured. */
export function edgeText({ from, to, bytesPerS, back, kind, isMeasured }: Edge, trans: TranslationBundle): string {
  const [a, b] = [from.worker.name, to.worker.name];
  if (!isMeasured) {
    return `${a} – ${b}: ${si(bytesPerS, 'B/s')}`;
  }
  const what = kind === 'sync' ? trans.__('exchange between replicas') : trans.__('activations and gradients');
  return `${a} → ${b}: ${si(bytesPerS - back, 'B/s')}\n${b} → ${a}: ${si(back, 'B/s')}\n${what}`;
}

/** What is said of a stage, the most telling first. */
export function headParts(column: Column, trans: TranslationBundle): string[] {
  return [
    trans.__('%1 of %2 live', column.live, column.workers),
    column.idle ? trans.__('%1 idle', column.idle) : '',
    delayText(column.delay, trans),
    column.bytesPerS > 0 ? si(column.bytesPerS, 'B/s') : ''
  ].filter(Boolean);
}

/** As many of `parts`, in their order, as go into `width` pixels, joined; about 6 pixels a letter. '' where not even the first does. */
export function fitting(parts: readonly string[], width: number): string {
  for (let count = parts.length; count > 0; count -= 1) {
    const text = parts.slice(0, count).join(', ');
    if (text.length * 6 <= width) {
      return text;
    }
  }
  return '';
}

/** Pixels of an edge: by the square root, as an area would show it, from 1 to `widest`. */
export function edgeWidth(bytesPerS: number, most: number, widest = 9): number {
  return most > 0 ? 1 + (widest - 1) * Math.sqrt(Math.max(0, bytesPerS) / most) : 1;
}

/** Seconds in which a dash moves on by one pattern: the widest edge moves fastest. */
export function dashSeconds(bytesPerS: number, most: number): number {
  return most > 0 && bytesPerS > 0 ? Math.min(4, 0.7 / Math.sqrt(bytesPerS / most)) : 4;
}

/**
 * Notices who died between two pictures, by the count of deaths: the supervisor starts a worker again so soon that the state
 * "dead" itself often falls between two pictures.
 */
export class Deaths {
  private before: Map<string, number> | null = null;

  take(picture: RunPicture): string[] {
    if (picture.seq === 0) {
      // A part of the record, read for the first time: those deaths are long past.
      return [];
    }
    const { before } = this;
    this.before = new Map(picture.workers.map(worker => [worker.name, worker.deaths]));
    return before ? picture.workers.filter(worker => worker.deaths > (before.get(worker.name) ?? worker.deaths)).map(worker => worker.name) : [];
  }
}
