// Stages and replicas drawn: boxes and links for a few workers, one small cell a worker for many.

import { el, keyed, setAttributes, setText, svg } from "./dom.js";
import { LIVE, stateClass, stateMark, stateWords } from "./states.js";

/** Stages from left to right, replicas from top to bottom; who is dead is crossed out and has no links. */
export function topology() {
  const plot = svg("svg", { class: "plab-topology", role: "img" });
  const node = el("div", { class: "plab-scroll", tabindex: "0", role: "group", "aria-label": "Stages and replicas" }, plot);
  return {
    node,
    update(run, toneOf) {
      const stages = [...new Set(run.workers.map((worker) => worker.stage))];
      const columns = stages.map((stage) => run.workers.filter((worker) => worker.stage === stage));
      const rows = Math.max(1, ...columns.map((column) => column.length));
      // As wide as there is room for, between a readable minimum (then it scrolls) and the width of a usual name.
      const room = (node.clientWidth || 560) / Math.max(1, stages.length);
      const gapX = Math.max(20, Math.min(52, room * 0.28));
      const box = { width: Math.max(84, Math.min(116, room - gapX)), height: rows > 6 ? 22 : 36, gapX, gapY: rows > 6 ? 4 : 8, top: 20 };
      const longest = Math.floor((box.width - 30) / 6.6);
      const width = stages.length * (box.width + box.gapX) - box.gapX + 2;
      const height = box.top + rows * (box.height + box.gapY);
      const place = (column, row) => ({ x: 1 + column * (box.width + box.gapX), y: box.top + row * (box.height + box.gapY) });
      const parts = [];
      columns.slice(0, -1).forEach((column, i) => {
        column.forEach((from, a) =>
          columns[i + 1].forEach((to, b) => {
            if (!LIVE.has(from.state) || !LIVE.has(to.state)) return;
            const start = place(i, a);
            const stop = place(i + 1, b);
            const [x1, y1, x2, y2] = [start.x + box.width, start.y + box.height / 2, stop.x, stop.y + box.height / 2];
            const bend = (x2 - x1) / 2;
            parts.push(svg("path", { class: rows > 6 ? "plab-link plab-faint" : "plab-link", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }));
          }),
        );
      });
      columns.forEach((column, i) => {
        const { x } = place(i, 0);
        parts.push(svg("text", { class: "plab-tick", x, y: 12, text: stages[i] < 0 ? "not placed yet" : `stage ${stages[i]}` }));
        column.forEach((worker, j) => {
          const { y } = place(i, j);
          const kind = stateClass(worker.state);
          const name = worker.name.length > longest ? `${worker.name.slice(0, longest - 1)}…` : worker.name;
          const group = svg(
            "g",
            { class: `plab-node plab-${kind}`, "data-worker": worker.name, "data-state": worker.state },
            svg("rect", { class: "plab-node-box", x, y, width: box.width, height: box.height, rx: 4 }),
            svg("rect", { class: `plab-owner plab-fill-${toneOf(worker.participant)}`, x, y, width: 4, height: box.height }),
            svg("text", { class: "plab-node-mark", x: x + 12, y: y + (rows > 6 ? 15 : 16), text: stateMark(worker.state) }),
            svg("text", { class: "plab-node-name", x: x + 26, y: y + (rows > 6 ? 15 : 16), text: name }),
            svg("title", { text: `${worker.name}, stage ${worker.stage}, ${worker.participant}: ${stateWords(worker)} ${worker.reason}`.trim() }),
          );
          if (rows <= 6) {
            const detail = worker.state === "active" && !worker.idle ? `round ${worker.round ?? NaN}`.replace("NaN", "–") : stateWords(worker);
            group.append(svg("text", { class: "plab-node-detail", x: x + 26, y: y + 29, text: detail }));
          }
          if (worker.state === "dead") {
            group.append(svg("line", { class: "plab-cross", x1: x + 26, x2: x + 26 + name.length * 7.4, y1: y + 12, y2: y + 12 }));
          }
          parts.push(group);
        });
      });
      setAttributes(plot, {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        "aria-label": columns
          .map((column, i) => `Stage ${stages[i]}: ${column.map((worker) => `${worker.name} ${stateWords(worker)}`).join(", ")}`)
          .join(". "),
      });
      plot.replaceChildren(...parts);
    },
  };
}

/** A small cell a worker, stage after stage: its state by sign and colour, its name as a tooltip. */
export function stageMap() {
  const node = el("div", { class: "plab-scroll plab-map", role: "img" });
  return {
    node,
    update(run) {
      const stages = new Map();
      for (const worker of run.workers) {
        if (!stages.has(worker.stage)) stages.set(worker.stage, []);
        stages.get(worker.stage).push(worker);
      }
      keyed(node, [...stages], ([stage]) => stage, mapOfStage);
      const dead = run.workers.filter((worker) => worker.state === "dead").map((worker) => worker.name);
      const live = run.workers.filter((worker) => LIVE.has(worker.state)).length;
      const lost = dead.length ? `; dead: ${dead.slice(0, 10).join(", ")}${dead.length > 10 ? ` and ${dead.length - 10} more` : ""}` : "";
      setAttributes(node, { "aria-label": `${run.workers.length} workers in ${stages.size} stages, ${live} live${lost}` });
    },
  };
}

function mapOfStage() {
  const label = el("span", { class: "plab-map-label" });
  const cells = el("span", { class: "plab-map-cells" });
  return {
    node: el("span", { class: "plab-map-stage" }, label, cells),
    update([stage, workers]) {
      setText(label, stage < 0 ? "–" : String(stage));
      keyed(cells, workers, (worker) => worker.name, mapCell);
    },
  };
}

function mapCell() {
  const node = el("span");
  let state = null;
  return {
    node,
    update(worker) {
      if (worker.state === state) return;
      state = worker.state;
      const where = worker.stage < 0 ? "not placed yet" : `stage ${worker.stage}`;
      setText(node, stateMark(state));
      setAttributes(node, {
        class: `plab-cell plab-${stateClass(state)}`,
        "data-worker": worker.name,
        "data-state": state,
        title: `${worker.name}, ${where}, ${worker.participant}: ${state} ${worker.reason}`.trim(),
      });
    },
  };
}
