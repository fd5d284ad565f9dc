// What the Socket.IO tests share: stock clients that write down what they hear, and how to talk with them.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { env, run, token, until } from './lib.mjs';

/** Longest wait for one answer, in milliseconds. */
const ANSWER_MS_MAX = 60_000;
/** Options for each way to connect. */
export const MODES = { polling: { transports: ['polling'] }, websocket: { transports: ['websocket'] }, upgrade: {} };

export const user = (name) => `${name}-${run}`;
export const direct = (one, other) => `conv_${[one, other].sort().join('_')}`;

/** A stock client. What comes is in `.heard`, in order: `[event, first argument]`. */
export function socketClient(url, name, options = {}) {
  const socket = io(url, {
    auth: (give) => token(env('URL_A'), name).then((token) => give({ token })),
    forceNew: true,
    reconnectionDelay: 50,
    reconnectionDelayMax: 500,
    ...options,
  });
  socket.user = name;
  socket.heard = [];
  socket.connects = 0;
  socket.on('connect', () => (socket.connects += 1));
  socket.onAny((event, ...args) => socket.heard.push([event, args[0]]));
  socket.all = (event) => socket.heard.filter(([heard]) => heard === event).map(([, argument]) => argument);
  socket.ask = (event, ...args) => socket.timeout(ANSWER_MS_MAX).emitWithAck(event, ...args);
  return socket;
}

export async function open(url, name, options) {
  const socket = socketClient(url, name, options);
  await until(`${name} is connected`, () => socket.connected);
  return socket;
}

/** Connects, and joins what is between the two. */
export async function inConversation(url, name, conversation, options) {
  const socket = await open(url, name, options);
  const answer = await socket.ask('join_conversation', { conversation_id: conversation });
  assert.equal(answer.ok, true, JSON.stringify(answer));
  return socket;
}

export const messages = (socket, conversation) =>
  socket.all('new_message').filter(({ conversation_id }) => conversation_id === conversation);
export const bodies = (socket, conversation) => messages(socket, conversation).map(({ body }) => body);
export const has = (socket, conversation, count) =>
  until(`${socket.user} has ${count} messages`, () => messages(socket, conversation).length >= count);

export async function send(socket, conversation_id, body, more = {}) {
  const answer = await socket.ask('send_message', { conversation_id, body, ...more });
  assert.equal(answer.ok, true, JSON.stringify(answer));
  return answer;
}

/** Both have the same, in the same order, once. */
export function assertSame(one, other, conversation) {
  assert.deepEqual(messages(one, conversation), messages(other, conversation));
  const seqs = messages(one, conversation).map(({ seq }) => seq);
  assert.deepEqual(seqs, [...new Set(seqs)].sort((left, right) => left - right));
}
