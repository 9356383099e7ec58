/** The one door to the drawing core that the anywidget shares with us. */

export {
  duration,
  el,
  fixed,
  keyed,
  lineChart,
  NOT_KNOWN,
  percent,
  precise,
  setAttributes,
  setText,
  si,
  sparkline,
  stackedChart,
  svg
} from '@pluralis-lab/views/charts.js';
export type {
  ChartAxis,
  LineChartData,
  LineChart,
  StackedChart,
  StackedChartData
} from '@pluralis-lab/views/charts.js';
