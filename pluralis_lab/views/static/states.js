// The states of a worker or a run: the sign, the colour and the word that stand for each.

import { el, setText } from "./dom.js";

const STATE_MARKS = { active: "●", serving: "◆", dead: "✕", stopped: "■" };
export const MANY_WORKERS = 24; // from more on, views draw a small cell a worker, fold stages and offer a filter
export const LIVE = new Set(["warming", "active", "serving"]);

export function stateMark(state) {
  return STATE_MARKS[state] ?? "◐";
}

export function stateClass(state) {
  return LIVE.has(state) ? "live" : state === "dead" ? "dead" : state === "stopped" ? "stopped" : "coming";
}

/** The state of a worker in words: whoever takes part and has next to nothing to do is idle. */
export function stateWords(worker) {
  return worker.idle && worker.state === "active" ? "active, idle" : worker.state;
}

export function pill() {
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
