// The table of workers by stage, and the row of one worker.

import { el, keyed, setAttributes, setText } from "./dom.js";
import { fixed, percent, precise, si } from "./numbers.js";
import { sparkline } from "./sparkline.js";
import { LIVE, pill, stateClass, stateWords } from "./states.js";

export const WORKER_HEADS = ["Worker", "State", "Work", "Gradient norm", "Agreement", "Sending", "Round"];

export function workerRow() {
  const cells = WORKER_HEADS.map((head, i) => (i ? el("td") : el("th", { scope: "row" })));
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
      state.update(worker.state, stateWords(worker));
      const busy = (worker.busy ?? null) === null ? "" : `computing ${percent(worker.busy)} of the time`;
      const about = [worker.reason, busy, worker.pid ? `process ${worker.pid}` : "", worker.device];
      setAttributes(state.node, { title: about.filter(Boolean).join(", ") || null });
      fill.style.width = `${most ? (100 * worker.share) / most : 0}%`;
      fill.className = `plab-bar-fill plab-fill-${tone}`;
      setText(work, percent(worker.share));
      setAttributes(cells[2], { title: `${si(worker.work_flops, "FLOP")}, ${si(worker.tokens)} tokens` });
      norm.update(worker.grad_norm, { low: 0 });
      setText(normText, precise(worker.grad_norm.y.at(-1)));
      agreement.update(worker.agreement, { low: 0, high: 1 });
      setText(agreementText, fixed(worker.agreement.y.at(-1), 2));
      setText(cells[5], worker.state === "dead" ? "–" : si(worker.bytes_per_s, "B/s"));
      setText(cells[6], worker.round === null ? "–" : String(worker.round));
      const delay = worker.delay ?? null;
      setAttributes(cells[6], { title: delay === null ? null : `gradients ${fixed(delay, 1)} steps late` });
    },
  };
}

/** What else there is to say of a stage: how late its gradients are, and how many of its workers are idle. */
function stageNotes(workers) {
  const delays = workers.filter((worker) => LIVE.has(worker.state) && (worker.delay ?? null) !== null).map((worker) => worker.delay);
  const idle = workers.filter((worker) => worker.idle).length;
  return [
    delays.length ? `gradients ${fixed(delays.reduce((sum, delay) => sum + delay, 0) / delays.length, 1)} steps late` : "",
    idle ? `${idle} idle` : "",
  ];
}

/** The empty table with its head. */
export function tableOfWorkers() {
  return el(
    "table",
    { class: "plab-workers" },
    el("caption", { class: "plab-hidden", text: "Workers by stage" }),
    el("thead", {}, el("tr", {}, ...WORKER_HEADS.map((head, i) => el("th", { scope: "col", class: i > 4 ? "plab-number" : null, text: head })))),
  );
}

/** The workers of a run of a few, all at once. update(run, toneOf), destroy(). */
export function workerTable() {
  const table = tableOfWorkers();
  const node = el("div", { class: "plab-scroll plab-table", tabindex: "0", role: "group", "aria-label": "Workers by stage" }, table);
  const bodies = new Map();
  return {
    node,
    update(run, toneOf) {
      const stages = [...new Set(run.workers.map((worker) => worker.stage))];
      const most = Math.max(0, ...run.workers.map((worker) => worker.share));
      for (const stage of stages) {
        if (!bodies.has(stage)) {
          const head = el("th", { scope: "rowgroup", colspan: WORKER_HEADS.length });
          const body = el("tbody");
          table.append(el("tbody", { class: "plab-stage" }, el("tr", {}, head)), body);
          bodies.set(stage, { head, body });
        }
        const { head, body } = bodies.get(stage);
        const size = run.stage_parameters[stage];
        const part = size && run.model_parameters ? `${si(size)} of ${si(run.model_parameters)} parameters` : "";
        const about = [part, ...stageNotes(run.workers.filter((worker) => worker.stage === stage))].filter(Boolean).join(", ");
        setText(head, stage < 0 ? "Not placed yet" : `Stage ${stage}${about && `: ${about}`}`);
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
    destroy() {},
  };
}
