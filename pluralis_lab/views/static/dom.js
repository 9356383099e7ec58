// The page's building blocks: elements, text that is only ever text, and lists that keep their nodes.

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
