// A small chat server on npm socket.io, with everything in memory: what the app was written for.

import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const SECRET = process.env.TOKEN_SECRET ?? randomUUID();
/** How long a session waits for its client to come back, in milliseconds. */
const RECOVERY_MS = 2 * 60 * 1000;
const KINDS = ['text', 'image', 'file'];

const http = createServer(serveToken);
const io = new Server(http, { cors: { origin: '*' }, connectionStateRecovery: { maxDisconnectionDuration: RECOVERY_MS } });
/** Conversation id → `{messages, readBy}`. */
const conversations = new Map();
/** User id → how many connections. */
const connections = new Map();
/** User id → when the last connection went, in milliseconds since 1970. */
const lastSeen = new Map();

io.use((socket, next) => {
  socket.data.user = verify(socket.handshake.auth.token);
  if (socket.data.user) return next();
  next(Object.assign(new Error('unauthorized'), { data: { code: 'unauthorized' } }));
});

io.on('connection', (socket) => {
  const { user } = socket.data;
  arrived(user);
  socket.on('disconnect', () => left(user));
  if (!socket.recovered) socket.join(`user:${user}`);

  /** Answers by the callback, or says a refusal in an event. */
  const on = (event, handle) => socket.on(event, (...args) => {
    const answer = typeof args.at(-1) === 'function' ? args.pop() : undefined;
    const request = typeof args[0] === 'string' ? { conversation_id: args[0] } : args[0] ?? {};
    const result = handle(request);
    if (answer) answer(result);
    else if (!result.ok) socket.emit('error', { event, error: result.error, conversation_id: request.conversation_id });
  });
  /** The same for what only a member may do. */
  const onMember = (event, handle) => on(event, (request) => {
    if (typeof request.conversation_id !== 'string') return refuse('invalid');
    if (!peerOf(user, request.conversation_id)) return refuse('forbidden');
    return handle(request, request.conversation_id);
  });

  on('register_user', () => ({ ok: true, user_id: user }));
  onMember('join_conversation', ({ seq }, conversation_id) => {
    const { messages, readBy } = conversation(conversation_id);
    socket.join(conversation_id);
    socket.join(`presence:${peerOf(user, conversation_id)}`);
    for (const message of messages.slice(seq ?? messages.length)) socket.emit('new_message', message);
    for (const [user_id, seq] of readBy) {
      if (user_id !== user) socket.emit('message_read', { conversation_id, user_id, seq });
    }
    socket.emit(...presence(peerOf(user, conversation_id)));
    return { ok: true, conversation_id, seq: messages.length };
  });
  onMember('leave_conversation', (_, conversation_id) => {
    socket.leave(conversation_id);
    socket.leave(`presence:${peerOf(user, conversation_id)}`);
    return { ok: true, conversation_id };
  });
  onMember('send_message', (request, conversation_id) => send(user, request, conversation_id));
  for (const [event, typing] of [['typing', true], ['stop_typing', false]]) {
    onMember(event, (_, conversation_id) => {
      socket.to(conversation_id).emit('user_typing', { conversation_id, user_id: user, typing });
      return { ok: true };
    });
  }
  onMember('mark_read', (request, conversation_id) => {
    const { messages, readBy } = conversation(conversation_id);
    const seq = Math.max(Math.min(request.seq ?? Infinity, messages.length), readBy.get(user) ?? 0);
    readBy.set(user, seq);
    io.to(conversation_id).emit('message_read', { conversation_id, user_id: user, seq });
    return { ok: true, conversation_id, seq };
  });
});

function send(sender_id, request, conversation_id) {
  const { body = request.text ?? request.content ?? request.message, kind = 'text', client_id, reply_to } = request;
  if (body === undefined || !KINDS.includes(kind)) return refuse('invalid');
  const { messages, readBy } = conversation(conversation_id);
  const isRetry = (message) => message.sender_id === sender_id && message.client_id === client_id;
  let message = client_id === undefined ? undefined : messages.find(isRetry);
  if (!message) {
    const [id, seq, time] = [randomUUID(), messages.length + 1, Date.now()];
    message = { id, seq, conversation_id, sender_id, body, kind, time, client_id, reply_to };
    messages.push(message);
    readBy.set(sender_id, seq);
    io.to(conversation_id).emit('new_message', message);
  }
  return { ok: true, id: message.id, seq: message.seq, time: message.time };
}

function conversation(id) {
  if (!conversations.has(id)) conversations.set(id, { messages: [], readBy: new Map() });
  return conversations.get(id);
}

/** The other user of a direct conversation, if `user` is one of the two. */
function peerOf(user, id) {
  const [, smaller, larger] = /^conv_([^_]+)_([^_]+)$/.exec(id) ?? [];
  if (!smaller || smaller >= larger) return undefined;
  return { [smaller]: larger, [larger]: smaller }[user];
}

function presence(user_id) {
  const last_seen = lastSeen.get(user_id) ?? null;
  return [connections.has(user_id) ? 'user_online' : 'user_offline', { user_id, last_seen }];
}

function arrived(user) {
  connections.set(user, (connections.get(user) ?? 0) + 1);
  if (connections.get(user) === 1) io.to(`presence:${user}`).emit(...presence(user));
}

function left(user) {
  lastSeen.set(user, Date.now());
  connections.set(user, connections.get(user) - 1);
  if (connections.get(user)) return;
  connections.delete(user);
  io.to(`presence:${user}`).emit(...presence(user));
}

function refuse(error) {
  return { ok: false, error };
}

/** The user whom a token (HS256) names, if it is good. */
function verify(token) {
  const [head, claims, signature] = String(token).split('.');
  const expected = Buffer.from(sign(`${head}.${claims}`));
  const given = Buffer.from(signature ?? '');
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
  const { sub, exp } = JSON.parse(Buffer.from(claims, 'base64url'));
  return exp > Date.now() / 1000 ? sub : undefined;
}

function sign(text) {
  return createHmac('sha256', SECRET).update(text).digest('base64url');
}

/** `GET /dev/token?user=…`, for trying it, where no secret is known to others. */
function serveToken(request, response) {
  const url = new URL(request.url, 'http://localhost');
  const user = url.searchParams.get('user');
  if (process.env.TOKEN_SECRET || url.pathname !== '/dev/token' || !user) return response.writeHead(404).end();
  const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp: Date.now() / 1000 + 3600 })}`;
  response.setHeader('content-type', 'application/json').end(JSON.stringify({ token: `${text}.${sign(text)}` }));
}

http.listen(Number(process.env.PORT ?? 3001), '127.0.0.1');
