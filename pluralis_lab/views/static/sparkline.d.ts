/** Types of the sparkline, for the JupyterLab extension. */

export function sparkline(options?: { width?: number; height?: number }): {
  readonly node: SVGSVGElement;
  update(series: { x: number[]; y: (number | null)[] }, limits?: { low?: number; high?: number }): void;
};
