// The echo program of the Socket.IO suites, on npm socket.io: what Starling's example of the same name is compared with.

import { createServer } from 'node:http';
import { Server } from 'socket.io';

const pace = Number(process.env.PACE ?? 1);
const http = createServer((_, response) => response.writeHead(404).end());
const io = new Server(http, {
  pingInterval: 300 * pace,
  pingTimeout: 200 * pace,
  maxHttpBufferSize: 1_000_000,
  connectTimeout: 1000 * pace,
  cors: { origin: '*' },
});
io.on('connection', (socket) => {
  socket.emit('auth', socket.handshake.auth);
  socket.on('message', (...args) => socket.emit('message-back', ...args));
  socket.on('message-with-ack', (...args) => {
    const ack = args.pop();
    if (typeof ack === 'function') ack(...args);
  });
});
io.of('/custom').on('connection', (socket) => socket.emit('auth', socket.handshake.auth));
http.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => console.log(http.address().port));
