/** Types of the drawing core, for the JupyterLab extension. Curves are of rounds unless an axis says otherwise. */

export type Props = Record<string, string | number | boolean | null | undefined>;

export const NOT_KNOWN: string;

export function el<K extends keyof HTMLElementTagNameMap>(tag: K, props?: Props, ...children: (Node | string)[]): HTMLElementTagNameMap[K];
export function svg<K extends keyof SVGElementTagNameMap>(tag: K, props?: Props, ...children: (Node | string)[]): SVGElementTagNameMap[K];
export function setText(node: Node, text: string): void;
export function setAttributes(node: Element, props: Props): void;
export function si(value: number | null | undefined, unit?: string): string;
export function fixed(value: number | null | undefined, digits: number): string;
export function precise(value: number | null | undefined): string;
export function percent(share: number | null | undefined): string;
export function duration(seconds: number | null | undefined): string;
export function tickText(value: number): string;
export function ticks(low: number, high: number, count: number): number[];
export function logTicks(low: number, high: number): number[];
export function lastValue(values: (number | null)[]): number | undefined;
export function nearest(x: number[], target: number): number;

/** What x is; `whole` allows ticks at whole numbers only. */
export interface ChartAxis {
  name: string;
  format?: (x: number) => string;
  whole?: boolean;
}

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

export interface Chart<Data> {
  readonly node: HTMLElement;
  update(data: Data): void;
  destroy(): void;
}

export type LineChart = Chart<LineChartData>;
export function lineChart(options: { title: string; unit: string; height?: number }): LineChart;

export interface StackedChartData {
  x: number[];
  layers: { name: string; tone: string | number; y: number[] }[];
  axis?: ChartAxis;
  format?: (value: number) => string;
  whole?: boolean;
}

export type StackedChart = Chart<StackedChartData>;
export function stackedChart(options: { title: string; unit: string; height?: number }): StackedChart;

export function sparkline(options?: { width?: number; height?: number }): {
  readonly node: SVGSVGElement;
  update(series: { x: number[]; y: (number | null)[] }, limits?: { low?: number; high?: number }): void;
};

export interface KeyedPart<Item> {
  readonly node: Element;
  update(item: Item): void;
}

/** Keep `host`'s children in step with `items`: same key, same node. */
export function keyed<Item>(
  host: Element,
  items: readonly Item[],
  keyOf: (item: Item) => string | number,
  make: (item: Item) => KeyedPart<Item>
): void;
