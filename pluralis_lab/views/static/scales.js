// Axes and curves: round ticks, extents, the nearest point, the path of a line, labels that keep apart.

/** Round numbers that cover [low, high] in about `count` steps. */
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const result = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) result.push(Number((i * step).toPrecision(12)));
  return result;
}

/** [least, most] of arrays of numbers; null is passed over. */
export function extent(arrays) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of arrays) {
    for (const value of values) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

/** Ticks of a logarithmic axis, given in log10: 1, 2 and 5 of each decade, or linear ones where those are too few. */
export function logTicks(low, high) {
  const result = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const factor of [1, 2, 5]) {
      const at = power + Math.log10(factor);
      if (at >= low && at <= high) result.push(Number((factor * 10 ** power).toPrecision(6)));
    }
  }
  return result.length >= 3 ? result : ticks(10 ** low, 10 ** high, 5).filter((value) => value > 0);
}

/** The path of a line; it leaps over what is not known. */
export function linePath(x, y, toX, toY) {
  let d = "";
  for (let i = 0; i < x.length; i += 1) {
    if (y[i] !== null && Number.isFinite(toY(y[i]))) d += `${d ? "L" : "M"}${toX(x[i]).toFixed(1)} ${toY(y[i]).toFixed(1)}`;
  }
  return d;
}

/** The last value that is known, or undefined. */
export function lastValue(values) {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null) return values[i];
  return undefined;
}

/** Move labels apart so that neighbours keep `gap`, within [low, high]. */
export function spread(labels, gap, low, high) {
  const order = [...labels].sort((a, b) => a.at - b.at);
  order.forEach((label, i) => {
    label.at = Math.max(label.at, i ? order[i - 1].at + gap : low);
  });
  for (let i = order.length - 1; i >= 0; i -= 1) {
    order[i].at = Math.min(order[i].at, i === order.length - 1 ? high : order[i + 1].at - gap);
  }
  return order;
}

/** The index of the point of `x` (ascending) nearest to `target`. */
export function nearest(x, target) {
  let low = 0;
  let high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] < target) low = middle;
    else high = middle;
  }
  return Math.abs(x[low] - target) <= Math.abs(x[high] - target) ? low : high;
}
