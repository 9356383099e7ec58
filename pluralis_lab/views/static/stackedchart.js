// How a whole is made up, over rounds or epochs.

import { svg } from "./dom.js";
import { chartFrame, horizontal, ROUNDS } from "./chartframe.js";
import { percent, tickText } from "./numbers.js";
import { spread, ticks } from "./scales.js";

/**
 * Stacked areas with direct labels. Point at it, or focus it and use the arrow keys, to read one column.
 * update({x, layers: [{name, tone, y}], axis, format, whole}); each y is as long as x. With `whole` every column is drawn as
 * shares of its own sum.
 */
export function stackedChart({ title, unit, height = 190 }) {
  let data = null;
  const layers = ["areas", "grid", "labels"];
  const frame = chartFrame({ title, unit, height, layers, draw: (width, parts) => (data ? drawAreas(data, width, height, parts) : null) });
  return {
    node: frame.node,
    update(next) {
      data = { format: (y) => percent(y), whole: false, ...next, axis: { ...ROUNDS, ...next.axis } };
      frame.redraw();
    },
    destroy: frame.destroy,
  };
}

function drawAreas(data, width, height, parts) {
  const narrow = width < 360;
  const margin = { top: 8, right: narrow ? 78 : 128, bottom: 22, left: 40 };
  const [left, right] = [margin.left, width - margin.right];
  const { x, axis } = data;
  const total = (i) => data.layers.reduce((sum, layer) => sum + (layer.y[i] ?? 0), 0);
  const part = (layer, i) => (data.whole ? (layer.y[i] ?? 0) / (total(i) || 1) : (layer.y[i] ?? 0));
  let high = data.whole ? 1 : 0;
  if (!data.whole) for (let i = 0; i < x.length; i += 1) high = Math.max(high, total(i));
  high = high || 1;
  const first = x.length ? x[0] : 0;
  const last = x.length > 1 ? x[x.length - 1] : first + 1;
  const { toX, toValue } = horizontal(first, last, left, right);
  const toY = (y) => margin.top + (1 - y / high) * (height - margin.top - margin.bottom);

  // A single column is drawn as a block over the whole width.
  const columns = x.length === 1 ? [first, last] : x;
  const floor = columns.map(() => 0);
  const areas = [];
  const labels = [];
  for (const layer of data.layers) {
    const below = floor.map((y, i) => [columns[i], y]);
    columns.forEach((_, i) => {
      floor[i] += part(layer, Math.min(i, x.length - 1));
    });
    const above = floor.map((y, i) => [columns[i], y]);
    const outline = [...above, ...below.reverse()].map(([at, y]) => `${toX(at).toFixed(1)} ${toY(y).toFixed(1)}`);
    if (!outline.length) continue;
    areas.push(svg("path", { class: `plab-area plab-fill-${layer.tone}`, d: `M${outline.join("L")}Z` }, svg("title", { text: layer.name })));
    const end = part(layer, x.length - 1);
    if (end > 0) labels.push({ at: toY(floor[floor.length - 1] - end / 2), name: layer.name, end, tone: layer.tone });
  }
  parts.areas.replaceChildren(...areas);

  const grid = [];
  for (const y of ticks(0, high, 4)) {
    grid.push(svg("line", { class: "plab-grid plab-grid-over", x1: left, x2: right, y1: toY(y), y2: toY(y) }));
    grid.push(svg("text", { class: "plab-tick", x: left - 6, y: toY(y) + 3.5, "text-anchor": "end", text: data.whole ? `${Math.round(100 * y)} %` : tickText(y) }));
  }
  for (const at of ticks(first, last, narrow ? 3 : 6).filter((one) => !axis.whole || Number.isInteger(one))) {
    if (x.length) grid.push(svg("text", { class: "plab-tick", x: toX(at), y: height - 6, "text-anchor": "middle", text: axis.format(at) }));
  }
  grid.push(svg("text", { class: "plab-tick", x: right + 18, y: height - 6, text: axis.name }));
  parts.grid.replaceChildren(...grid);

  const room = Math.floor((margin.right - 30) / 6.3);
  parts.labels.replaceChildren(
    ...spread(labels, 13, margin.top + 4, height - margin.bottom - 4).flatMap((label) => {
      const text = data.format(label.end);
      const space = Math.max(3, room - text.length - 1);
      const name = label.name.length > space ? `${label.name.slice(0, space - 1)}…` : label.name;
      return [
        svg("rect", { class: `plab-fill-${label.tone}`, x: right + 5, y: label.at - 4, width: 8, height: 8, rx: 1.5 }),
        svg("text", { class: "plab-label plab-tone-ink", x: right + 17, y: label.at + 3.5, text: `${name} ${text}` }),
      ];
    }),
  );

  const read = (i) => {
    const present = data.layers.map((layer) => ({ name: layer.name, value: part(layer, i) })).filter((one) => one.value > 0);
    return `${axis.name} ${axis.format(x[i])}: ${present.map((one) => `${one.name} ${data.format(one.value)}`).join(", ")}`;
  };
  const label = labels.map((one) => `${one.name} ${data.format(one.end)}`).join(", ");
  return { x, toX, toValue, top: 6, bottom: height - 20, read, label };
}
