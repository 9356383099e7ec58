// A curve of one word's size, for tables and lines of text.

import { setAttributes, svg } from "./dom.js";
import { extent, linePath } from "./scales.js";

/** A curve of one word's size. update({x, y}, {low, high}) takes fixed limits, or those of the values. */
export function sparkline({ width = 84, height = 20 } = {}) {
  const line = svg("path", { class: "plab-spark-line" });
  const end = svg("circle", { class: "plab-spark-end", r: 1.8 });
  const node = svg("svg", { class: "plab-spark", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, line, end);
  return {
    node,
    update(series, limits = {}) {
      if (!series.x.length) {
        line.removeAttribute("d");
        end.setAttribute("visibility", "hidden");
        return;
      }
      const [least, most] = extent([series.y]);
      const low = Math.min(limits.low ?? least, least);
      const high = Math.max(limits.high ?? most, most);
      const first = series.x[0];
      const last = Math.max(series.x[series.x.length - 1], first + 1);
      const toX = (x) => 2 + ((x - first) / (last - first)) * (width - 6);
      const toY = (y) => (high > low ? 2 + (1 - (y - low) / (high - low)) * (height - 4) : height / 2);
      setAttributes(line, { d: linePath(series.x, series.y, toX, toY) });
      const at = series.x.length - 1;
      setAttributes(end, { cx: toX(series.x[at]).toFixed(1), cy: toY(series.y[at]).toFixed(1), visibility: "visible" });
    },
  };
}
