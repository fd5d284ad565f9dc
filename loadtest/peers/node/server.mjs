// A Socket.IO chat server as its documentation shows one, for comparison: PORT, and REDIS_URL for the Redis adapter.
import { Server } from 'socket.io';

const io = new Server(Number(process.env.PORT), { transports: ['websocket'], serveClient: false, perMessageDeflate: false });

if (process.env.REDIS_URL) {
  const { createAdapter } = await import('@socket.io/redis-adapter');
  const { createClient } = await import('redis');
  const publisher = createClient({ url: process.env.REDIS_URL });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.on('connection', (socket) => {
  socket.on('join_conversation', async ({ conversationId }, ack) => {
    await socket.join(conversationId);
    ack({ ok: true });
  });
  socket.on('send_message', ({ conversationId, content }, ack) => {
    io.to(conversationId).emit('new_message', { conversationId, content });
    ack({ ok: true });
  });
});
