/** What is really painted: a canvas cannot use CSS variables, so it asks here. */

/** Say whether the page behind `node` is dark, by JupyterLab's own word or by what is painted. */
export function isDark(node: Element): boolean {
  const word = document.body.dataset.jpThemeLight;
  if (word !== undefined) {
    return word === 'false';
  }
  const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g);
  const [r = 255, g = 255, b = 255] = (parts ?? []).map(Number);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}

/** The value of a CSS variable at `node`, as the canvas understands it. */
export function variable(node: Element, name: string, otherwise: string): string {
  return getComputedStyle(node).getPropertyValue(name).trim() || otherwise;
}

export function movesLess(): boolean {
  return window.matchMedia('(prefers-reduced-motion: reduce)').matches;
}

/** Call back when the theme may have changed; returns how to stop. */
export function onTheme(callback: () => void): () => void {
  const observer = new MutationObserver(callback);
  observer.observe(document.body, { attributes: true, attributeFilter: ['class', 'data-jp-theme-light', 'data-jp-theme-name'] });
  const schemes = [window.matchMedia('(prefers-color-scheme: dark)'), window.matchMedia('(forced-colors: active)')];
  schemes.forEach(scheme => scheme.addEventListener('change', callback));
  return () => {
    observer.disconnect();
    schemes.forEach(scheme => scheme.removeEventListener('change', callback));
  };
}
