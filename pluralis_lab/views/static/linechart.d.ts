/** Types of the line chart, for the JupyterLab extension. */

import type { Chart, ChartAxis } from './chartframe.js';

export interface LineSeries {
  name: string;
  tone: string | number;
  x: number[];
  y: (number | null)[];
  dots?: boolean;
}

export interface LineChartData {
  series: LineSeries[];
  baseline?: { name: string; value: number } | null;
  marks?: { round: number; x?: number; text: string; kind: string }[];
  format?: (y: number) => string;
  fromZero?: boolean;
  log?: boolean;
  axis?: ChartAxis;
}

export type LineChart = Chart<LineChartData>;
export function lineChart(options: { title: string; unit: string; height?: number }): LineChart;
