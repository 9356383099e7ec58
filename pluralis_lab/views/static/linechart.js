// Lines over rounds, time or bytes.

import { svg } from "./dom.js";
import { chartFrame, horizontal, ROUNDS } from "./chartframe.js";
import { precise, tickText } from "./numbers.js";
import { extent, lastValue, linePath, logTicks, nearest, spread, ticks } from "./scales.js";

const MARKS = { return: "↑", joined: "+" };

/**
 * A line chart with direct labels. Point at it, or focus it and use the arrow keys, to read single rounds.
 * update({series: [{name, tone, x, y, dots}], baseline: {name, value}, marks: [{round, x, text, kind}], format, fromZero, log, axis})
 * `axis` ({name, format, whole}) says what x is; by default it is the round. A mark stands at its `x`, or at its round.
 * `log` draws y on a logarithmic scale and leaves out what is not above zero.
 */
export function lineChart({ title, unit, height = 176 }) {
  let data = null;
  const layers = ["grid", "marks", "lines", "labels"];
  const frame = chartFrame({ title, unit, height, layers, draw: (width, parts) => (data ? drawLines(data, width, height, parts) : null) });
  return {
    node: frame.node,
    update(next) {
      data = { format: (y) => precise(y), ...next, axis: { ...ROUNDS, ...next.axis } };
      frame.redraw();
    },
    destroy: frame.destroy,
  };
}

function drawLines(data, width, height, parts) {
  const narrow = width < 360;
  const margin = { top: 16, right: narrow ? 62 : 84, bottom: 22, left: 40 };
  const [left, right] = [margin.left, width - margin.right];
  const drawn = data.series.filter((series) => series.x.length);
  const { axis, format } = data;
  const { first, last, low, high, bend } = limits(data, drawn);
  const { toX, toValue } = horizontal(first, last, left, right);
  const toY = (y) => margin.top + (1 - (bend(y) - low) / (high - low)) * (height - margin.top - margin.bottom);

  const grid = [];
  for (const y of data.log ? logTicks(low, high) : ticks(low, high, 5)) {
    grid.push(svg("line", { class: "plab-grid", x1: left, x2: right, y1: toY(y), y2: toY(y) }));
    grid.push(svg("text", { class: "plab-tick", x: left - 6, y: toY(y) + 3.5, "text-anchor": "end", text: tickText(y) }));
  }
  for (const x of ticks(first, last, narrow ? 3 : 6).filter((at) => !axis.whole || Number.isInteger(at))) {
    grid.push(svg("text", { class: "plab-tick", x: toX(x), y: height - 6, "text-anchor": "middle", text: axis.format(x) }));
  }
  grid.push(svg("text", { class: "plab-tick", x: right + 18, y: height - 6, text: axis.name }));
  parts.grid.replaceChildren(...grid);

  parts.marks.replaceChildren(
    ...(data.marks ?? [])
      .map((mark) => ({ ...mark, at: mark.x ?? mark.round }))
      .filter((mark) => mark.at >= first && mark.at <= last)
      .map((mark) => {
        const x = toX(mark.at);
        return svg(
          "g",
          { class: `plab-mark plab-mark-${mark.kind}` },
          svg("line", { x1: x, x2: x, y1: margin.top - 2, y2: height - margin.bottom }),
          svg("text", { x, y: margin.top - 5, "text-anchor": "middle", text: MARKS[mark.kind] ?? "✕" }),
          svg("title", { text: mark.text }),
        );
      }),
  );

  const lines = [];
  const labels = [];
  if (data.baseline) {
    const y = toY(data.baseline.value);
    lines.push(svg("line", { class: "plab-baseline", x1: left, x2: right, y1: y, y2: y }));
    labels.push({ at: y, tone: "baseline", text: `${data.baseline.name} ${format(data.baseline.value)}` });
  }
  for (const series of drawn) {
    lines.push(svg("path", { class: `plab-line plab-tone-${series.tone}`, d: linePath(series.x, series.y, toX, toY) }));
    if (series.dots && series.x.length <= 60) {
      series.x.forEach((x, i) => series.y[i] !== null && lines.push(svg("circle", { class: `plab-dot plab-tone-${series.tone}`, cx: toX(x), cy: toY(series.y[i]), r: 2.2 })));
    }
    const end = lastValue(series.y);
    if (end === undefined || !Number.isFinite(toY(end))) continue;
    labels.push({ at: toY(end), tone: series.tone, text: `${series.name} ${format(end)}`.trim() });
  }
  parts.lines.replaceChildren(...lines);
  parts.labels.replaceChildren(
    ...spread(labels, 13, margin.top, height - margin.bottom).map((label) =>
      svg("text", { class: `plab-label plab-tone-${label.tone}`, x: right + 6, y: label.at + 3.5, text: label.text }),
    ),
  );

  const places = drawn.length ? drawn[0].x : [];
  const read = (i) => {
    const values = drawn.map((series) => {
      const near = nearest(series.x, places[i]);
      const isClose = Math.abs(series.x[near] - places[i]) <= Math.max(axis.whole ? 1 : 0, (last - first) / 60);
      return isClose && series.y[near] !== null ? `${series.name} ${format(series.y[near])}`.trim() : "";
    });
    return `${axis.name} ${axis.format(places[i])}: ${values.filter(Boolean).join(", ")}`;
  };
  return { x: places, toX, toValue, top: 12, bottom: height - 20, read, label: labels.map((label) => label.text).join(", ") };
}

/** What the axes span: x from `first` to `last`, and y from `low` to `high` after `bend`, the logarithm or nothing. */
function limits(data, drawn) {
  const { axis } = data;
  const bend = data.log ? Math.log10 : (y) => y;
  const values = drawn.map((series) => series.y);
  if (data.baseline) values.push([data.baseline.value]);
  let [low, high] = extent(data.log ? values.map((some) => some.map((y) => (y > 0 ? Math.log10(y) : null))) : values);
  let [first, last] = extent(drawn.map((series) => series.x));
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  if (!Number.isFinite(first)) [first, last] = [0, 1];
  if (data.fromZero && !data.log) low = Math.min(0, low);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  high += room;
  if (!data.fromZero || data.log) low -= room;
  first = Math.min(0, first);
  last = Math.max(last, first + (axis.whole ? 4 : 1e-9));
  return { first, last, low, high, bend };
}
