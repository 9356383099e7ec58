// Numbers as people read them: SI prefixes, percents, times.

export const NOT_KNOWN = "–";
const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

/** 12345 -> "12.3 k"; the unit follows the prefix: si(12345, "B") -> "12.3 kB". */
export function si(value, unit = "") {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOT_KNOWN;
  let size = Math.abs(value);
  let power = 0;
  while (size >= 999.5 && power < PREFIXES.length - 1) {
    size /= 1000;
    power += 1;
  }
  const digits = power === 0 && Number.isInteger(size) ? 0 : size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return `${value < 0 ? "-" : ""}${size.toFixed(digits)} ${PREFIXES[power]}${unit}`.trim();
}

export function fixed(value, digits) {
  return value === null || value === undefined || !Number.isFinite(value) ? NOT_KNOWN : value.toFixed(digits);
}

/** Three significant digits without an exponent for usual sizes. */
export function precise(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOT_KNOWN;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
}

export function percent(share) {
  return share === null || share === undefined ? NOT_KNOWN : `${(100 * share).toFixed(1)} %`;
}

/** 0.35 -> "350 ms", 102 -> "1 min 42 s", 11100 -> "3 h 05 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NOT_KNOWN;
  if (seconds < 0.9995) return `${(1000 * Math.max(0, seconds)).toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 2880
    ? `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`
    : `${Math.floor(minutes / 1440)} d ${two(Math.floor((minutes % 1440) / 60))} h`;
}

/** A tick's number: as short as it can be, with an SI prefix. */
export function tickText(value) {
  const power = Math.abs(value) >= 1000 ? Math.min(PREFIXES.length - 1, Math.floor(Math.log10(Math.abs(value)) / 3)) : 0;
  return `${Number((value / 1000 ** power).toPrecision(6))} ${PREFIXES[power]}`.trim();
}
