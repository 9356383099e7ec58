// The view of one run: draws payloads of `application/vnd.pluralis.run+json` (version 1) into an element.

import { el, setAttributes, setText } from "./dom.js";
import { lineChart } from "./linechart.js";
import { duration, fixed, precise, si } from "./numbers.js";
import { crowdTable } from "./crowd.js";
import { ownership, participantTones } from "./owners.js";
import { LIVE, MANY_WORKERS, pill } from "./states.js";
import { stageMap, topology } from "./topology.js";
import { workerTable } from "./workers.js";

const KERNEL_SILENT_S = 15;
const STALE_S = 10;

/** Say whether the page behind `node` is dark, from what is really painted there. */
function isDark(node) {
  const [r, g, b] = (getComputedStyle(node).backgroundColor.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}

function stopControl(onStop) {
  const node = el("span", { class: "plab-stop", role: "group", "aria-label": "Stop the run" });
  const ask = el("button", { type: "button", class: "plab-button", text: "Stop…" });
  const question = el("span", { text: "End this run?" });
  const yes = el("button", { type: "button", class: "plab-button plab-danger", text: "Stop the run" });
  const no = el("button", { type: "button", class: "plab-button", text: "Keep it" });
  const note = el("span", { class: "plab-stop-note", role: "status" });
  let waiting = 0;
  const show = (...parts) => node.replaceChildren(...parts, note);
  const rest = () => {
    show(ask);
    ask.focus();
  };
  ask.addEventListener("click", () => {
    setText(note, "");
    show(question, yes, no);
    no.focus();
  });
  no.addEventListener("click", rest);
  node.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && node.contains(yes)) {
      event.stopPropagation();
      rest();
    }
  });
  yes.addEventListener("click", () => {
    show();
    setText(note, "asking the kernel to stop the run…");
    waiting = setTimeout(() => {
      setText(note, "the kernel does not answer; from a terminal: pluralis-lab stop ID");
      show(ask);
    }, 10000);
    onStop();
  });
  show(ask);
  return {
    node,
    update(state) {
      if (state === "idle") return;
      clearTimeout(waiting);
      if (state === "stopping") {
        show();
        setText(note, "stopping…");
      } else if (state === "stopped") {
        show();
        setText(note, "");
      } else {
        show(ask);
        setText(note, state);
      }
    },
    destroy() {
      clearTimeout(waiting);
    },
  };
}

function figureBox(label) {
  const value = el("div", { class: "plab-figure-value" });
  const note = el("div", { class: "plab-figure-note" });
  const node = el("div", { class: "plab-figure", role: "group", "aria-label": label }, el("div", { class: "plab-figure-label", text: label }), value, note);
  return {
    node,
    update(text, extra = "") {
      setText(value, text);
      setText(note, extra);
    },
  };
}

function section(title, ...children) {
  return el("div", { class: "plab-panel" }, el("div", { class: "plab-title", text: title }), ...children);
}

/**
 * Draw a run into `root`. Returns {update(payload), pulse({silent_s, problem}), stop(state), destroy()}.
 * `onStop` adds a Stop button with a question behind it; without it the view never commands anything.
 * `feeder` names who feeds the view, for the note that it fell silent.
 */
export function createRunView(root, { onStop = null, feeder = "the kernel" } = {}) {
  const heading = el("h3", { class: "plab-heading" });
  const state = pill();
  const rounds = el("span", { class: "plab-rounds" });
  const times = el("span", { class: "plab-muted" });
  const done = el("span", { class: "plab-progress-fill" });
  const progress = el("div", { class: "plab-progress", role: "progressbar", "aria-label": "rounds done", "aria-valuemin": "0" }, done);
  const stop = onStop ? stopControl(onStop) : null;
  const stale = el("p", { class: "plab-stale", role: "status", hidden: true });
  const trouble = el("p", { class: "plab-trouble", role: "alert", hidden: true });
  const empty = el("p", { class: "plab-empty", hidden: true });
  const figures = {
    loss: figureBox("training loss"),
    validation: figureBox("validation loss"),
    speed: figureBox("speed"),
    workers: figureBox("workers"),
    wire: figureBox("boundary"),
  };
  const loss = lineChart({ title: "Loss", unit: "nats a token" });
  const speed = lineChart({ title: "Speed", unit: "tokens a second" });
  const tonesOf = participantTones();
  const owners = ownership();
  // How the workers are drawn depends on how many there are: parts for a few, or for many.
  const place = el("div");
  const list = el("div");
  let parts = null;
  const notes = el("ul", { class: "plab-notes" });
  const announcer = el("div", { class: "plab-hidden", role: "status", "aria-live": "polite" });
  const charts = el("div", { class: "plab-charts" }, loss.node, speed.node);
  const numbers = el("div", { class: "plab-figures" }, ...Object.values(figures).map((box) => box.node));
  const view = el(
    "section",
    { class: "plab" },
    el("header", { class: "plab-header" }, heading, state.node, rounds, times, el("span", { class: "plab-space" }), ...(stop ? [stop.node] : [])),
    progress,
    stale,
    trouble,
    empty,
    numbers,
    charts,
    el("div", { class: "plab-pair" }, section("Stages and replicas", place), section("Who did the work, who owns the model", owners.node)),
    list,
    notes,
    announcer,
  );
  root.replaceChildren(view);

  let run = null;
  let pulse = { silent_s: null, problem: "" };
  let pulsedAt = performance.now();
  let frame = 0;
  let announced = "";
  const colourScheme = window.matchMedia("(prefers-color-scheme: dark)");

  /** Painted colours can only be read once the host has put the view on the page. */
  function theme() {
    if (view.isConnected) view.dataset.theme = isDark(view) ? "dark" : "light";
  }

  function announce(text) {
    if (text !== announced) setText(announcer, text);
    announced = text;
  }

  function draw() {
    frame = 0;
    if (!run) return;
    const toneOf = tonesOf(run.participants);
    setAttributes(view, { role: "region", "aria-label": `Run ${run.name}`, "data-run": run.run, "data-seq": run.seq });
    setText(heading, `Run ${run.name}`);
    const runKind = { running: "active", serving: "serving", stopped: "stopped", failed: "dead" }[run.state] ?? "starting";
    state.update(runKind, run.state === "stopped" && run.rounds_done >= run.steps ? "finished" : run.state);
    setText(rounds, `${run.rounds_done} of ${run.steps} rounds`);
    const left = run.remaining_s ? `, about ${duration(run.remaining_s)} left` : "";
    setText(times, run.elapsed_s === null ? "" : `${duration(run.elapsed_s)}${run.engine === "virtual" ? " (virtual)" : ""}${left}`);
    done.style.width = `${(100 * run.rounds_done) / Math.max(1, run.steps)}%`;
    setAttributes(progress, { "aria-valuemax": run.steps, "aria-valuenow": run.rounds_done });
    if (stop) stop.node.hidden = run.over;

    const waiting = run.round === null;
    empty.hidden = !waiting || run.over;
    setText(empty, run.seq ? startText(run) : run.headline);
    charts.hidden = numbers.hidden = waiting;
    const error = run.errors.at(-1);
    const failed = run.state === "failed";
    trouble.hidden = !failed && !error;
    setText(trouble, failed ? run.headline : error ? `${error.worker || "run"}: ${error.message}` : "");

    const last = run.loss.y.at(-1);
    const validation = run.validation.y.at(-1);
    figures.loss.update(last === undefined ? "–" : `${fixed(last, 3)} nats`, last === undefined ? "" : `round 0: ${fixed(run.loss.y[0], 3)}`);
    const gain = validation === undefined || run.unigram_nats === null ? null : run.unigram_nats - validation;
    figures.validation.update(
      validation === undefined ? "–" : `${fixed(validation, 3)} nats`,
      gain === null ? "" : `${fixed(Math.abs(gain), 2)} ${gain >= 0 ? "below" : "above"} unigram`,
    );
    figures.speed.update(run.speed === null ? "–" : `${si(run.speed)} tokens/s`, `${si(run.tokens)} tokens so far`);
    const sent = run.workers.reduce((sum, worker) => sum + (LIVE.has(worker.state) ? (worker.bytes_per_s ?? 0) : 0), 0);
    const deaths = run.workers.reduce((sum, worker) => sum + worker.deaths, 0);
    const history = [deaths ? `${deaths} died` : "", run.reroutes ? `${run.reroutes} re-routed` : ""].filter(Boolean).join(", ");
    figures.workers.update(run.over ? String(run.workers.length) : `${run.live_workers} of ${run.workers.length} live`, history || (run.over ? "none died" : `sending ${si(sent, "B/s")}`));
    const wire = run.wire;
    const known = wire.forward_bytes_per_token !== undefined;
    figures.wire.update(known ? `${precise(wire.forward_bytes_per_token)} B a token` : "–", known ? `forward; back ${precise(wire.backward_bytes_per_token)} B` : "");

    if (!waiting) {
      const marks = run.marks.filter((mark) => ["death", "return", "aside", "back", "joined"].includes(mark.kind));
      loss.update({
        series: [
          { name: "train", tone: "train", ...run.loss },
          { name: "valid.", tone: "validation", dots: true, ...run.validation },
        ],
        baseline: run.unigram_nats === null ? null : { name: "unigram", value: run.unigram_nats },
        format: (y) => fixed(y, 2),
        marks,
      });
      speed.update({ series: [{ name: "", tone: "train", ...run.tokens_per_s }], fromZero: true, format: (y) => si(y), marks });
    }
    const many = run.workers.length > MANY_WORKERS;
    if (parts?.many !== many) {
      parts?.table.destroy();
      parts = many ? { many, strip: stageMap(), table: crowdTable() } : { many, strip: topology(), table: workerTable() };
      place.replaceChildren(parts.strip.node);
      list.replaceChildren(parts.table.node);
    }
    parts.strip.update(run, toneOf);
    owners.update(run, toneOf);
    parts.table.update(run, toneOf);
    const told = run.marks.slice(-4).reverse();
    notes.replaceChildren(...told.map((mark) => el("li", { class: `plab-note-${mark.kind}`, text: mark.text })));
    const newest = run.marks.filter((mark) => mark.kind !== "reroute").at(-1);
    announce(newest ? `${run.headline}. ${newest.text}` : run.headline);
    drawStale();
  }

  function startText(now) {
    const counts = new Map();
    for (const worker of now.workers) counts.set(worker.state, (counts.get(worker.state) ?? 0) + 1);
    const detail = [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
    return `${now.headline} ${detail ? `(${detail})` : ""}`.trim();
  }

  /** Two kinds of silence: of the run (its events), and of whoever feeds this view. */
  function drawStale() {
    if (!run) return;
    const age = (performance.now() - pulsedAt) / 1000;
    const silent = pulse.silent_s === null ? null : pulse.silent_s + age;
    let text = "";
    if (pulse.stored) text = "";
    else if (!run.over && pulse.problem) text = pulse.problem;
    else if (!run.over && age > KERNEL_SILENT_S) {
      text = `${feeder} has sent nothing for ${duration(age)}: this picture is old, the run itself may go on; run.watch() shows it afresh`;
    } else if (!run.over && run.state !== "serving" && silent !== null && silent >= Math.max(STALE_S, 4 * (run.round_s ?? 0))) {
      text = `no news for ${duration(silent)}`;
    }
    setText(stale, text ? `⚠ ${text}` : "");
    stale.hidden = !text;
    view.classList.toggle("plab-is-stale", Boolean(text));
  }

  const timer = setInterval(drawStale, 1000);
  const resized = new ResizeObserver(() => {
    theme();
    if (run && !frame) frame = requestAnimationFrame(draw);
  });
  resized.observe(view);
  const themes = new MutationObserver(theme);
  themes.observe(document.body, { attributes: true });
  themes.observe(document.documentElement, { attributes: true });
  colourScheme.addEventListener("change", theme);
  theme();

  return {
    update(payload) {
      if (!payload || payload.version !== 1) return;
      run = payload;
      if (!frame) frame = requestAnimationFrame(draw);
    },
    pulse(next) {
      pulse = next ?? pulse;
      pulsedAt = performance.now();
      drawStale();
    },
    stop(next) {
      stop?.update(next);
    },
    destroy() {
      clearInterval(timer);
      cancelAnimationFrame(frame);
      resized.disconnect();
      themes.disconnect();
      colourScheme.removeEventListener("change", theme);
      loss.destroy();
      speed.destroy();
      parts?.table.destroy();
      stop?.destroy();
      root.replaceChildren();
    },
  };
}
