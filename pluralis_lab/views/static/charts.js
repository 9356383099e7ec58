// Charts and number formats of pluralis_lab's views: plain SVG, no dependency, text only ever as text.

const SVG = "http://www.w3.org/2000/svg";

/** Make an HTML element; `props` are attributes, except `text`, which becomes its text content. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Make an SVG element, in the same way as `el`. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Set text only when it changed, so that a reader's selection and a screen reader's place survive an update. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttributes(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

export const NOT_KNOWN = "–";
const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

/** 12345 -> "12.3 k"; the unit follows the prefix: si(12345, "B") -> "12.3 kB". */
export function si(value, unit = "") {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOT_KNOWN;
  let size = Math.abs(value);
  let power = 0;
  while (size >= 999.5 && power < PREFIXES.length - 1) {
    size /= 1000;
    power += 1;
  }
  const digits = power === 0 && Number.isInteger(size) ? 0 : size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return `${value < 0 ? "-" : ""}${size.toFixed(digits)} ${PREFIXES[power]}${unit}`.trim();
}

export function fixed(value, digits) {
  return value === null || value === undefined || !Number.isFinite(value) ? NOT_KNOWN : value.toFixed(digits);
}

/** Three significant digits without an exponent for usual sizes. */
export function precise(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOT_KNOWN;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
}

export function percent(share) {
  return share === null || share === undefined ? NOT_KNOWN : `${(100 * share).toFixed(1)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NOT_KNOWN;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 2880
    ? `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`
    : `${Math.floor(minutes / 1440)} d ${two(Math.floor((minutes % 1440) / 60))} h`;
}

/** A tick's number: as short as it can be, with an SI prefix. */
export function tickText(value) {
  const power = Math.abs(value) >= 1000 ? Math.min(PREFIXES.length - 1, Math.floor(Math.log10(Math.abs(value)) / 3)) : 0;
  return `${Number((value / 1000 ** power).toPrecision(6))} ${PREFIXES[power]}`.trim();
}

/** Round numbers that cover [low, high] in about `count` steps. */
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const result = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) result.push(Number((i * step).toPrecision(12)));
  return result;
}

function extent(arrays) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of arrays) {
    for (const value of values) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

/** Ticks of a logarithmic axis, given in log10: 1, 2 and 5 of each decade, or linear ones where those are too few. */
export function logTicks(low, high) {
  const result = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const factor of [1, 2, 5]) {
      const at = power + Math.log10(factor);
      if (at >= low && at <= high) result.push(Number((factor * 10 ** power).toPrecision(6)));
    }
  }
  return result.length >= 3 ? result : ticks(10 ** low, 10 ** high, 5).filter((value) => value > 0);
}

function path(x, y, toX, toY) {
  let d = "";
  for (let i = 0; i < x.length; i += 1) {
    if (y[i] !== null && Number.isFinite(toY(y[i]))) d += `${d ? "L" : "M"}${toX(x[i]).toFixed(1)} ${toY(y[i]).toFixed(1)}`;
  }
  return d;
}

/** The last value that is known, or undefined. */
export function lastValue(values) {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null) return values[i];
  return undefined;
}

const ROUNDS = { name: "round", format: String, whole: true };

/** Move labels apart so that neighbours keep `gap`, within [low, high]. */
function spread(labels, gap, low, high) {
  const order = [...labels].sort((a, b) => a.at - b.at);
  order.forEach((label, i) => {
    label.at = Math.max(label.at, i ? order[i - 1].at + gap : low);
  });
  for (let i = order.length - 1; i >= 0; i -= 1) {
    order[i].at = Math.min(order[i].at, i === order.length - 1 ? high : order[i + 1].at - gap);
  }
  return order;
}

/** The index of the point of `x` (ascending) nearest to `target`. */
export function nearest(x, target) {
  let low = 0;
  let high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] < target) low = middle;
    else high = middle;
  }
  return Math.abs(x[low] - target) <= Math.abs(x[high] - target) ? low : high;
}

/**
 * A line chart with direct labels. Point at it, or focus it and use the arrow keys, to read single rounds.
 * update({series: [{name, tone, x, y, dots}], baseline: {name, value}, marks: [{round, x, text, kind}], format, fromZero, log, axis})
 * `axis` ({name, format, whole}) says what x is; by default it is the round. A mark stands at its `x`, or at its round.
 * `log` draws y on a logarithmic scale and leaves out what is not above zero.
 */
export function lineChart({ title, unit, height = 176 }) {
  const readout = el("span", { class: "plab-readout" });
  const plot = svg("svg", { class: "plab-plot", height, role: "img", tabindex: "0" });
  const node = el(
    "figure",
    { class: "plab-chart" },
    el("figcaption", {}, el("span", { class: "plab-title", text: title }), el("span", { class: "plab-unit", text: unit }), readout),
    plot,
  );
  const layers = { grid: svg("g"), marks: svg("g"), lines: svg("g"), labels: svg("g"), cursor: svg("g", { class: "plab-cursor" }) };
  plot.append(...Object.values(layers));
  let data = null;
  let cursor = null;
  let scale = null;

  function draw() {
    const width = plot.clientWidth || node.clientWidth;
    if (!data || !width) return;
    const narrow = width < 360;
    const margin = { top: 16, right: narrow ? 62 : 84, bottom: 22, left: 40 };
    const drawn = data.series.filter((series) => series.x.length);
    const values = drawn.map((series) => series.y);
    if (data.baseline) values.push([data.baseline.value]);
    const axis = data.axis;
    const log = Boolean(data.log);
    const bend = log ? Math.log10 : (y) => y;
    let [low, high] = extent(log ? values.map((some) => some.map((y) => (y > 0 ? Math.log10(y) : null))) : values);
    let [first, last] = extent(drawn.map((series) => series.x));
    if (!Number.isFinite(low)) [low, high] = [0, 1];
    if (!Number.isFinite(first)) [first, last] = [0, 1];
    if (data.fromZero && !log) low = Math.min(0, low);
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    high += room;
    if (!data.fromZero || log) low -= room;
    first = Math.min(0, first);
    last = Math.max(last, first + (axis.whole ? 4 : 1e-9));
    const toX = (x) => margin.left + ((x - first) / (last - first)) * (width - margin.left - margin.right);
    const toY = (y) => margin.top + (1 - (bend(y) - low) / (high - low)) * (height - margin.top - margin.bottom);
    scale = { toX, first, last, left: margin.left, right: width - margin.right, drawn };

    const grid = [];
    for (const y of log ? logTicks(low, high) : ticks(low, high, 5)) {
      grid.push(svg("line", { class: "plab-grid", x1: margin.left, x2: width - margin.right, y1: toY(y), y2: toY(y) }));
      grid.push(svg("text", { class: "plab-tick", x: margin.left - 6, y: toY(y) + 3.5, "text-anchor": "end", text: tickText(y) }));
    }
    for (const x of ticks(first, last, narrow ? 3 : 6).filter((at) => !axis.whole || Number.isInteger(at))) {
      grid.push(svg("text", { class: "plab-tick", x: toX(x), y: height - 6, "text-anchor": "middle", text: axis.format(x) }));
    }
    grid.push(svg("text", { class: "plab-tick", x: width - margin.right + 18, y: height - 6, text: axis.name }));
    layers.grid.replaceChildren(...grid);

    layers.marks.replaceChildren(
      ...(data.marks ?? [])
        .map((mark) => ({ ...mark, at: mark.x ?? mark.round }))
        .filter((mark) => mark.at >= first && mark.at <= last)
        .map((mark) => {
          const x = toX(mark.at);
          return svg(
            "g",
            { class: `plab-mark plab-mark-${mark.kind}` },
            svg("line", { x1: x, x2: x, y1: margin.top - 2, y2: height - margin.bottom }),
            svg("text", { x, y: margin.top - 5, "text-anchor": "middle", text: mark.kind === "return" ? "↑" : "✕" }),
            svg("title", { text: mark.text }),
          );
        }),
    );

    const lines = [];
    const labels = [];
    if (data.baseline) {
      const y = toY(data.baseline.value);
      lines.push(svg("line", { class: "plab-baseline", x1: margin.left, x2: width - margin.right, y1: y, y2: y }));
      labels.push({ at: y, tone: "baseline", text: `${data.baseline.name} ${data.format(data.baseline.value)}` });
    }
    for (const series of drawn) {
      lines.push(svg("path", { class: `plab-line plab-tone-${series.tone}`, d: path(series.x, series.y, toX, toY) }));
      if (series.dots && series.x.length <= 60) {
        series.x.forEach((x, i) => series.y[i] !== null && lines.push(svg("circle", { class: `plab-dot plab-tone-${series.tone}`, cx: toX(x), cy: toY(series.y[i]), r: 2.2 })));
      }
      const end = lastValue(series.y);
      if (end === undefined || !Number.isFinite(toY(end))) continue;
      labels.push({ at: toY(end), tone: series.tone, text: `${series.name} ${data.format(end)}`.trim() });
    }
    layers.lines.replaceChildren(...lines);
    layers.labels.replaceChildren(
      ...spread(labels, 13, margin.top, height - margin.bottom).map((label) =>
        svg("text", { class: `plab-label plab-tone-${label.tone}`, x: width - margin.right + 6, y: label.at + 3.5, text: label.text }),
      ),
    );
    plot.setAttribute("aria-label", `${title}, ${unit}: ${labels.map((label) => label.text).join(", ") || "no values yet"}`);
    drawCursor();
  }

  function drawCursor() {
    if (cursor === null || !scale || !scale.drawn.length) {
      layers.cursor.replaceChildren();
      setText(readout, "");
      return;
    }
    const lead = scale.drawn[0];
    const round = lead.x[nearest(lead.x, cursor)];
    const x = scale.toX(round);
    layers.cursor.replaceChildren(svg("line", { x1: x, x2: x, y1: 12, y2: height - 20 }));
    const parts = scale.drawn.map((series) => {
      const i = nearest(series.x, round);
      const close = Math.abs(series.x[i] - round) <= Math.max(1, (scale.last - scale.first) / 60);
      return close && series.y[i] !== null ? `${series.name} ${data.format(series.y[i])}`.trim() : "";
    });
    setText(readout, `${data.axis.name} ${data.axis.format(round)}: ${parts.filter(Boolean).join(", ")}`);
  }

  plot.addEventListener("pointermove", (event) => {
    if (!scale) return;
    const at = event.clientX - plot.getBoundingClientRect().left;
    cursor = scale.first + ((at - scale.left) / (scale.right - scale.left)) * (scale.last - scale.first);
    drawCursor();
  });
  plot.addEventListener("pointerleave", () => {
    cursor = null;
    drawCursor();
  });
  plot.addEventListener("blur", () => {
    cursor = null;
    readout.removeAttribute("role");
    drawCursor();
  });
  plot.addEventListener("keydown", (event) => {
    if (!scale || !scale.drawn.length) return;
    const x = scale.drawn[0].x;
    const here = cursor === null ? x.length - 1 : nearest(x, cursor);
    const stride = Math.max(1, Math.round(x.length / 50));
    const target = { ArrowLeft: here - stride, ArrowRight: here + stride, Home: 0, End: x.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    cursor = x[Math.min(x.length - 1, Math.max(0, target))];
    readout.setAttribute("role", "status");
    drawCursor();
  });
  const observer = new ResizeObserver(draw);
  observer.observe(plot);

  return {
    node,
    update(next) {
      data = { format: (y) => precise(y), ...next, axis: { ...ROUNDS, ...next.axis } };
      draw();
    },
    destroy() {
      observer.disconnect();
    },
  };
}

/**
 * Stacked areas with direct labels: how a whole is made up, over rounds or epochs. Point at it, or focus it and use the arrow
 * keys, to read one column. update({x, layers: [{name, tone, y}], axis, format, whole}); each y is as long as x. With `whole`
 * every column is drawn as shares of its own sum.
 */
export function stackedChart({ title, unit, height = 190 }) {
  const readout = el("span", { class: "plab-readout" });
  const plot = svg("svg", { class: "plab-plot", height, role: "img", tabindex: "0" });
  const node = el(
    "figure",
    { class: "plab-chart" },
    el("figcaption", {}, el("span", { class: "plab-title", text: title }), el("span", { class: "plab-unit", text: unit }), readout),
    plot,
  );
  const layers = { areas: svg("g"), grid: svg("g"), labels: svg("g"), cursor: svg("g", { class: "plab-cursor" }) };
  plot.append(...Object.values(layers));
  let data = null;
  let cursor = null;
  let scale = null;

  const total = (i) => data.layers.reduce((sum, layer) => sum + (layer.y[i] ?? 0), 0);
  const part = (layer, i) => (data.whole ? (layer.y[i] ?? 0) / (total(i) || 1) : (layer.y[i] ?? 0));

  function draw() {
    const width = plot.clientWidth || node.clientWidth;
    if (!data || !width) return;
    const narrow = width < 360;
    const margin = { top: 8, right: narrow ? 78 : 128, bottom: 22, left: 40 };
    const { x, axis } = data;
    let high = data.whole ? 1 : 0;
    if (!data.whole) for (let i = 0; i < x.length; i += 1) high = Math.max(high, total(i));
    high = high || 1;
    const first = x.length ? x[0] : 0;
    const last = x.length > 1 ? x[x.length - 1] : first + 1;
    const toX = (at) => margin.left + ((at - first) / (last - first)) * (width - margin.left - margin.right);
    const toY = (y) => margin.top + (1 - y / high) * (height - margin.top - margin.bottom);
    scale = { toX, first, last, left: margin.left, right: width - margin.right };
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
    layers.areas.replaceChildren(...areas);
    const grid = [];
    for (const y of ticks(0, high, 4)) {
      grid.push(svg("line", { class: "plab-grid plab-grid-over", x1: margin.left, x2: width - margin.right, y1: toY(y), y2: toY(y) }));
      grid.push(svg("text", { class: "plab-tick", x: margin.left - 6, y: toY(y) + 3.5, "text-anchor": "end", text: data.whole ? `${Math.round(100 * y)} %` : tickText(y) }));
    }
    for (const at of ticks(first, last, narrow ? 3 : 6).filter((one) => !axis.whole || Number.isInteger(one))) {
      if (x.length) grid.push(svg("text", { class: "plab-tick", x: toX(at), y: height - 6, "text-anchor": "middle", text: axis.format(at) }));
    }
    grid.push(svg("text", { class: "plab-tick", x: width - margin.right + 18, y: height - 6, text: axis.name }));
    layers.grid.replaceChildren(...grid);
    const room = Math.floor((margin.right - 30) / 6.3);
    layers.labels.replaceChildren(
      ...spread(labels, 13, margin.top + 4, height - margin.bottom - 4).flatMap((label) => {
        const text = data.format(label.end);
        const space = Math.max(3, room - text.length - 1);
        const name = label.name.length > space ? `${label.name.slice(0, space - 1)}…` : label.name;
        return [
          svg("rect", { class: `plab-fill-${label.tone}`, x: width - margin.right + 5, y: label.at - 4, width: 8, height: 8, rx: 1.5 }),
          svg("text", { class: "plab-label plab-tone-ink", x: width - margin.right + 17, y: label.at + 3.5, text: `${name} ${text}` }),
        ];
      }),
    );
    const shown = labels.map((label) => `${label.name} ${data.format(label.end)}`).join(", ");
    plot.setAttribute("aria-label", `${title}, ${unit}: ${shown || "no values yet"}`);
    drawCursor();
  }

  function drawCursor() {
    if (cursor === null || !scale || !data.x.length) {
      layers.cursor.replaceChildren();
      setText(readout, "");
      return;
    }
    const i = nearest(data.x, cursor);
    const at = scale.toX(data.x[i]);
    layers.cursor.replaceChildren(svg("line", { x1: at, x2: at, y1: 6, y2: height - 20 }));
    const parts = data.layers.map((layer) => ({ name: layer.name, value: part(layer, i) })).filter((one) => one.value > 0);
    setText(readout, `${data.axis.name} ${data.axis.format(data.x[i])}: ${parts.map((one) => `${one.name} ${data.format(one.value)}`).join(", ")}`);
  }

  plot.addEventListener("pointermove", (event) => {
    if (!scale) return;
    const at = event.clientX - plot.getBoundingClientRect().left;
    cursor = scale.first + ((at - scale.left) / (scale.right - scale.left)) * (scale.last - scale.first);
    drawCursor();
  });
  plot.addEventListener("pointerleave", () => {
    cursor = null;
    drawCursor();
  });
  plot.addEventListener("blur", () => {
    cursor = null;
    readout.removeAttribute("role");
    drawCursor();
  });
  plot.addEventListener("keydown", (event) => {
    if (!scale || !data.x.length) return;
    const here = cursor === null ? data.x.length - 1 : nearest(data.x, cursor);
    const stride = Math.max(1, Math.round(data.x.length / 50));
    const target = { ArrowLeft: here - stride, ArrowRight: here + stride, Home: 0, End: data.x.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    cursor = data.x[Math.min(data.x.length - 1, Math.max(0, target))];
    readout.setAttribute("role", "status");
    drawCursor();
  });
  const observer = new ResizeObserver(draw);
  observer.observe(plot);

  return {
    node,
    update(next) {
      data = { format: (y) => percent(y), whole: false, ...next, axis: { ...ROUNDS, ...next.axis } };
      draw();
    },
    destroy() {
      observer.disconnect();
    },
  };
}

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
      setAttributes(line, { d: path(series.x, series.y, toX, toY) });
      const at = series.x.length - 1;
      setAttributes(end, { cx: toX(series.x[at]).toFixed(1), cy: toY(series.y[at]).toFixed(1), visibility: "visible" });
    },
  };
}

/** Keep `host`'s children in step with `items`: same key, same node; text and focus survive. */
export function keyed(host, items, keyOf, make) {
  const known = (host.plabKnown ??= new Map());
  const wanted = new Set();
  items.forEach((item, i) => {
    const key = keyOf(item);
    wanted.add(key);
    if (!known.has(key)) known.set(key, make(item));
    const part = known.get(key);
    if (host.children[i] !== part.node) host.insertBefore(part.node, host.children[i] ?? null);
    part.update(item);
  });
  for (const [key, part] of known) {
    if (!wanted.has(key)) {
      part.node.remove();
      known.delete(key);
    }
  }
}
