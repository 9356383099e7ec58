/** Types of the page's building blocks, for the JupyterLab extension. */

export type Props = Record<string, string | number | boolean | null | undefined>;

export function el<K extends keyof HTMLElementTagNameMap>(tag: K, props?: Props, ...children: (Node | string)[]): HTMLElementTagNameMap[K];
export function svg<K extends keyof SVGElementTagNameMap>(tag: K, props?: Props, ...children: (Node | string)[]): SVGElementTagNameMap[K];
export function setText(node: Node, text: string): void;
export function setAttributes(node: Element, props: Props): void;

export interface KeyedPart<Item> {
  readonly node: Element;
  update(item: Item): void;
}

/** Keep `host`'s children in step with `items`: same key, same node. */
export function keyed<Item>(
  host: Element,
  items: readonly Item[],
  keyOf: (item: Item) => string | number,
  make: (item: Item) => KeyedPart<Item>
): void;
