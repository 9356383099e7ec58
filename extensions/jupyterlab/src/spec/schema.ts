/** A form out of RunSpec's JSON schema: which fields there are, what they take, and how their texts become values. */

import type { Spec } from '../api/types';

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** JSON schema, as far as pydantic writes it. */
export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string;
  title?: string;
  description?: string;
  default?: Json;
  const?: Json;
  enum?: Json[];
  properties?: Record<string, Schema>;
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

interface Base {
  /** The way from the spec to this field: ["model", "n_layer"]. */
  path: string[];
  name: string;
  description: string;
  /** Whether "nothing" is a choice: the run decides. */
  optional: boolean;
  default: Json;
}

export type Field =
  | (Base & { kind: 'number'; whole: boolean; min?: number; max?: number })
  | (Base & { kind: 'text' })
  | (Base & { kind: 'flag' })
  | (Base & { kind: 'choice'; choices: Json[] })
  | (Base & { kind: 'list'; of: 'number' | 'text' })
  | (Base & { kind: 'fixed' })
  | (Base & { kind: 'group'; fields: Field[] })
  | UnionField;

export type UnionField = Base & { kind: 'union'; variants: Variant[] };

export interface Variant {
  value: string;
  title: string;
  description: string;
  fields: Field[];
}

/** The field that tells the variants of a part apart. */
const TAG = 'kind';

/** The fields of a spec, in the schema's order. */
export function fieldsOf(root: Schema): Field[] {
  return Object.entries(root.properties ?? {}).map(([name, schema]) => fieldOf(root, schema, [name]));
}

function fieldOf(root: Schema, given: Schema, path: string[]): Field {
  const schema = resolve(root, given);
  const base: Base = {
    path,
    name: path[path.length - 1] ?? '',
    description: given.description ?? schema.description ?? '',
    optional: false,
    default: given.default ?? schema.default ?? null
  };
  if (schema.const !== undefined) {
    return { ...base, kind: 'fixed', default: schema.const };
  }
  const some = schema.anyOf?.filter(one => one.type !== 'null') ?? [];
  if (schema.anyOf && some.length === 1) {
    return { ...fieldOf(root, some[0], path), description: base.description, optional: true, default: base.default };
  }
  const kinds = schema.oneOf ?? some;
  if (kinds.length) {
    const optional = some.length > 0 && some.length < (schema.anyOf?.length ?? 0);
    return { ...base, kind: 'union', optional, variants: kinds.map(one => variantOf(root, one, path)) };
  }
  if (schema.enum) {
    return { ...base, kind: 'choice', choices: schema.enum };
  }
  switch (schema.type) {
    case 'integer':
    case 'number':
      return {
        ...base,
        kind: 'number',
        whole: schema.type === 'integer',
        min: schema.minimum ?? schema.exclusiveMinimum,
        max: schema.maximum ?? schema.exclusiveMaximum
      };
    case 'boolean':
      return { ...base, kind: 'flag' };
    case 'array': {
      const holds = resolve(root, schema.items ?? {}).type;
      return { ...base, kind: 'list', of: holds === 'integer' || holds === 'number' ? 'number' : 'text' };
    }
    case 'object': {
      const fields = Object.entries(schema.properties ?? {}).map(([name, one]) => fieldOf(root, one, [...path, name]));
      return { ...base, kind: 'group', fields };
    }
    default:
      return { ...base, kind: 'text' };
  }
}

function variantOf(root: Schema, given: Schema, path: string[]): Variant {
  const schema = resolve(root, given);
  const properties = Object.entries(schema.properties ?? {});
  const tag = schema.properties?.[TAG];
  const value = tag?.const ?? tag?.default;
  return {
    value: typeof value === 'string' ? value : (schema.title ?? ''),
    title: schema.title ?? '',
    description: firstSentence(schema.description ?? ''),
    fields: properties.filter(([name]) => name !== TAG).map(([name, one]) => fieldOf(root, one, [...path, name]))
  };
}

function resolve(root: Schema, schema: Schema): Schema {
  if (!schema.$ref) {
    return schema;
  }
  const found = root.$defs?.[schema.$ref.replace('#/$defs/', '')];
  if (!found) {
    throw new Error(`the schema refers to ${schema.$ref}, which it does not hold`);
  }
  return found;
}

/** Docstrings go on with sources and shapes; a form wants what the thing is. */
export function firstSentence(text: string): string {
  const paragraph = text.split('\n\n')[0].replace(/\s+/g, ' ').trim();
  return /^.*?[.:;](?= |$)/.exec(paragraph)?.[0].replace(/[:;]$/, '.') ?? paragraph;
}

/** "n_layer" -> "n layer": a field's own name, as it stands in code, only readable. */
export function labelOf(field: Pick<Field, 'name'>): string {
  return field.name.replace(/_/g, ' ');
}

export function getIn(spec: unknown, path: string[]): Json | undefined {
  let here: unknown = spec;
  for (const name of path) {
    if (typeof here !== 'object' || here === null || Array.isArray(here)) {
      return undefined;
    }
    here = (here as Record<string, unknown>)[name];
  }
  return here as Json | undefined;
}

/** A copy of `spec` with `value` at `path`. */
export function setIn(spec: Spec, path: string[], value: Json): Spec {
  const [name, ...rest] = path;
  if (name === undefined) {
    throw new Error('a value needs a name to stand under');
  }
  if (!rest.length) {
    return { ...spec, [name]: value };
  }
  const inner = spec[name];
  return { ...spec, [name]: setIn(typeof inner === 'object' && inner !== null ? (inner as Spec) : {}, rest, value) };
}

/** The variant that `value` is of; undefined where there is none. */
export function variantIn(field: UnionField, value: Json | undefined): Variant | undefined {
  const tag = getIn(value, [TAG]);
  return field.variants.find(one => one.value === tag);
}

/** The value a variant starts with: its defaults. A list without one starts empty, for the check to ask for it. */
export function variantValue(variant: Variant): Json {
  const value: { [name: string]: Json } = { [TAG]: variant.value };
  for (const one of variant.fields) {
    if (one.default !== null || one.optional) {
      value[one.name] = one.default;
    } else if (one.kind === 'list') {
      value[one.name] = [];
    }
  }
  return value;
}

/** What a typed text means. A text that is no number stays a text, so that the check names it as it was typed. */
export function parse(field: Field, text: string): Json {
  const trimmed = text.trim();
  if (field.optional && trimmed === '') {
    return null;
  }
  switch (field.kind) {
    case 'number':
      return asNumber(trimmed);
    case 'choice':
      return field.choices.find(one => format(one) === text) ?? text;
    case 'flag':
      return trimmed === 'true';
    case 'list': {
      const parts = trimmed.split(/[\s,;]+/).filter(Boolean);
      return field.of === 'number' ? parts.map(asNumber) : parts;
    }
    default:
      return text;
  }
}

function asNumber(text: string): Json {
  const value = Number(text.replace(/_/g, ''));
  return text === '' || !Number.isFinite(value) ? text : value;
}

export function format(value: Json | undefined): string {
  if (value === null || value === undefined) {
    return '';
  }
  if (Array.isArray(value)) {
    return value.map(format).join(', ');
  }
  return typeof value === 'object' ? '' : String(value);
}

/** The field's path that a check's name for it means ("n_head" as well as "model.n_head"); null where it is of no one field. */
export function pathOfFault(name: string, paths: string[][]): string[] | null {
  const wanted = name
    .split('.')
    .filter(one => !/^\d+$/.test(one))
    .join('.');
  const texts = paths.map(path => path.join('.'));
  const found = [
    texts.indexOf(wanted),
    texts.findIndex(text => text.endsWith(`.${wanted}`)),
    texts.findIndex(text => wanted.startsWith(`${text}.`))
  ].find(at => at >= 0);
  return found === undefined ? null : paths[found];
}
