// Socket.IO 5 against the echo program at URL, or that on Node where no URL is given: the 32 checks of the protocol, and what else a client may run into.

import assert from 'node:assert/strict';
import { close, handshake, heartbeat, upgrade } from './engineio_checks.mjs';
import { startReference } from './reference.mjs';
import { suite } from './suite.mjs';
import { Engine, PACE, SEPARATOR, pause } from './wire.mjs';

const engine = await new Engine(process.env.URL ?? (await startReference('socketio_echo')), '/socket.io/').listening();
const bytes = (...values) => Buffer.from(values);
const json = (packet, prefix) => {
  assert.equal(packet.slice(0, prefix.length), prefix, packet);
  return JSON.parse(packet.slice(prefix.length));
};

/** Joins a namespace: the packet `connect`, and what comes of it. Returns the namespace's session id. */
async function join(wire, connect = '40', namespace = '', auth = {}) {
  wire.send(connect);
  const answer = json(await wire.nextMessage(), `40${namespace}`);
  assert.deepEqual(Object.keys(answer), ['sid']);
  assert.equal(typeof answer.sid, 'string');
  assert.deepEqual(json(await wire.nextMessage(), `42${namespace}`), ['auth', auth]);
  return answer.sid;
}

/** A WebSocket in the main namespace. */
async function joined() {
  const wire = await engine.openSocket();
  wire.sid = await join(wire);
  return wire;
}

async function echoes(wire) {
  wire.send('42["message","are you there"]');
  assert.equal(await wire.nextMessage(), '42["message-back","are you there"]');
}

/** The session must end on these frames. */
async function ends(...frames) {
  const wire = await joined();
  wire.send(...frames);
  await wire.closed();
}

/** On an upgraded transport a session lives when it pings. */
async function pings(wire) {
  assert.equal(await wire.next(), '2');
  wire.send('3');
}

const connect = [
  ['connect: the main namespace', async () => {
    const wire = await engine.openSocket();
    await join(wire);
    wire.close();
  }],
  ['connect: the main namespace, with a payload', async () => {
    const wire = await engine.openSocket();
    await join(wire, '40{"token":"123"}', '', { token: '123' });
    wire.close();
  }],
  ['connect: a custom namespace', async () => {
    const wire = await engine.openSocket();
    await join(wire, '40/custom,', '/custom,');
    wire.close();
  }],
  ['connect: a custom namespace, with a payload', async () => {
    const wire = await engine.openSocket();
    await join(wire, '40/custom,{"token":"abc"}', '/custom,', { token: 'abc' });
    wire.close();
  }],
  ['connect: a namespace that is not there is refused', async () => {
    const wire = await engine.openSocket();
    wire.send('40/random');
    assert.equal(await wire.nextMessage(), '44/random,{"message":"Invalid namespace"}');
    wire.close();
  }],
  ['connect: anything else first ends the session', async () => {
    const wire = await engine.openSocket();
    wire.send('4abc');
    await wire.closed();
  }],
  ['connect: who never joins a namespace is let go', async () => {
    const wire = await engine.openSocket();
    await assert.rejects(async () => {
      for (;;) assert.equal(await wire.nextMessage(), 'only pings come');
    }, /closed/);
  }],
];

const disconnect = [
  ['disconnect: from the main namespace', async () => {
    const wire = await joined();
    wire.send('41');
    await pings(wire);
    wire.close();
  }],
  ['disconnect: from a custom namespace, and the main one stays', async () => {
    const wire = await joined();
    await join(wire, '40/custom', '/custom,');
    wire.send('41/custom');
    await echoes(wire);
    wire.close();
  }],
];

const message = [
  ['message: text', async () => {
    const wire = await joined();
    wire.send('42["message",1,"2",{"3":[true]}]');
    assert.equal(await wire.nextMessage(), '42["message-back",1,"2",{"3":[true]}]');
    wire.close();
  }],
  ['message: with attachments', async () => {
    const wire = await joined();
    const args = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
    wire.send(`452-["message",${args}]`, bytes(1, 2, 3), bytes(4, 5, 6));
    assert.equal(await wire.nextMessage(), `452-["message-back",${args}]`);
    assert.deepEqual(await wire.nextMessage(), bytes(1, 2, 3));
    assert.deepEqual(await wire.nextMessage(), bytes(4, 5, 6));
    wire.close();
  }],
  ['message: text with an acknowledgement', async () => {
    const wire = await joined();
    wire.send('42456["message-with-ack",1,"2",{"3":[false]}]');
    assert.equal(await wire.nextMessage(), '43456[1,"2",{"3":[false]}]');
    wire.close();
  }],
  ['message: attachments with an acknowledgement', async () => {
    const wire = await joined();
    const args = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
    wire.send(`452-789["message-with-ack",${args}]`, bytes(1, 2, 3), bytes(4, 5, 6));
    assert.equal(await wire.nextMessage(), `462-789[${args}]`);
    assert.deepEqual(await wire.nextMessage(), bytes(1, 2, 3));
    assert.deepEqual(await wire.nextMessage(), bytes(4, 5, 6));
    wire.close();
  }],
  ['message: a packet of no known type ends the session', () => ends('4abc')],
  ['message: a payload that is no array ends the session', () => ends('42{}')],
  ['message: an acknowledgement id that is no number ends the session', () =>
    ends('42abc["message-with-ack",1,"2",{"3":[false]}]')],
];

const namespaces = [
  ['several namespaces on one connection have sessions of their own', async () => {
    const wire = await joined();
    const custom = await join(wire, '40/custom,{"n":1}', '/custom,', { n: 1 });
    assert.equal(new Set([wire.handshake.sid, wire.sid, custom]).size, 3);
    await echoes(wire);
    wire.close();
  }],
  ['a refused namespace leaves the others alone', async () => {
    const wire = await joined();
    wire.send('40/random,{"token":"abc"}');
    assert.equal(await wire.nextMessage(), '44/random,{"message":"Invalid namespace"}');
    await echoes(wire);
    wire.close();
  }],
  ['who has left may come back', async () => {
    const wire = await joined();
    wire.send('41');
    // The Node server takes its time over a disconnect, and closes the session if the connect is faster.
    await pause(20 * PACE);
    const again = await join(wire);
    assert.notEqual(again, wire.sid);
    await echoes(wire);
    wire.close();
  }],
  ['joining the same namespace twice ends the session', () => ends('40')],
  ['a packet for a namespace that is not joined ends the session', () => ends('42/custom,["message","x"]')],
  ['a packet for a namespace that was left ends the session', () => ends('41', '42["message","x"]')],
  ['a payload of a connect that is no object ends the session', async () => {
    for (const payload of ['"token"', '[]', '1', '{']) {
      const wire = await engine.openSocket();
      wire.send(`40${payload}`);
      await wire.closed();
    }
  }],
];

const events = [
  ['events come back in order, with everything that JSON can say', async () => {
    const wire = await joined();
    const all = [['ä ß 世界 🐦', '\u0000"\\/\u2028'], [-0.5, 1e-7, true, null, [[]], {}], [{ '': { deep: [['x']] } }], []];
    wire.send(...all.map((args) => `42${JSON.stringify(['message', ...args])}`));
    for (const args of all) assert.deepEqual(json(await wire.nextMessage(), '42'), ['message-back', ...args]);
    wire.close();
  }],
  ['a burst comes back in order', async () => {
    const wire = await joined();
    const numbers = [...Array(500).keys()];
    wire.send(...numbers.map((number) => `42["message",${number}]`));
    for (const number of numbers) assert.equal(await wire.nextMessage(), `42["message-back",${number}]`);
    wire.close();
  }],
  ['acknowledgement ids come back as they are', async () => {
    const wire = await joined();
    for (const id of [0, 1, 65536, 2_147_483_648]) {
      wire.send(`42${id}["message-with-ack"]`);
      assert.equal(await wire.nextMessage(), `43${id}[]`);
    }
    wire.close();
  }],
  ['an acknowledgement that nobody waits for changes nothing', async () => {
    const wire = await joined();
    wire.send('437[]');
    await echoes(wire);
    wire.close();
  }],
  ['an event that nobody handles changes nothing', async () => {
    const wire = await joined();
    wire.send('42["no-such-event",{"a":1}]');
    await echoes(wire);
    wire.close();
  }],
  ['ten attachments pass, nested anywhere', async () => {
    const wire = await joined();
    const numbers = [...Array(10).keys()];
    const args = JSON.stringify({ a: numbers.map((num) => ({ b: [{ _placeholder: true, num }] })) });
    wire.send(`4510-["message",${args}]`, ...numbers.map((number) => bytes(number)));
    assert.equal(await wire.nextMessage(), `4510-["message-back",${args}]`);
    for (const number of numbers) assert.deepEqual(await wire.nextMessage(), bytes(number));
    wire.close();
  }],
  ['an empty attachment and a big one', async () => {
    const wire = await joined();
    const big = Buffer.alloc(500_000, 7);
    wire.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', bytes(), big);
    await wire.nextMessage();
    assert.equal((await wire.nextMessage()).length, 0);
    assert.ok(big.equals(await wire.nextMessage()));
    wire.close();
  }],
  ['text before all attachments have come ends the session', () =>
    ends('452-["message",{"_placeholder":true,"num":0}]', bytes(1), '42["message","x"]')],
  ['attachments that nobody announced end the session', () => ends(bytes(1, 2, 3))],
  ['reserved event names end the session', async () => {
    for (const name of ['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener']) {
      await ends(`42["${name}"]`);
    }
  }],
];

const polling = [
  ['polling: connect, message, acknowledgement, attachments', async () => {
    const { sid } = await engine.open();
    await engine.post(sid, '40{"token":"123"}');
    const [answer, auth] = await engine.polled(sid, 2);
    assert.notEqual(json(answer, '40').sid, sid);
    assert.deepEqual(json(auth, '42'), ['auth', { token: '123' }]);
    const binary = `b${bytes(1, 2, 3).toString('base64')}`;
    const packets = ['42["message","a"]', '429["message-with-ack","b"]', '451-["message",{"_placeholder":true,"num":0}]', binary];
    await engine.post(sid, packets.join(SEPARATOR));
    assert.deepEqual(await engine.polled(sid, 4),
      ['42["message-back","a"]', '439["b"]', '451-["message-back",{"_placeholder":true,"num":0}]', binary]);
  }],
  ['polling: an upgrade in the middle of a talk loses nothing and repeats nothing', async () => {
    const { sid } = await engine.open();
    await engine.post(sid, '40');
    await engine.polled(sid, 2);
    const wire = await engine.upgrade(sid).open();
    wire.send('2probe');
    assert.equal(await wire.next(), '3probe');
    await engine.post(sid, '42["message",1]\x1e42["message",2]');
    wire.send('5', '42["message",3]');
    for (const number of [1, 2, 3]) assert.equal(await wire.nextMessage(), `42["message-back",${number}]`);
    wire.close();
  }],
  ['a client that goes away does not disturb the others', async () => {
    const [stays, goes] = [await joined(), await joined()];
    goes.close();
    await pause(20);
    await echoes(stays);
    stays.close();
  }],
];

await suite('socketio', {
  protocol: [
    ...handshake(engine), ...heartbeat(engine), ...close(engine), ...upgrade(engine, pings),
    ...connect, ...disconnect, ...message,
  ],
  beyond: [...namespaces, ...events, ...polling],
});
