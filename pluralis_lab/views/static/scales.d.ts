/** Types of axes and curves, for the JupyterLab extension. */

export function ticks(low: number, high: number, count: number): number[];
export function logTicks(low: number, high: number): number[];
export function extent(arrays: readonly (readonly (number | null)[])[]): [number, number];
export function lastValue(values: readonly (number | null)[]): number | undefined;
export function nearest(x: readonly number[], target: number): number;
