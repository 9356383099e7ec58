/** Whether the page behind a node is dark, from what is really painted there: themes come from anywhere. */

export function isDark(node: Element): boolean {
  for (let here: Element | null = node; here; here = here.parentElement) {
    const parts = (getComputedStyle(here).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    const [r, g, b, alpha] = [parts[0] ?? 255, parts[1] ?? 255, parts[2] ?? 255, parts[3] ?? 1];
    if (parts.length && alpha > 0.5) {
      return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
    }
  }
  return false;
}
