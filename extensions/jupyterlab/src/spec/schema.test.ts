import { describe, expect, it } from 'vitest';

import { type Field, fieldsOf, firstSentence, parse, pathOfFault, type Schema, setIn, type UnionField, variantIn, variantValue } from './schema';

const schema: Schema = {
  $defs: {
    GPT: {
      title: 'GPT',
      description: 'A transformer: with parts.\n\nMore.',
      properties: { kind: { const: 'gpt' }, n_layer: { type: 'integer', default: 6, minimum: 1, maximum: 1024 } }
    },
    MLP: { title: 'MLP', properties: { kind: { const: 'mlp' }, widths: { type: 'array', items: { type: 'integer' } } } },
    Dense: { title: 'Dense', properties: { kind: { const: 'dense' }, wire: { enum: ['same', 'bfloat16'], default: 'same' } } },
    Subspace: { title: 'Subspace', properties: { kind: { const: 'subspace' }, rank: { type: 'integer', default: 16 } } },
    Mean: { title: 'Mean', type: 'object', properties: { kind: { const: 'mean' } } }
  },
  properties: {
    version: { const: 1 },
    model: { oneOf: [{ $ref: '#/$defs/GPT' }, { $ref: '#/$defs/MLP' }] },
    boundary: { anyOf: [{ oneOf: [{ $ref: '#/$defs/Dense' }, { $ref: '#/$defs/Subspace' }] }, { type: 'null' }], default: null },
    aggregator: { $ref: '#/$defs/Mean', description: 'how gradients become one' },
    attesters: { anyOf: [{ type: 'array', items: { type: 'string' } }, { type: 'null' }], default: null },
    data: { type: 'string', default: 'stdlib' },
    eager: { type: 'boolean', default: false }
  }
};
const fields = fieldsOf(schema);
const field = (name: string): Field => {
  const found = fields.find(one => one.name === name);
  if (!found) {
    throw new Error(name);
  }
  return found;
};

describe('the form of a schema', () => {
  it('has a field for every property, of the kind that fits', () => {
    expect(fields.map(one => [one.name, one.kind, one.optional])).toEqual([
      ['version', 'fixed', false],
      ['model', 'union', false],
      ['boundary', 'union', true],
      ['aggregator', 'group', false],
      ['attesters', 'list', true],
      ['data', 'text', false],
      ['eager', 'flag', false]
    ]);
  });

  it('offers the variants of a part with their own fields', () => {
    const model = field('model') as UnionField;
    expect(model.variants.map(one => one.value)).toEqual(['gpt', 'mlp']);
    expect(model.variants[0].description).toBe('A transformer.');
    expect(model.variants[0].fields[0]).toMatchObject({ path: ['model', 'n_layer'], kind: 'number', whole: true, min: 1, max: 1024 });
    expect(variantValue(model.variants[0])).toEqual({ kind: 'gpt', n_layer: 6 });
    expect(variantValue(model.variants[1])).toEqual({ kind: 'mlp', widths: [] });
    expect(variantIn(model, { kind: 'mlp', widths: [] })?.title).toBe('MLP');
    expect(variantIn(field('boundary') as UnionField, null)).toBeUndefined();
  });

  it('refuses a schema that refers to nothing', () => {
    expect(() => fieldsOf({ properties: { a: { $ref: '#/$defs/None' } } })).toThrow('#/$defs/None');
  });

  it('reads texts as values, and leaves what is no number for the check to name', () => {
    const layers = (field('model') as UnionField).variants[0].fields[0];
    const widths = (field('model') as UnionField).variants[1].fields[0];
    expect(parse(layers, ' 1_000 ')).toBe(1000);
    expect(parse(layers, 'six')).toBe('six');
    expect(parse(layers, '')).toBe('');
    expect(parse(widths, '64, 96  10')).toEqual([64, 96, 10]);
    expect(parse(widths, '64, x')).toEqual([64, 'x']);
    expect(parse(field('attesters'), '')).toBeNull();
    expect(parse(field('attesters'), 'ann, bob')).toEqual(['ann', 'bob']);
    expect(parse(field('eager'), 'true')).toBe(true);
  });

  it('sets a nested value without touching the rest', () => {
    const spec = { model: { kind: 'gpt', n_layer: 6 }, steps: 3 };
    expect(setIn(spec, ['model', 'n_layer'], 8)).toEqual({ model: { kind: 'gpt', n_layer: 8 }, steps: 3 });
    expect(spec.model.n_layer).toBe(6);
  });

  it('finds the field that a fault is about, by its path, its end or what it holds', () => {
    const paths = [['model'], ['model', 'n_head'], ['stages'], ['attesters']];
    expect(pathOfFault('model.n_head', paths)).toEqual(['model', 'n_head']);
    expect(pathOfFault('n_head', paths)).toEqual(['model', 'n_head']);
    expect(pathOfFault('attesters.0', paths)).toEqual(['attesters']);
    expect(pathOfFault('model.gone', paths)).toEqual(['model']);
    expect(pathOfFault('nothing', paths)).toBeNull();
  });

  it('takes the first sentence of a docstring', () => {
    expect(firstSentence('`rank` numbers cross, v1.2 too. Then more.')).toBe('`rank` numbers cross, v1.2 too.');
    expect(firstSentence('No end')).toBe('No end');
  });
});
