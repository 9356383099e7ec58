/** Types of what the charts have in common, for the JupyterLab extension. Curves are of rounds unless an axis says otherwise. */

/** What x is; `whole` allows ticks at whole numbers only. */
export interface ChartAxis {
  name: string;
  format?: (x: number) => string;
  whole?: boolean;
}

export interface Chart<Data> {
  readonly node: HTMLElement;
  update(data: Data): void;
  destroy(): void;
}
