import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

export default defineConfig({
  // A linked folder without a package.json of its own: the bundler takes it, vite wants to be told.
  resolve: { alias: { '@pluralis-lab/views': fileURLToPath(new URL('../../pluralis_lab/views/static', import.meta.url)) } },
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'node',
    // JupyterLab's packages are ES modules that do not say so: vitest has to read them itself.
    server: { deps: { inline: [/@jupyterlab/, /@lumino/, /@jupyter\//] } }
  }
});
