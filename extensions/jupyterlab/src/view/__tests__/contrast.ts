/** The relative luminance of a colour, as in WCAG 2. */
export function contrast([r, g, b]: [number, number, number]): number {
  const linear = [r, g, b].map(part => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * (linear[0] ?? 0) + 0.7152 * (linear[1] ?? 0) + 0.0722 * (linear[2] ?? 0);
}
