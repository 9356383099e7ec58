// The view of one run: draws payloads of `application/vnd.pluralis.run+json` (version 1) into an element.

import { duration, el, fixed, keyed, lineChart, percent, precise, setAttributes, setText, si, sparkline, svg } from "./charts.js";

const STATE_MARKS = { active: "●", serving: "◆", dead: "✕", stopped: "■" };
const LIVE = new Set(["active", "serving"]);
const KERNEL_SILENT_S = 15;
const STALE_S = 10;

function stateMark(state) {
  return STATE_MARKS[state] ?? "◐";
}

function stateClass(state) {
  return LIVE.has(state) ? "live" : state === "dead" ? "dead" : state === "stopped" ? "stopped" : "coming";
}

/** Say whether the page behind `node` is dark, from what is really painted there. */
function isDark(node) {
  const [r, g, b] = (getComputedStyle(node).backgroundColor.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}

function pill() {
  const mark = el("span", { class: "plab-pill-mark", "aria-hidden": "true" });
  const text = el("span");
  const node = el("span", { class: "plab-pill" }, mark, text);
  return {
    node,
    update(state, words = state) {
      node.className = `plab-pill plab-${stateClass(state)}`;
      setText(mark, stateMark(state));
      setText(text, words);
    },
  };
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

/** Stages from left to right, replicas from top to bottom; who is dead is crossed out and has no links. */
function topology() {
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
            svg("title", { text: `${worker.name}, stage ${worker.stage}, ${worker.participant}: ${worker.state} ${worker.reason}`.trim() }),
          );
          if (rows <= 6) {
            const detail = worker.state === "active" ? `round ${worker.round ?? NaN}`.replace("NaN", "–") : worker.state;
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
          .map((column, i) => `Stage ${stages[i]}: ${column.map((worker) => `${worker.name} ${worker.state}`).join(", ")}`)
          .join(". "),
      });
      plot.replaceChildren(...parts);
    },
  };
}

function shareBar(label) {
  const bar = el("div", { class: "plab-shares", role: "img" });
  const head = el("div", { class: "plab-shares-head" });
  const node = el("div", { class: "plab-shares-row" }, head, bar);
  return {
    node,
    update(parts, note) {
      setText(head, `${label}${note ? ` (${note})` : ""}`);
      bar.setAttribute("aria-label", `${label}: ${parts.map((part) => `${part.name} ${percent(part.share)}`).join(", ") || "nothing yet"}`);
      keyed(
        bar,
        parts.filter((part) => part.share > 0),
        (part) => part.name,
        () => {
          const piece = el("span");
          return {
            node: piece,
            update(part) {
              piece.className = `plab-share plab-fill-${part.tone}`;
              piece.style.flexGrow = String(part.share);
              setText(piece, part.share > 0.09 ? percent(part.share) : "");
              setAttributes(piece, { title: `${part.name}: ${percent(part.share)}` });
            },
          };
        },
      );
    },
  };
}

function ownership() {
  const work = shareBar("Work so far");
  const owned = shareBar("Ownership");
  const legend = el("ul", { class: "plab-legend" });
  const node = el("div", { class: "plab-ownership" }, work.node, owned.node, legend);
  return {
    node,
    update(run, toneOf) {
      const parts = (key) => run.participants.map((one) => ({ name: one.name, share: one[key] ?? 0, tone: toneOf(one.name) }));
      work.update(parts("work_share"), "");
      const first = run.epoch_rounds - 1;
      owned.update(parts("owned"), run.epochs_closed ? `${run.epochs_closed} epochs signed` : `the first epoch closes after round ${first}`);
      keyed(
        legend,
        run.participants,
        (one) => one.name,
        () => {
          const swatch = el("span", { class: "plab-swatch", "aria-hidden": "true" });
          const text = el("span");
          return {
            node: el("li", {}, swatch, text),
            update(one) {
              swatch.className = `plab-swatch plab-fill-${toneOf(one.name)}`;
              setText(text, `${one.name}  ${percent(one.work_share)} of the work${one.owned === null ? "" : `, owns ${percent(one.owned)}`}`);
            },
          };
        },
      );
    },
  };
}

const HEADS = ["Worker", "State", "Work", "Gradient norm", "Agreement", "Sending", "Round"];

function workerRow() {
  const cells = HEADS.map((head, i) => (i ? el("td") : el("th", { scope: "row" })));
  const name = el("span", { class: "plab-worker-name" });
  const owner = el("span", { class: "plab-muted plab-worker-owner" });
  const swatch = el("span", { class: "plab-swatch", "aria-hidden": "true" });
  cells[0].append(name, el("span", { class: "plab-owned-by" }, swatch, owner));
  const state = pill();
  cells[1].append(state.node);
  const fill = el("span", { class: "plab-bar-fill" });
  const work = el("span", { class: "plab-value" });
  cells[2].append(el("span", { class: "plab-bar", "aria-hidden": "true" }, fill), work);
  const norm = sparkline();
  const normText = el("span", { class: "plab-value" });
  cells[3].append(norm.node, normText);
  const agreement = sparkline({ width: 64 });
  const agreementText = el("span", { class: "plab-value" });
  cells[4].append(agreement.node, agreementText);
  cells[5].className = cells[6].className = "plab-number";
  const node = el("tr", {}, ...cells);
  return {
    node,
    update({ worker, most, run, tone }) {
      setAttributes(node, { "data-worker": worker.name, "data-state": worker.state, class: `plab-row-${stateClass(worker.state)}` });
      setText(name, worker.name);
      setText(owner, worker.participant);
      swatch.className = `plab-swatch plab-fill-${tone}`;
      state.update(worker.state);
      setAttributes(state.node, { title: [worker.reason, worker.pid ? `process ${worker.pid}` : "", worker.device].filter(Boolean).join(", ") || null });
      fill.style.width = `${most ? (100 * worker.share) / most : 0}%`;
      fill.className = `plab-bar-fill plab-fill-${tone}`;
      setText(work, percent(worker.share));
      setAttributes(cells[2], { title: `${si(worker.work_flops, "FLOP")}, ${si(worker.tokens)} tokens` });
      norm.update(worker.grad_norm, { low: 0 });
      setText(normText, precise(worker.grad_norm.y.at(-1)));
      agreement.update(worker.agreement, { low: 0, high: 1 });
      setText(agreementText, run.replicas > 1 ? fixed(worker.agreement.y.at(-1), 2) : "–");
      setText(cells[5], worker.state === "dead" ? "–" : si(worker.bytes_per_s, "B/s"));
      setText(cells[6], worker.round === null ? "–" : String(worker.round));
    },
  };
}

function workerTable() {
  const table = el(
    "table",
    { class: "plab-workers" },
    el("caption", { class: "plab-hidden", text: "Workers by stage" }),
    el("thead", {}, el("tr", {}, ...HEADS.map((head, i) => el("th", { scope: "col", class: i > 4 ? "plab-number" : null, text: head })))),
  );
  const groups = el("div");
  const node = el("div", { class: "plab-scroll plab-table", tabindex: "0", role: "group", "aria-label": "Workers by stage" }, table);
  const bodies = new Map();
  groups.remove();
  return {
    node,
    update(run, toneOf) {
      const stages = [...new Set(run.workers.map((worker) => worker.stage))];
      const most = Math.max(0, ...run.workers.map((worker) => worker.share));
      for (const stage of stages) {
        if (!bodies.has(stage)) {
          const head = el("th", { scope: "rowgroup", colspan: HEADS.length });
          const body = el("tbody");
          table.append(el("tbody", { class: "plab-stage" }, el("tr", {}, head)), body);
          bodies.set(stage, { head, body });
        }
        const { head, body } = bodies.get(stage);
        const size = run.stage_parameters[stage];
        const part = size && run.model_parameters ? `: ${si(size)} of ${si(run.model_parameters)} parameters` : "";
        setText(head, stage < 0 ? "Not placed yet" : `Stage ${stage}${part}`);
        keyed(
          body,
          run.workers.filter((worker) => worker.stage === stage).map((worker) => ({ worker, most, run, tone: toneOf(worker.participant) })),
          ({ worker }) => worker.name,
          workerRow,
        );
      }
      for (const [stage, { head, body }] of bodies) {
        if (!stages.includes(stage)) {
          head.closest("tbody").remove();
          body.remove();
          bodies.delete(stage);
        }
      }
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
  const strip = topology();
  const owners = ownership();
  const workers = workerTable();
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
    el("div", { class: "plab-pair" }, section("Stages and replicas", strip.node), section("Who did the work, who owns the model", owners.node)),
    workers.node,
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
    const tones = new Map(run.participants.map((one, i) => [one.name, i % 8]));
    const toneOf = (name) => tones.get(name) ?? 7;
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
      const marks = run.marks.filter((mark) => mark.kind === "death" || mark.kind === "return");
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
    strip.update(run, toneOf);
    owners.update(run, toneOf);
    workers.update(run, toneOf);
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
    if (!run.over && pulse.problem) text = pulse.problem;
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
      stop?.destroy();
      root.replaceChildren();
    },
  };
}
