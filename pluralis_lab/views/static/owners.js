// Who did the work and who owns the model, as two bars with a legend.

import { el, keyed, setAttributes, setText } from "./dom.js";
import { percent } from "./numbers.js";

const OTHERS_TONE = 7;

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

/** All participants, or of many those with a colour of their own, and the others together. */
function largest(participants, toneOf) {
  if (participants.length <= 8) return participants;
  const own = participants.filter((one) => toneOf(one.name) !== OTHERS_TONE);
  const others = participants.filter((one) => toneOf(one.name) === OTHERS_TONE);
  const sum = (key) => (others.every((one) => one[key] === null) ? null : others.reduce((total, one) => total + (one[key] ?? 0), 0));
  return [...own, { name: `${others.length} others`, work_share: sum("work_share"), owned: sum("owned") }];
}

/** Give each participant a colour; of many, the seven that did most when there was first something to go by. */
export function participantTones() {
  let kept = null;
  return (participants) => {
    if (participants.length <= 8) {
      const tones = new Map(participants.map((one, i) => [one.name, i]));
      return (name) => tones.get(name) ?? OTHERS_TONE;
    }
    if (!kept || !kept.size) {
      const busy = participants.filter((one) => one.work_share > 0).sort((a, b) => b.work_share - a.work_share);
      kept = new Map(busy.slice(0, OTHERS_TONE).map((one, i) => [one.name, i]));
    }
    return (name) => kept.get(name) ?? OTHERS_TONE;
  };
}

export function ownership() {
  const work = shareBar("Work so far");
  const owned = shareBar("Ownership");
  const legend = el("ul", { class: "plab-legend" });
  const node = el("div", { class: "plab-ownership" }, work.node, owned.node, legend);
  return {
    node,
    update(run, toneOf) {
      const shown = largest(run.participants, toneOf);
      const parts = (key) => shown.map((one) => ({ name: one.name, share: one[key] ?? 0, tone: toneOf(one.name) }));
      work.update(parts("work_share"), "");
      const first = run.epoch_rounds - 1;
      owned.update(parts("owned"), run.epochs_closed ? `${run.epochs_closed} epochs signed` : `the first epoch closes after round ${first}`);
      keyed(
        legend,
        shown,
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
