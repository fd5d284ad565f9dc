// Starts the echo programs on Node, which the others are compared with.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** Starts `reference/NAME.mjs` on a free port; the URL. It ends with this process. */
export async function startReference(name) {
  const child = spawn(process.execPath, [new URL(`reference/${name}.mjs`, import.meta.url).pathname], {
    env: { ...process.env, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  process.on('exit', () => child.kill('SIGKILL'));
  const [port] = await once(createInterface(child.stdout), 'line');
  return `http://127.0.0.1:${port}`;
}
