/** Where two specs differ: one line a value, named by its path. */

import type { Spec } from '../api/types';

export interface Difference {
  path: string;
  a: string;
  b: string;
}

const ABSENT = '–';

/** The differences of `a` and `b`, in the order of their fields. A part of another kind is compared field by field too. */
export function differences(a: Spec, b: Spec): Difference[] {
  const left = flatten(a);
  const right = flatten(b);
  const paths = [...new Set([...left.keys(), ...right.keys()])];
  return paths
    .map(path => ({ path, a: left.get(path) ?? ABSENT, b: right.get(path) ?? ABSENT }))
    .filter(one => one.a !== one.b);
}

function flatten(value: unknown, path = '', into = new Map<string, string>()): Map<string, string> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) {
      flatten(inner, path ? `${path}.${name}` : name, into);
    }
  } else {
    into.set(path, show(value));
  }
  return into;
}

function show(value: unknown): string {
  if (value === null || value === undefined) {
    return ABSENT;
  }
  if (Array.isArray(value)) {
    return value.map(show).join(', ');
  }
  return typeof value === 'string' ? value : JSON.stringify(value);
}
