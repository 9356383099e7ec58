/** What our commands take, as JSON schemas: palettes, keyboards and other extensions read them. */

const run = { type: 'string', pattern: '^[0-9a-f]{64}$', description: "The run's id; without it, the chosen run, or a question." } as const;

export const NO_ARGS = { type: 'object', properties: {} } as const;
export const RUN_ARGS = { type: 'object', properties: { run } } as const;
export const OPEN_ARGS = {
  type: 'object',
  properties: { run, panes: { type: 'string', description: 'How its panes are arranged, as JSON; what cannot be read is ignored.' } }
} as const;
export const STOP_ARGS = {
  type: 'object',
  properties: { run, asked: { type: 'boolean', description: 'Somebody has confirmed already.' } }
} as const;
export const WORKER_ARGS = {
  type: 'object',
  properties: { run, worker: { type: 'string', description: 'Name of the worker.' } },
  required: ['worker']
} as const;
export const DETACH_ARGS = {
  type: 'object',
  properties: { run, worker: { type: 'string', description: 'Name of the worker; without it, a question.' } }
} as const;
export const INVITE_ARGS = {
  type: 'object',
  properties: {
    run,
    seats: { type: 'integer', minimum: 1, maximum: 1024, description: 'How many workers may come.' },
    stage: { type: 'integer', minimum: 0, description: 'Where they work; without it, where there are fewest workers.' }
  }
} as const;
export const ATTACH_ARGS = {
  type: 'object',
  properties: {
    run,
    device: { type: 'string', description: 'cpu, or cuda:0 for the first GPU of the server’s machine.' },
    stage: { type: 'integer', minimum: 0, description: 'Where it works; without it, where there are fewest workers.' },
    account: { type: 'string', description: 'Who owns what it does, an account of this home; without it, the founder.' },
    data: { type: 'string', pattern: '^path:', description: 'A text of the server’s machine that it draws from, if the run has own_data.' },
    asked: { type: 'boolean', description: 'Somebody has said all that already: no dialog.' }
  }
} as const;
export const COMPARE_ARGS = {
  type: 'object',
  properties: { runs: { type: 'array', items: run, minItems: 2, maxItems: 2, description: 'The two runs; without them, a question.' } }
} as const;
