// What any Engine.IO 4 server must do, whatever runs on top of it: sessions, heartbeats, closing, the upgrade.

import assert from 'node:assert/strict';
import { ARRIVAL_MS, MAX_PAYLOAD_BYTES, PING_INTERVAL_MS, PING_TIMEOUT_MS, pause } from './wire.mjs';

const HANDSHAKE_KEYS = ['maxPayload', 'pingInterval', 'pingTimeout', 'sid', 'upgrades'];
/** How often a session may be found one moment too long alive, and how long that moment is, in milliseconds. */
const DEADLINE_ATTEMPTS_MAX = 4;
const DEADLINE_MS_MORE = PING_TIMEOUT_MS / 4;

function assertHandshake(handshake, upgrades) {
  assert.deepEqual(Object.keys(handshake).sort(), HANDSHAKE_KEYS);
  assert.equal(typeof handshake.sid, 'string');
  assert.ok(handshake.sid.length >= 16, 'guessable');
  assert.deepEqual(handshake.upgrades, upgrades);
  assert.equal(handshake.pingInterval, PING_INTERVAL_MS);
  assert.equal(handshake.pingTimeout, PING_TIMEOUT_MS);
  assert.equal(handshake.maxPayload, MAX_PAYLOAD_BYTES);
}

/** Asserts a refusal in the words of the protocol. */
export function assertError({ status, text }, code, expected = 400) {
  assert.equal(status, expected, text);
  const error = JSON.parse(text);
  assert.equal(error.code, code);
  assert.equal(typeof error.message, 'string');
}

/** Asserts that the session is no more. */
export async function assertGone(engine, sid) {
  assertError(await engine.poll(sid), 1);
}

/** Seven checks. */
export const handshake = (engine) => [
  ['polling: a handshake opens a session', async () => {
    const { status, text } = await engine.request({ EIO: 4, transport: 'polling' });
    assert.equal(status, 200);
    assert.equal(text[0], '0');
    assertHandshake(JSON.parse(text.slice(1)), ['websocket']);
  }],
  ['polling: a wrong or missing protocol version is refused', async () => {
    assertError(await engine.request({ transport: 'polling' }), 5);
    for (const EIO of ['abc', '2', '5']) assertError(await engine.request({ EIO, transport: 'polling' }), 5);
  }],
  ['polling: a wrong or missing transport is refused', async () => {
    assertError(await engine.request({ EIO: 4 }), 0);
    assertError(await engine.request({ EIO: 4, transport: 'abc' }), 0);
  }],
  ['polling: only GET opens a session', async () => {
    for (const method of ['POST', 'PUT']) {
      assertError(await engine.request({ EIO: 4, transport: 'polling' }, { method }), 2);
    }
  }],
  ['websocket: a handshake opens a session', async () => {
    const wire = await engine.openSocket();
    assertHandshake(wire.handshake, []);
    wire.close();
  }],
  ['websocket: a wrong or missing protocol version is refused', async () => {
    for (const query of [{}, { EIO: 'abc' }]) {
      const wire = engine.socket({ ...query, transport: 'websocket' });
      await wire.closed();
      assert.deepEqual(wire.taken(), []);
    }
  }],
  ['websocket: a wrong or missing transport is refused', async () => {
    for (const query of [{}, { transport: 'abc' }]) {
      const wire = engine.socket({ EIO: 4, ...query });
      await wire.closed();
      assert.deepEqual(wire.taken(), []);
    }
  }],
];

/** Four checks. */
export const heartbeat = (engine) => [
  ['polling: the server pings, and an answered ping keeps the session', async () => {
    const { sid } = await engine.open();
    for (let round = 0; round < 3; round += 1) {
      const { status, text } = await engine.poll(sid);
      assert.deepEqual([status, text], [200, '2']);
      const { status: posted, text: answer } = await engine.post(sid, '3');
      assert.deepEqual([posted, answer], [200, 'ok']);
    }
  }],
  ['polling: without an answer the session is over at interval plus timeout', async () => {
    // A busy machine may spoil that for once, but not always.
    for (let attempt = 1; ; attempt += 1) {
      const { sid, pingInterval, pingTimeout } = await engine.open();
      await pause(pingInterval + pingTimeout + DEADLINE_MS_MORE);
      const answer = await engine.poll(sid);
      if (answer.status === 400 || attempt === DEADLINE_ATTEMPTS_MAX) return assertError(answer, 1);
    }
  }],
  ['websocket: the server pings, and an answered ping keeps the session', async () => {
    const wire = await engine.openSocket();
    for (let round = 0; round < 3; round += 1) {
      assert.equal(await wire.next(), '2');
      wire.send('3');
    }
    wire.close();
  }],
  ['websocket: without an answer the session is over', async () => {
    const wire = await engine.openSocket();
    assert.equal(await wire.next(), '2');
    await wire.closed();
  }],
];

/** Two checks. */
export const close = (engine) => [
  ['polling: a client that closes frees its poll', async () => {
    const { sid } = await engine.open();
    const poll = engine.poll(sid);
    await pause(ARRIVAL_MS);
    const posted = await engine.post(sid, '1');
    const polled = await poll;
    assert.deepEqual([polled.status, polled.text], [200, '6']);
    assert.deepEqual([posted.status, posted.text], [200, 'ok']);
    await assertGone(engine, sid);
  }],
  ['websocket: a client that closes is let go', async () => {
    const wire = await engine.openSocket();
    wire.send('1');
    await wire.closed();
  }],
];

/** Probes `sid` and lands on the WebSocket. */
export async function upgraded(engine, sid) {
  const wire = await engine.upgrade(sid).open();
  wire.send('2probe');
  assert.equal(await wire.next(), '3probe');
  wire.send('5');
  return wire;
}

/** Three checks. `talk(wire)` shows that the session lives on it. */
export const upgrade = (engine, talk) => [
  ['upgrade: from polling to a WebSocket, with a probe', async () => {
    const { sid } = await engine.open();
    const wire = await upgraded(engine, sid);
    await talk(wire);
    wire.close();
  }],
  ['upgrade: a request for an upgraded session is refused at once', async () => {
    const { sid } = await engine.open();
    const wire = await upgraded(engine, sid);
    const polled = await engine.poll(sid);
    assert.equal(polled.status, 400, polled.text);
    await talk(wire);
    wire.close();
  }],
  ['upgrade: a second WebSocket for an upgraded session is closed', async () => {
    const { sid } = await engine.open();
    const wire = await upgraded(engine, sid);
    const second = engine.upgrade(sid);
    await second.closed();
    await talk(wire);
    wire.close();
  }],
];
