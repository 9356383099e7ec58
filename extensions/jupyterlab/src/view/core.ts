/** The one door to the drawing core that the anywidget shares with us. */

export { el, keyed, setAttributes, setText, svg } from '@pluralis-lab/views/dom.js';
export { lineChart } from '@pluralis-lab/views/linechart.js';
export { duration, fixed, NOT_KNOWN, percent, precise, si } from '@pluralis-lab/views/numbers.js';
export { sparkline } from '@pluralis-lab/views/sparkline.js';
export { stackedChart } from '@pluralis-lab/views/stackedchart.js';
export type { ChartAxis } from '@pluralis-lab/views/chartframe.js';
export type { LineChartData, LineChart } from '@pluralis-lab/views/linechart.js';
export type { StackedChart, StackedChartData } from '@pluralis-lab/views/stackedchart.js';
