/** Types of the stacked chart, for the JupyterLab extension. */

import type { Chart, ChartAxis } from './chartframe.js';

export interface StackedChartData {
  x: number[];
  layers: { name: string; tone: string | number; y: number[] }[];
  axis?: ChartAxis;
  format?: (value: number) => string;
  whole?: boolean;
}

export type StackedChart = Chart<StackedChartData>;
export function stackedChart(options: { title: string; unit: string; height?: number }): StackedChart;
