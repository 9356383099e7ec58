/** A button in the host's style. */

import { el } from '@pluralis-lab/views/dom.js';

/** @param kind - "jp-mod-accept", "jp-mod-warn", our own classes, or "". */
export function button(label: string, kind: string, onClick: () => void): HTMLButtonElement {
  const node = el('button', { type: 'button', class: `jp-mod-styled plab-do ${kind}`.trim(), text: label });
  node.addEventListener('click', onClick);
  return node;
}
