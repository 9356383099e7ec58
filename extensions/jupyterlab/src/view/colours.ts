/** Colour scales of the heat map: readable without colour vision, because lightness alone carries the order. DOM-free. */

export type Rgb = [number, number, number];

/** cividis (Nuñez, Anderton and Renslow 2018), at nine even steps: made to look alike with and without red-green blindness. */
const CIVIDIS: Rgb[] = [
  [0, 34, 78],
  [18, 53, 112],
  [59, 73, 108],
  [87, 93, 109],
  [112, 113, 115],
  [138, 134, 120],
  [165, 156, 116],
  [195, 179, 105],
  [254, 232, 56]
];

/** Orange for against, blue for with (Okabe and Ito's hues); the middle is the paper's own grey. */
const AGAINST: Rgb = [213, 94, 0];
const WITH: Rgb = [0, 114, 178];
const MIDDLE_LIGHT: Rgb = [240, 240, 240];
const MIDDLE_DARK: Rgb = [52, 56, 62];
const WITH_DARK: Rgb = [86, 180, 233];
const AGAINST_DARK: Rgb = [255, 140, 60];

function mix(a: Rgb, b: Rgb, share: number): Rgb {
  return [0, 1, 2].map(i => Math.round((a[i]) + ((b[i]) - (a[i])) * share)) as Rgb;
}

/** `share` from 0 to 1 along cividis; on a light page reversed, so that "much" always stands out from the paper. */
export function sequential(share: number, dark: boolean): Rgb {
  const clamped = Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0));
  const at = (dark ? clamped : 1 - clamped) * (CIVIDIS.length - 1);
  const low = Math.min(CIVIDIS.length - 2, Math.floor(at));
  return mix(CIVIDIS[low], CIVIDIS[low + 1], at - low);
}

/** `value` from -1 (orange) over 0 (grey) to 1 (blue). */
export function diverging(value: number, dark: boolean): Rgb {
  const clamped = Math.min(1, Math.max(-1, Number.isFinite(value) ? value : 0));
  const middle = dark ? MIDDLE_DARK : MIDDLE_LIGHT;
  const end = clamped < 0 ? (dark ? AGAINST_DARK : AGAINST) : dark ? WITH_DARK : WITH;
  return mix(middle, end, Math.abs(clamped));
}

export function css([r, g, b]: Rgb): string {
  return `rgb(${r},${g},${b})`;
}
