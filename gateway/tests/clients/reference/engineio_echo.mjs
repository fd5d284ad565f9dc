// The echo program of the Engine.IO suites, on npm engine.io: what Starling's example of the same name is compared with.

import { createServer } from 'node:http';
import { Server } from 'engine.io';

const pace = Number(process.env.PACE ?? 1);
const http = createServer((_, response) => response.writeHead(404).end());
const engine = new Server({
  pingInterval: 300 * pace,
  pingTimeout: 200 * pace,
  maxHttpBufferSize: 1_000_000,
  cors: { origin: '*' },
});
engine.attach(http, { path: '/engine.io/' });
engine.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
http.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => console.log(http.address().port));
