// Many workers: a table that can be searched, whose stages fold, and of which only the rows in sight are in the page.

import { el, keyed, setAttributes, setText } from "./dom.js";
import { percent, si } from "./numbers.js";
import { stateClass, stateMark } from "./states.js";
import { tableOfWorkers, WORKER_HEADS, workerRow } from "./workers.js";

const ROW_PX = 28;
const IN_SIGHT = Math.ceil(460 / ROW_PX); // the style sheet's greatest height of a list
const SPARE_ROWS = 6;

function haystack(worker) {
  return `${worker.name} ${worker.participant} ${worker.state} ${worker.device} stage ${worker.stage}`.toLowerCase();
}

/** {state: how many}, the most frequent first. */
function countStates(workers) {
  const counts = new Map();
  for (const worker of workers) counts.set(worker.state, (counts.get(worker.state) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

function stateChip(onChoose) {
  const mark = el("span", { class: "plab-pill-mark", "aria-hidden": "true" });
  const text = el("span");
  const node = el("button", { type: "button", "aria-pressed": "false" }, mark, text);
  let state = "";
  node.addEventListener("click", () => onChoose(state));
  return {
    node,
    update(item) {
      state = item.state;
      setAttributes(node, { class: `plab-chip plab-pill plab-${stateClass(state)}`, "aria-pressed": String(item.chosen) });
      setText(mark, stateMark(state));
      setText(text, `${state} ${item.count}`);
    },
  };
}

function stageRow(onFold, onKey) {
  const arrow = el("span", { class: "plab-fold-mark", "aria-hidden": "true" });
  const name = el("span");
  const button = el("button", { type: "button", class: "plab-fold" }, arrow, name);
  const sum = el("span", { class: "plab-muted plab-stage-sum" });
  const node = el("tr", { class: "plab-stage" }, el("th", { scope: "rowgroup", colspan: WORKER_HEADS.length }, button, sum));
  let stage = 0;
  button.addEventListener("click", () => onFold(stage));
  button.addEventListener("keydown", (event) => onKey(event, stage));
  return {
    node,
    update(item) {
      stage = item.stage;
      setAttributes(button, { "aria-expanded": String(item.open), "data-stage": stage });
      setAttributes(node, { "aria-rowindex": item.index + 2 });
      setText(arrow, item.open ? "▾" : "▸");
      setText(name, stage < 0 ? "Not placed yet" : `Stage ${stage}`);
      const states = countStates(item.workers).map(([state, count]) => `${stateMark(state)} ${count} ${state}`);
      const share = item.workers.reduce((total, worker) => total + worker.share, 0);
      const size = item.run.stage_parameters[stage];
      const part = size && item.run.model_parameters ? `${si(size)} of ${si(item.run.model_parameters)} parameters` : "";
      setText(sum, [states.join(", "), `${percent(share)} of the work`, part].filter(Boolean).join(" · "));
    },
  };
}

function indexedWorkerRow() {
  const row = workerRow();
  return {
    node: row.node,
    update(item) {
      row.update(item);
      setAttributes(row.node, { "aria-rowindex": item.index + 2 });
    },
  };
}

/** A spacer stands for the rows above or below those in sight, so that the scroll bar tells the truth. */
function spacer() {
  const cell = el("td", { colspan: WORKER_HEADS.length, class: "plab-spacer" });
  const node = el("tbody", { "aria-hidden": "true" }, el("tr", {}, cell));
  return {
    node,
    update(rows) {
      cell.style.height = `${rows * ROW_PX}px`;
      node.hidden = rows === 0;
    },
  };
}

/** The workers of a large run. update(run, toneOf), destroy(). */
export function crowdTable() {
  const search = el("input", {
    type: "search",
    class: "plab-search",
    "aria-label": "Filter workers by name, participant, state, device or stage",
    placeholder: "Filter: name, participant, state…",
    autocomplete: "off",
    spellcheck: "false",
    // JupyterLab's own keys must not fire while somebody types here.
    "data-lm-suppress-shortcuts": "true",
  });
  const chips = el("span", { class: "plab-chips", role: "group", "aria-label": "Show only workers in state" });
  const foldAll = el("button", { type: "button", class: "plab-button" });
  const told = el("span", { class: "plab-muted", role: "status" });
  const bar = el("div", { class: "plab-crowd-bar" }, search, chips, foldAll, told);
  const table = tableOfWorkers();
  const above = spacer();
  const body = el("tbody");
  const below = spacer();
  table.append(above.node, body, below.node);
  const list = el("div", { class: "plab-scroll plab-table plab-crowd", tabindex: "0", role: "group", "aria-label": "Workers by stage" }, table);
  const empty = el("p", { class: "plab-muted", hidden: true, text: "No worker fits this filter." });
  const node = el("div", {}, bar, list, empty);

  const open = new Set();
  const folded = new Set(); // while a filter is set, its finds are unfolded but for these
  let words = [];
  let chosen = "";
  let run = null;
  let toneOf = null;
  let stages = [];
  let items = [];
  let frame = 0;

  const isFiltered = () => words.length > 0 || chosen !== "";
  const isOpen = (stage) => (isFiltered() ? !folded.has(stage) : open.has(stage));

  function setFolded(stage, fold) {
    if (isFiltered()) fold ? folded.add(stage) : folded.delete(stage);
    else fold ? open.delete(stage) : open.add(stage);
  }

  function choose(state) {
    chosen = chosen === state ? "" : state;
    folded.clear();
    draw();
  }

  function arrows(event, stage) {
    const at = stages.indexOf(stage);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: stages.length - 1 }[event.key];
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      setFolded(stage, event.key === "ArrowLeft");
      draw();
    } else if (stages[next] !== undefined) {
      reveal(items.findIndex((item) => item.kind === "stage" && item.stage === stages[next]));
      body.querySelector(`[data-stage="${stages[next]}"]`)?.focus({ preventScroll: true });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function reveal(index) {
    const top = index * ROW_PX;
    const height = list.clientHeight - ROW_PX; // the head stays in place
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW_PX > list.scrollTop + height) list.scrollTop = top + ROW_PX - height;
    drawRows();
  }

  function draw() {
    if (!run) return;
    const counts = countStates(run.workers);
    keyed(chips, counts.map(([state, count]) => ({ state, count, chosen: state === chosen })), (chip) => chip.state, () => stateChip(choose));
    const found = run.workers.filter((worker) => {
      if (chosen && worker.state !== chosen) return false;
      if (!words.length) return true;
      const hay = haystack(worker);
      return words.every((word) => hay.includes(word));
    });
    const groups = new Map();
    for (const worker of found) {
      if (!groups.has(worker.stage)) groups.set(worker.stage, []);
      groups.get(worker.stage).push(worker);
    }
    stages = [...groups.keys()];
    const most = run.workers.reduce((largest, worker) => Math.max(largest, worker.share), 0);
    items = [];
    for (const [stage, workers] of groups) {
      const unfolded = isOpen(stage);
      items.push({ kind: "stage", key: `stage ${stage}`, index: items.length, stage, workers, open: unfolded, run });
      if (!unfolded) continue;
      for (const worker of workers) items.push({ kind: "worker", key: `worker ${worker.name}`, index: items.length, worker, most, run });
    }
    setText(told, isFiltered() ? `${found.length} of ${run.workers.length} workers` : `${run.workers.length} workers in ${stages.length} stages`);
    setText(foldAll, stages.some((stage) => !isOpen(stage)) ? "Unfold all" : "Fold all");
    setAttributes(table, { "aria-rowcount": items.length + 1 });
    empty.hidden = found.length > 0;
    list.hidden = found.length === 0;
    drawRows();
  }

  function drawRows() {
    frame = 0;
    const furthest = Math.max(0, items.length - IN_SIGHT - SPARE_ROWS);
    const first = Math.min(furthest, Math.max(0, Math.floor(list.scrollTop / ROW_PX) - SPARE_ROWS));
    const last = Math.min(items.length, first + IN_SIGHT + 2 * SPARE_ROWS);
    const page = node.getRootNode();
    const focused = body.contains(page.activeElement) ? page.activeElement : null;
    const seen = items.slice(first, last);
    for (const item of seen) if (item.kind === "worker") item.tone = toneOf(item.worker.participant);
    keyed(body, seen, (item) => item.key, (item) => (item.kind === "stage" ? stageRow(toggle, arrows) : indexedWorkerRow()));
    above.update(first);
    below.update(items.length - last);
    // A row that was moved lets go of the focus; who was on one that went out of sight stays in the list.
    if (focused && page.activeElement !== focused) (body.contains(focused) ? focused : list).focus({ preventScroll: true });
  }

  function toggle(stage) {
    setFolded(stage, isOpen(stage));
    draw();
  }

  search.addEventListener("input", () => {
    words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    folded.clear();
    list.scrollTop = 0;
    draw();
  });
  search.addEventListener("keydown", (event) => event.stopPropagation());
  foldAll.addEventListener("click", () => {
    const fold = stages.every(isOpen);
    for (const stage of stages) setFolded(stage, fold);
    draw();
  });
  list.addEventListener("scroll", () => {
    if (!frame) frame = requestAnimationFrame(drawRows);
  });

  return {
    node,
    update(next, tones) {
      run = next;
      toneOf = tones;
      draw();
    },
    destroy() {
      cancelAnimationFrame(frame);
    },
  };
}
