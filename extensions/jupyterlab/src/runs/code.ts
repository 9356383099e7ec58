/** The Python that opens a run, for a cell. */

const ID = /^[0-9a-f]{64}$/;

export function isRunId(text: unknown): text is string {
  return typeof text === 'string' && ID.test(text);
}

/** Code that shows the run `id` live. Throws for anything but an id: what goes into a cell is run later. */
export function codeFor(id: string): string {
  if (!isRunId(id)) {
    throw new Error(`"${String(id).slice(0, 80)}" is not a run's id: 64 characters 0-9 and a-f`);
  }
  return `import pluralis_lab as pl\n\nrun = pl.open_run("${id}")\nrun.watch()`;
}
