// Phoenix channels as Supabase Realtime has them, on Node: topics that bring each broadcast to everyone who has joined, and
// acknowledge it to who asks for that. It keeps nothing, so whoever was away has missed what was said: PORT.
//
// Deliberately absent: tokens, presence, rows of a database. Every key and every topic is let in.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const PATH = '/realtime/v1/websocket';
/** Longest message, in bytes. */
const MESSAGE_BYTES_MAX = 1_048_576;
/** Without a word for so long, a client is gone; clients send a heartbeat every 25 s. */
const SILENCE_MS_MAX = 60_000;
/** The first byte of a binary broadcast: of a client, and of the server. */
const [FROM_CLIENT, FROM_SERVER] = [3, 4];
/** What the payload of a binary broadcast is. */
const JSON_PAYLOAD = 1;

/** For each topic, its members: a client, and its join. */
const topics = new Map();

class Client {
  /** The join in force of each topic: its number, and what was asked for. */
  joins = new Map();

  constructor(socket, isVersion1) {
    this.socket = socket;
    this.isVersion1 = isVersion1;
    this.isAlive = true;
    socket.on('message', (data, isBinary) => {
      this.isAlive = true;
      try {
        this.hear(isBinary ? readBinary(data) : this.read(data.toString()));
      } catch (error) {
        socket.close(1003, String(error.message).slice(0, 100));
      }
    });
    socket.on('close', () => [...this.joins.keys()].forEach((topic) => this.leave(topic)));
    socket.on('error', () => {});
  }

  read(text) {
    const message = JSON.parse(text);
    if (this.isVersion1) return message;
    const [join_ref, ref, topic, event, payload] = message;
    return { join_ref, ref, topic, event, payload };
  }

  hear({ ref, topic, event, payload, encoded }) {
    if (topic === 'phoenix' && event === 'heartbeat') return this.reply(null, ref, topic, 'ok');
    if (event === 'phx_join') return this.join(ref, topic, payload);
    const join = this.joins.get(topic);
    if (!join) return this.reply(null, ref, topic, 'error', { reason: 'unmatched topic' });
    switch (event) {
      case 'phx_leave':
        this.leave(topic);
        this.reply(join.ref, ref, topic, 'ok');
        return this.say(join.ref, join.ref, topic, 'phx_close', {});
      case 'broadcast':
        this.broadcast(join, topic, encoded ?? payload);
        if (join.ack) this.reply(join.ref, ref, topic, 'ok');
        return;
      case 'access_token':
        return;
      default:
        return this.reply(join.ref, ref, topic, 'error', { reason: `unknown event ${event}` });
    }
  }

  join(ref, topic, payload) {
    const { broadcast = {}, postgres_changes = [] } = payload?.config ?? {};
    if (!topic.startsWith('realtime:') || postgres_changes.length > 0) {
      return this.reply(ref, ref, topic, 'error', { reason: 'only broadcasts to realtime:… are known here' });
    }
    this.leave(topic);
    const join = { client: this, ref, self: broadcast.self === true, ack: broadcast.ack === true };
    this.joins.set(topic, join);
    if (!topics.has(topic)) topics.set(topic, new Set());
    topics.get(topic).add(join);
    this.reply(ref, ref, topic, 'ok', { postgres_changes: [] });
    this.say(ref, null, topic, 'presence_state', {});
  }

  leave(topic) {
    const members = topics.get(topic);
    members?.delete(this.joins.get(topic));
    if (members?.size === 0) topics.delete(topic);
    this.joins.delete(topic);
  }

  /** Brings a payload to all members, written once for each form in which they read it. */
  broadcast(from, topic, payload) {
    const forms = { 1: null, 2: null };
    for (const member of topics.get(topic) ?? []) {
      if (member === from && !from.self) continue;
      const version = member.client.isVersion1 ? 1 : 2;
      // Version 1 has no binary form, so bytes that are no JSON go by it.
      forms[version] ??= version === 1 ? object(topic, payload) : payload.binary ?? array(topic, payload);
      if (forms[version]) member.client.socket.send(forms[version]);
    }
  }

  reply(join_ref, ref, topic, status, response = {}) {
    this.say(join_ref, ref, topic, 'phx_reply', { status, response });
  }

  say(join_ref, ref, topic, event, payload) {
    const message = { join_ref, ref, topic, event, payload };
    this.socket.send(JSON.stringify(this.isVersion1 ? message : [join_ref, ref, topic, event, payload]));
  }
}

const array = (topic, payload) => JSON.stringify([null, null, topic, 'broadcast', payload]);

function object(topic, payload) {
  if (payload.binary && payload.encoding !== JSON_PAYLOAD) return '';
  const { event, type = 'broadcast' } = payload;
  const inner = payload.binary ? JSON.parse(payload.bytes.toString()) : payload.payload;
  return JSON.stringify({ topic, event: 'broadcast', payload: { type, event, payload: inner }, ref: null, join_ref: null });
}

/** A broadcast whose payload is passed on byte for byte. */
function readBinary(data) {
  const [kind, ...lengths] = data.subarray(0, 7);
  if (kind !== FROM_CLIENT || lengths.length < 6) throw new Error('an unknown binary message');
  const encoding = lengths[5];
  let at = 7;
  const [, ref, topic, event, metadata] = lengths.slice(0, 5).map((length) => data.subarray(at, (at += length)));
  const bytes = data.subarray(at);
  const binary = Buffer.concat([
    Buffer.from([FROM_SERVER, topic.length, event.length, metadata.length, encoding]), topic, event, metadata, bytes,
  ]);
  const encoded = { binary, bytes, encoding, event: event.toString() };
  return { ref: ref.toString(), topic: topic.toString(), event: 'broadcast', encoded };
}

const http = createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ noServer: true, maxPayload: MESSAGE_BYTES_MAX, perMessageDeflate: false });
const clients = new Set();
http.on('upgrade', (request, socket, head) => {
  const url = new URL(request.url, 'http://localhost');
  const version = url.searchParams.get('vsn') ?? '1.0.0';
  if (url.pathname !== PATH || !['1.0.0', '2.0.0'].includes(version)) {
    return socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
  }
  sockets.handleUpgrade(request, socket, head, (opened) => {
    const client = new Client(opened, version === '1.0.0');
    clients.add(client);
    opened.on('close', () => clients.delete(client));
  });
});
setInterval(() => {
  for (const client of clients) {
    if (!client.isAlive) client.socket.terminate();
    client.isAlive = false;
  }
}, SILENCE_MS_MAX).unref();
http.listen(Number(process.env.PORT), '127.0.0.1', () => console.log(`listening on ${http.address().port}`));
