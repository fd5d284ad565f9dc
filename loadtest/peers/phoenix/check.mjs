// The peer beside this file, heard by the stock clients: @supabase/realtime-js in both versions of the protocol, and npm phoenix.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { RealtimeClient } from '@supabase/realtime-js';
import { Socket } from 'phoenix';
import WebSocket from 'ws';

/** Longest time for everything, in milliseconds. */
const ALL_MS_MAX = 400_000;

setTimeout(() => fail(new Error('not done in time')), ALL_MS_MAX).unref();
process.on('unhandledRejection', fail);

const server = spawn(process.execPath, ['server.mjs'], {
  cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  env: { ...process.env, PORT: '0' },
  stdio: ['ignore', 'pipe', 'inherit'],
});
const [said] = await once(createInterface(server.stdout), 'line');
const endpoint = `ws://127.0.0.1:${said.split(' ').pop()}/realtime/v1`;

for (const vsn of ['2.0.0', '1.0.0']) await supabase(vsn);
await mixed();
await phoenix();
console.log('phoenix peer: all steps passed');
server.kill();
process.exit(0);

async function supabase(vsn) {
  const [one, two] = [client(vsn), client(vsn)];
  const [own, other] = [await join(one, 'room', { self: true, ack: true }), await join(two, 'room', { ack: true })];
  assert.equal(await own.channel.send({ type: 'broadcast', event: 'message', payload: { n: 1, text: 'grüß 世界' } }), 'ok');
  await until(() => own.heard.length === 1 && other.heard.length === 1);
  assert.deepEqual(own.heard, [{ event: 'message', n: 1, text: 'grüß 世界' }]);
  assert.deepEqual(other.heard, own.heard);

  // Without `self` the sender does not hear itself; everyone else does.
  assert.equal(await other.channel.send({ type: 'broadcast', event: 'message', payload: { n: 2 } }), 'ok');
  await until(() => own.heard.length === 2);
  assert.deepEqual([own.heard[1], other.heard.length], [{ event: 'message', n: 2 }, 1]);

  // Who has left hears no more, and other rooms never did.
  const elsewhere = await join(one, 'elsewhere', { self: true, ack: true });
  assert.equal(await two.removeChannel(other.channel), 'ok');
  for (let n = 3; n < 20; n += 1) own.channel.send({ type: 'broadcast', event: 'message', payload: { n } });
  await until(() => own.heard.length === 19);
  assert.deepEqual(own.heard.map(({ n }) => n), Array.from({ length: 19 }, (_, n) => n + 1));
  assert.deepEqual([other.heard.length, elsewhere.heard.length], [1, 0]);

  // A client that comes back joins again, and what was said meanwhile is gone.
  const back = await join(two, 'room', { ack: true });
  one.sockets.at(-1).terminate();
  await until(() => own.statuses.filter((status) => status === 'SUBSCRIBED').length === 2);
  assert.equal(await back.channel.send({ type: 'broadcast', event: 'message', payload: { n: 20 } }), 'ok');
  await until(() => own.heard.length === 20);
  await Promise.all([one, two].map((client) => client.disconnect()));
  console.log(`ok  @supabase/realtime-js, version ${vsn}`);
}

/** Clients of both versions in one room. */
async function mixed() {
  const [old, fresh] = [client('1.0.0'), client('2.0.0')];
  const members = [await join(old, 'mixed', { self: true, ack: true }), await join(fresh, 'mixed', { self: true, ack: true })];
  for (const [n, { channel }] of members.entries()) {
    assert.equal(await channel.send({ type: 'broadcast', event: 'message', payload: { n } }), 'ok');
  }
  for (const { heard } of members) {
    await until(() => heard.length === 2);
    assert.deepEqual(heard.map(({ n }) => n), [0, 1]);
  }
  await Promise.all([old, fresh].map((client) => client.disconnect()));
  console.log('ok  both versions in one room');
}

async function phoenix() {
  const socket = new Socket(endpoint, { transport: WebSocket, params: { apikey: 'none' }, vsn: '2.0.0' });
  socket.connect();
  const channel = socket.channel('realtime:plain', { config: { broadcast: { self: true, ack: true } } });
  const answer = (push) => new Promise((resolve, reject) => {
    push.receive('ok', resolve).receive('error', (reason) => reject(new Error(JSON.stringify(reason))));
  });
  const heard = [];
  channel.on('broadcast', (message) => heard.push(message));
  await answer(channel.join());
  await answer(channel.push('broadcast', { type: 'broadcast', event: 'message', payload: { n: 1 } }));
  await until(() => heard.length === 1);
  assert.deepEqual(heard, [{ type: 'broadcast', event: 'message', payload: { n: 1 } }]);
  await assert.rejects(answer(channel.push('nonsense', {})), /unknown event/);
  await assert.rejects(answer(socket.channel('other:topic').join()), /only broadcasts/);
  socket.disconnect();
  console.log('ok  npm phoenix');
}

/** A client whose `sockets` can be cut. */
function client(vsn) {
  const sockets = [];
  class Recorded extends WebSocket {
    constructor(...given) {
      super(...given);
      sockets.push(this);
    }
  }
  const made = new RealtimeClient(endpoint, { transport: Recorded, vsn, params: { apikey: 'none' } });
  return Object.assign(made, { sockets });
}

async function join(client, topic, broadcast) {
  const [heard, statuses] = [[], []];
  const channel = client.channel(topic, { config: { broadcast } });
  channel.on('broadcast', { event: '*' }, ({ event, payload }) => heard.push({ event, ...payload }));
  channel.subscribe((status) => statuses.push(status));
  await until(() => statuses.includes('SUBSCRIBED'));
  return { channel, heard, statuses };
}

async function until(look) {
  while (!look()) await new Promise((resolve) => setTimeout(resolve, 10));
}

function fail(error) {
  console.error('FAILED phoenix peer:', error);
  server?.kill();
  process.exit(1);
}
