// Engine.IO 4 against the echo program at URL, or that on Node where no URL is given: the 25 checks of the protocol, and what else a client may run into.

import assert from 'node:assert/strict';
import { assertError, assertGone, close, handshake, heartbeat, upgrade, upgraded } from './engineio_checks.mjs';
import { startReference } from './reference.mjs';
import { suite } from './suite.mjs';
import { ARRIVAL_MS, Engine, MAX_PAYLOAD_BYTES, PING_INTERVAL_MS, SEPARATOR, pause } from './wire.mjs';

const engine = await new Engine(process.env.URL ?? (await startReference('engineio_echo')), '/engine.io/').listening();
const payload = (...packets) => packets.join(SEPARATOR);
const base64 = (...bytes) => `b${Buffer.from(bytes).toString('base64')}`;

async function echoes(wire) {
  wire.send('4are you there');
  assert.equal(await wire.nextMessage(), '4are you there');
}

async function assertTaken(sid, body, options) {
  const { status, text } = await engine.post(sid, body, options);
  assert.deepEqual([status, text], [200, 'ok']);
}

const message = [
  ['polling: one text message', async () => {
    const { sid } = await engine.open();
    await assertTaken(sid, '4hello');
    assert.deepEqual(await engine.polled(sid, 1), ['4hello']);
  }],
  ['polling: several text messages in one payload, in order', async () => {
    const { sid } = await engine.open();
    await assertTaken(sid, payload('4first', '4second', '4third'));
    assert.deepEqual(await engine.polled(sid, 3), ['4first', '4second', '4third']);
  }],
  ['polling: text and binary in one payload', async () => {
    const { sid } = await engine.open();
    await assertTaken(sid, payload('4hello', base64(1, 2, 3, 4)));
    assert.deepEqual(await engine.polled(sid, 2), ['4hello', base64(1, 2, 3, 4)]);
  }],
  ['polling: a packet of no known type ends the session', async () => {
    const { sid } = await engine.open();
    await engine.post(sid, 'abc').catch(() => {});
    assert.equal((await engine.poll(sid)).status, 400);
  }],
  ['polling: a second poll at the same time ends the session', async () => {
    const { sid } = await engine.open();
    const answers = await Promise.all([engine.poll(sid), engine.poll(sid)]);
    // Whichever comes second is the one too many.
    const [first, second] = answers.sort((one, other) => one.status - other.status);
    assert.deepEqual([first.status, first.text, second.status], [200, '1', 400]);
    await assertGone(engine, sid);
  }],
  ['polling: a cancelled poll ends the session', async () => {
    const { sid } = await engine.open();
    const cancel = new AbortController();
    const cancelled = engine.poll(sid, { signal: cancel.signal }).then(() => 'answered', () => 'cancelled');
    await pause(ARRIVAL_MS);
    cancel.abort();
    assert.equal(await cancelled, 'cancelled');
    await pause(ARRIVAL_MS);
    await assertGone(engine, sid);
  }],
  ['websocket: a text message', async () => {
    const wire = await engine.openSocket();
    wire.send('4hello');
    assert.equal(await wire.nextMessage(), '4hello');
    wire.close();
  }],
  ['websocket: a binary message', async () => {
    const wire = await engine.openSocket();
    wire.send(Buffer.from([1, 2, 3, 4]));
    assert.deepEqual(await wire.nextMessage(), Buffer.from([1, 2, 3, 4]));
    wire.close();
  }],
  ['websocket: a packet of no known type ends the session', async () => {
    const wire = await engine.openSocket();
    wire.send('abc');
    await wire.closed();
  }],
];

const limits = [
  ['polling: what an open session says carries the right headers', async () => {
    const { headers } = await engine.request({ EIO: 4, transport: 'polling' });
    assert.equal(headers.get('content-type'), 'text/plain; charset=UTF-8');
    assert.equal(headers.get('cache-control'), 'no-store');
  }],
  ['polling: a payload of exactly the limit passes', async () => {
    const { sid } = await engine.open();
    const body = `4${'x'.repeat(MAX_PAYLOAD_BYTES - 1)}`;
    await assertTaken(sid, body);
    assert.deepEqual(await engine.polled(sid, 1), [body]);
  }],
  ['polling: a payload above the limit is refused with 413, and the session lives', async () => {
    const { sid } = await engine.open();
    const { status } = await engine.post(sid, `4${'x'.repeat(MAX_PAYLOAD_BYTES)}`);
    assert.equal(status, 413);
    await assertTaken(sid, '4still here');
    assert.deepEqual(await engine.polled(sid, 1), ['4still here']);
  }],
  ['polling: the limit counts bytes, not characters', async () => {
    const { sid } = await engine.open();
    const { status } = await engine.post(sid, `4${'ü'.repeat(MAX_PAYLOAD_BYTES / 2)}`);
    assert.equal(status, 413);
  }],
  ['websocket: a message of exactly the limit passes', async () => {
    const wire = await engine.openSocket();
    const body = `4${'x'.repeat(MAX_PAYLOAD_BYTES - 1)}`;
    wire.send(body);
    assert.ok(await wire.nextMessage() === body);
    wire.close();
  }],
  ['websocket: a message above the limit ends the session', async () => {
    const wire = await engine.openSocket();
    wire.send(`4${'x'.repeat(MAX_PAYLOAD_BYTES)}`);
    await wire.closed();
  }],
  ['polling: application/octet-stream is refused', async () => {
    const { sid } = await engine.open();
    const headers = { 'content-type': 'application/octet-stream' };
    const { status } = await engine.post(sid, Buffer.from([1, 2, 3]), { headers });
    assert.equal(status, 400);
  }],
  ['polling: an empty payload ends the session', async () => {
    const { sid } = await engine.open();
    await engine.post(sid, '');
    await assertGone(engine, sid);
  }],
  ['polling: text comes back byte by byte', async () => {
    const { sid } = await engine.open();
    const texts = ['4ä ß 世界 🐦 \u0000 \u2028', '4', '4b\nc\td', '44'];
    await assertTaken(sid, payload(...texts));
    assert.deepEqual(await engine.polled(sid, texts.length), texts);
  }],
  ['polling: two posts at the same time: the second is refused, and the session ends', async () => {
    const { sid } = await engine.open();
    let release;
    const held = new ReadableStream({
      start(controller) {
        controller.enqueue(Buffer.from('4'));
        release = () => (controller.enqueue(Buffer.from('late')), controller.close());
      },
    });
    const first = engine.post(sid, held, { duplex: 'half' }).catch(() => {});
    await pause(ARRIVAL_MS);
    assert.equal((await engine.post(sid, '4second')).status, 400);
    release();
    await first;
    await assertGone(engine, sid);
  }],
];

const errors = [
  ['an unknown session is code 1, on GET, POST and WebSocket', async () => {
    assertError(await engine.poll('no-such-session'), 1);
    assertError(await engine.post('no-such-session', '4x'), 1);
    const { status } = await engine.upgrade('no-such-session').refused;
    assert.equal(status, 400);
  }],
  ['a transport that the session does not have is code 3', async () => {
    const wire = await engine.openSocket();
    assertError(await engine.poll(wire.handshake.sid), 3);
    wire.close();
  }],
  ['a method that polling does not have is an error', async () => {
    const { sid } = await engine.open();
    const { status } = await engine.request({ EIO: 4, transport: 'polling', sid }, { method: 'PUT' });
    assert.equal(status, 500);
  }],
  ['the slash at the end is required', async () => {
    const { status } = await new Engine(engine.base, '/engine.io').request({ EIO: 4, transport: 'polling' });
    assert.equal(status, 404);
  }],
  ['CORS: a preflight is answered', async () => {
    const headers = {
      origin: 'https://app.example',
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type,x-of-the-app',
    };
    const answer = await engine.request({ EIO: 4, transport: 'polling' }, { method: 'OPTIONS', headers });
    assert.equal(answer.status, 204);
    assert.equal(answer.headers.get('access-control-allow-origin'), '*');
    assert.equal(answer.headers.get('access-control-allow-headers'), 'content-type,x-of-the-app');
    assert.match(answer.headers.get('access-control-allow-methods'), /POST/);
  }],
  ['CORS: GET, POST and errors may be read', async () => {
    const headers = { origin: 'https://app.example' };
    const allowed = ({ headers }) => headers.get('access-control-allow-origin');
    const opened = await engine.request({ EIO: 4, transport: 'polling' }, { headers });
    const { sid } = JSON.parse(opened.text.slice(1));
    assert.equal(allowed(opened), '*');
    assert.equal(allowed(await engine.post(sid, '4x', { headers })), '*');
    assert.equal(allowed(await engine.poll(sid, { headers })), '*');
    assert.equal(allowed(await engine.poll('no-such-session', { headers })), '*');
  }],
];

const heart = [
  ['no ping comes before its time', async () => {
    const wire = await engine.openSocket();
    await pause(PING_INTERVAL_MS / 3);
    assert.deepEqual(wire.taken(), []);
    wire.close();
  }],
  ['a pong that nobody asked for changes nothing', async () => {
    const wire = await engine.openSocket();
    wire.send('3', '3');
    await echoes(wire);
    wire.close();
  }],
  ['a ping of the client ends the session', async () => {
    const wire = await engine.openSocket();
    wire.send('2');
    await wire.closed();
  }],
  ['messages alone do not keep a session that leaves pings unanswered', async () => {
    const wire = await engine.openSocket();
    const talking = setInterval(() => wire.socket.readyState === 1 && wire.send('4x'), PING_INTERVAL_MS / 6);
    await wire.closed().finally(() => clearInterval(talking));
  }],
];

const upgrading = [
  ['upgrade: an open poll is answered with a noop', async () => {
    const { sid } = await engine.open();
    const poll = engine.poll(sid);
    const wire = await engine.upgrade(sid).open();
    wire.send('2probe');
    assert.equal(await wire.next(), '3probe');
    const { status, text } = await poll;
    assert.deepEqual([status, text], [200, '6']);
    wire.send('5');
    await echoes(wire);
    wire.close();
  }],
  ['upgrade: every poll in the middle of it ends', async () => {
    const { sid } = await engine.open();
    const wire = await engine.upgrade(sid).open();
    wire.send('2probe');
    assert.equal(await wire.next(), '3probe');
    for (let round = 0; round < 2; round += 1) {
      const { status, text } = await engine.poll(sid);
      assert.equal(status, 200);
      assert.ok(['6', '2'].includes(text), text);
      if (text === '2') await engine.post(sid, '3');
    }
    wire.send('5');
    await echoes(wire);
    wire.close();
  }],
  ['upgrade: what was sent before it arrives once, in order', async () => {
    const { sid } = await engine.open();
    await assertTaken(sid, payload('4one', '4two'));
    const wire = await upgraded(engine, sid);
    wire.send('4three');
    assert.deepEqual([await wire.nextMessage(), await wire.nextMessage(), await wire.nextMessage()],
      ['4one', '4two', '4three']);
    wire.close();
  }],
  ['upgrade: no noop comes over the WebSocket', async () => {
    const { sid } = await engine.open();
    const wire = await upgraded(engine, sid);
    await echoes(wire);
    assert.equal(await wire.next(), '2');
    wire.send('3');
    assert.equal(await wire.next(), '2');
    wire.close();
  }],
  ['upgrade: a probe that goes wrong is closed, and polling goes on', async () => {
    const { sid } = await engine.open();
    const wire = await engine.upgrade(sid).open();
    wire.send('4too early');
    await wire.closed();
    await assertTaken(sid, '4still here');
    assert.deepEqual(await engine.polled(sid, 1), ['4still here']);
  }],
  ['upgrade: a probe that is given up leaves polling alone', async () => {
    const { sid } = await engine.open();
    const wire = await engine.upgrade(sid).open();
    wire.send('2probe');
    assert.equal(await wire.next(), '3probe');
    wire.close();
    await assertTaken(sid, '4still here');
    assert.deepEqual(await engine.polled(sid, 1), ['4still here']);
  }],
  ['upgrade: a second WebSocket in the middle of it is closed, the first goes on', async () => {
    const { sid } = await engine.open();
    const wire = await engine.upgrade(sid).open();
    wire.send('2probe');
    assert.equal(await wire.next(), '3probe');
    await engine.upgrade(sid).closed();
    wire.send('5');
    await echoes(wire);
    wire.close();
  }],
];

await suite('engineio', {
  protocol: [...handshake(engine), ...message, ...heartbeat(engine), ...close(engine), ...upgrade(engine, echoes)],
  beyond: [...limits, ...errors, ...heart, ...upgrading],
});
