// What the charts have in common: a caption with a read-out, a plot that is drawn again when its size changes, and a place on
// the x axis that the pointer or the arrow keys choose.

import { el, setText, svg } from "./dom.js";
import { nearest } from "./scales.js";

/** What x is, unless a chart's data says otherwise. */
export const ROUNDS = { name: "round", format: String, whole: true };

/**
 * The frame of a chart. `layers` names its parts from back to front; a cursor comes last.
 * draw(width, layers) paints them and returns how it can be read, or null while there is no data:
 * {x, toX, toValue, top, bottom, read, label}, where `x` are the places to choose from, `toValue` takes pixels back to x,
 * `read(i)` says in words what is at `x[i]`, and `label` is the chart in words.
 */
export function chartFrame({ title, unit, height, layers, draw }) {
  const readout = el("span", { class: "plab-readout" });
  const plot = svg("svg", { class: "plab-plot", height, role: "img", tabindex: "0" });
  const node = el(
    "figure",
    { class: "plab-chart" },
    el("figcaption", {}, el("span", { class: "plab-title", text: title }), el("span", { class: "plab-unit", text: unit }), readout),
    plot,
  );
  const parts = Object.fromEntries(layers.map((name) => [name, svg("g")]));
  const cursor = svg("g", { class: "plab-cursor" });
  plot.append(...Object.values(parts), cursor);
  let drawn = null;
  let chosen = null;

  function redraw() {
    const width = plot.clientWidth || node.clientWidth;
    if (!width) return;
    drawn = draw(width, parts);
    if (drawn) plot.setAttribute("aria-label", `${title}, ${unit}: ${drawn.label || "no values yet"}`);
    choose(chosen);
  }

  function choose(place) {
    chosen = place;
    if (chosen === null || !drawn || !drawn.x.length) {
      cursor.replaceChildren();
      setText(readout, "");
      return;
    }
    const i = nearest(drawn.x, chosen);
    const at = drawn.toX(drawn.x[i]);
    cursor.replaceChildren(svg("line", { x1: at, x2: at, y1: drawn.top, y2: drawn.bottom }));
    setText(readout, drawn.read(i));
  }

  plot.addEventListener("pointermove", (event) => {
    if (drawn) choose(drawn.toValue(event.clientX - plot.getBoundingClientRect().left));
  });
  plot.addEventListener("pointerleave", () => choose(null));
  plot.addEventListener("blur", () => {
    readout.removeAttribute("role");
    choose(null);
  });
  plot.addEventListener("keydown", (event) => {
    if (!drawn || !drawn.x.length) return;
    const { x } = drawn;
    const here = chosen === null ? x.length - 1 : nearest(x, chosen);
    const stride = Math.max(1, Math.round(x.length / 50));
    const target = { ArrowLeft: here - stride, ArrowRight: here + stride, Home: 0, End: x.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    readout.setAttribute("role", "status");
    choose(x[Math.min(x.length - 1, Math.max(0, target))]);
  });
  const observer = new ResizeObserver(redraw);
  observer.observe(plot);

  return { node, redraw, destroy: () => observer.disconnect() };
}

/** The map of x between pixels and values: [first, last] onto [left, right]. */
export function horizontal(first, last, left, right) {
  return {
    toX: (x) => left + ((x - first) / (last - first)) * (right - left),
    toValue: (pixels) => first + ((pixels - left) / (right - left)) * (last - first),
  };
}
