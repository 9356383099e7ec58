// Prints what a browser has to fetch of the built extension, gzipped, and fails above the limit.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const LIMIT_KB = 400;
const folder = fileURLToPath(new URL('../../../pluralis_lab/labextension/static/', import.meta.url));
let total = 0;
for (const name of readdirSync(folder).filter(name => /\.(js|css|svg|woff2?)$/.test(name)).sort()) {
  const size = gzipSync(readFileSync(folder + name), { level: 9 }).length;
  total += size;
  console.log(`${(size / 1000).toFixed(1).padStart(8)} kB  ${name}`);
}
console.log(`${(total / 1000).toFixed(1).padStart(8)} kB  gzipped in all; the limit is ${LIMIT_KB} kB`);
process.exitCode = total > LIMIT_KB * 1000 ? 1 : 0;
