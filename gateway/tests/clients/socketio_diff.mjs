// Feeds the same odd input to the echo programs on Node and to those at ENGINEIO_URL and SOCKETIO_URL, and lists every difference in what
// comes of it. Each difference that is meant has its reason in odd_expected.mjs; any other one fails. Without URLs Node is compared
// with itself. `ONLY` names a part of what is to run, `VERBOSE=1` shows all reactions.

import { EXPECTED, REASONS } from './odd_expected.mjs';
import { bodyCases, engineCases, requestCases, socketCases, upgradeCases } from './odd_input.mjs';
import { startReference } from './reference.mjs';
import { Engine, SEPARATOR, pause } from './wire.mjs';

/** Time that a server gets to act on something before it is asked whether the session lives, in milliseconds. */
let settleMs = 25;
/** The same for what differed: on a busy machine that is often a matter of time. */
const SETTLE_AGAIN_MS = 400;
/** Cases under way at once. */
const CASES_AT_ONCE = 6;
/** How often a case may be repeated because a busy machine made the reactions differ. */
const ATTEMPTS_MAX = 3;
/** Characters of a reaction that are shown. */
const SHOWN_MAX = 300;

const ENGINE = { path: '/engine.io/', probe: '4are you there', echo: '4are you there' };
const SOCKET = {
  path: '/socket.io/',
  probe: '42["message","are you there"]',
  echo: '42["message-back","are you there"]',
  join: '40',
};
/** For what comes before any namespace is joined: whoever still may join lives. */
const JOINING = { ...SOCKET, join: undefined, probe: '40/custom', echo: '42/custom,["auth",{}]' };

const references = { engine: await startReference('engineio_echo'), socket: await startReference('socketio_echo') };
const others = {
  engine: process.env.ENGINEIO_URL ?? (await startReference('engineio_echo')),
  socket: process.env.SOCKETIO_URL ?? (await startReference('socketio_echo')),
};

/** Without what a server chooses: sids, and the ids of its own acknowledgements. */
const plain = (text) =>
  text.replace(/"sid":"[^"]*"/g, '"sid":SID').replace(/^0\{.*\}$/, '0{…}').replace(/^42\d+\["message-back"/, '42ID["message-back"');
const shown = (packet) => (typeof packet === 'string' ? plain(packet) : `<${packet.toString('hex')}>`);
const written = (list) => list.join(' · ');
const short = (reaction) => (reaction.length > SHOWN_MAX ? `${reaction.slice(0, SHOWN_MAX)}… (${reaction.length} characters)` : reaction);

/** Reads packets until the echo of the probe, or the end. */
async function readWire(wire, echo, seen) {
  try {
    for (;;) {
      const packet = await wire.nextMessage();
      if (packet === echo) return seen.push('open');
      seen.push(shown(packet));
    }
  } catch (error) {
    seen.push(error.message.startsWith('closed') ? 'closed' : error.message);
  }
}

async function overWebSocket(url, frames, level) {
  const engine = new Engine(url, level.path);
  const wire = await engine.openSocket();
  if (level.join) {
    wire.send(level.join);
    await wire.nextMessage();
    await wire.nextMessage();
  }
  for (const frame of frames) frame.raw ? wire.socket._socket.write(frame.raw) : wire.send(frame);
  await pause(settleMs);
  if (!wire.hasEnded) wire.send(level.probe);
  const seen = [];
  await readWire(wire, level.echo, seen);
  wire.close();
  return written(seen);
}

async function overPolling(url, frames, level, options) {
  const engine = new Engine(url, level.path);
  const { sid } = await engine.open();
  if (level.join) {
    await engine.post(sid, level.join);
    await engine.poll(sid);
  }
  const packets = frames.map((frame) => (typeof frame === 'string' ? frame : `b${frame.toString('base64')}`));
  const body = options?.body ?? packets.join(SEPARATOR);
  const posted = await engine.post(sid, body, { headers: options?.headers });
  const seen = [`POST ${posted.status}`];
  await pause(settleMs);
  await readPolls(engine, sid, level, seen);
  return written(seen);
}

/** Asks over polling whether a session lives, and reads what there is. */
async function readPolls(engine, sid, level, seen) {
  if ((await engine.post(sid, level.probe)).status !== 200) return seen.push('closed');
  for (;;) {
    const { status, text } = await engine.poll(sid);
    if (status !== 200) return seen.push('closed');
    for (const packet of text.split(SEPARATOR)) {
      if (packet === level.echo) return seen.push('open');
      if (packet === '2') await engine.post(sid, '3');
      else seen.push(plain(packet));
    }
  }
}

/** Frames of a WebSocket that should upgrade a polling session. */
async function overUpgrade(url, frames) {
  const engine = new Engine(url, ENGINE.path);
  const { sid } = await engine.open();
  const wire = await engine.upgrade(sid).open();
  for (const frame of frames) wire.send(frame);
  await pause(settleMs);
  const seen = wire.taken().filter((packet) => packet !== '2').map(shown);
  seen.push(wire.hasEnded ? 'WebSocket closed' : 'WebSocket open', 'polling:');
  await readPolls(engine, sid, ENGINE, seen);
  wire.close();
  return written(seen);
}

async function overHttp(url, { path = ENGINE.path, query, method = 'GET', headers, body, session }) {
  const engine = new Engine(url, path);
  const { sid } = session ? await new Engine(url, ENGINE.path).open() : {};
  const target = `${engine.base}${path}?${query}${sid ? `&sid=${sid}` : ''}`;
  const answer = await fetch(target, { method, headers, body });
  const text = await answer.text();
  const allowed = answer.headers.get('access-control-allow-origin');
  const isError = text.startsWith('{"code"');
  return `${answer.status} ${isError ? `code ${JSON.parse(text).code}` : plain(text)}${allowed ? ', CORS' : ''}`;
}

/** All cases: `[name, server, run]`. */
const cases = [
  ...requestCases.map(([name, request]) => [`http: ${name}`, 'engine', (url) => overHttp(url, request)]),
  ...engineCases.map(([name, frames]) => [`engine.io websocket: ${name}`, 'engine', (url) => overWebSocket(url, frames, ENGINE)]),
  ...engineCases
    .filter(([, frames]) => !frames.some((frame) => frame.raw))
    .map(([name, frames]) => [`engine.io polling: ${name}`, 'engine', (url) => overPolling(url, frames, ENGINE)]),
  ...bodyCases.map(([name, options]) =>
    [`engine.io polling: ${name}`, 'engine', (url) => overPolling(url, [], ENGINE, options)]),
  ...upgradeCases.map(([name, frames]) => [`upgrade: ${name}`, 'engine', (url) => overUpgrade(url, frames)]),
  ...socketCases.joining.flatMap(([name, frames]) => both(`before joining: ${name}`, frames, JOINING)),
  ...socketCases.joined.flatMap(([name, frames, options]) => both(name, frames, SOCKET, options)),
]
  .filter(([name]) => name.includes(process.env.ONLY ?? ''))
  .filter(([, , , options]) => !options?.kills || process.env.SOCKETIO_URL);

function both(name, frames, level, options) {
  return [
    [`socket.io websocket: ${name}`, 'socket', (url) => overWebSocket(url, frames, level), options],
    [`socket.io polling: ${name}`, 'socket', (url) => overPolling(url, frames, level), options],
  ];
}

const explained = new Map();
const unexplained = [];

/** A reaction as over a WebSocket, and without the ways in which a polling session says that it is over. */
const bare = (reaction) =>
  reaction
    .replace(/^POST \d+ · /, '')
    .replace(/(^| · )(6 · )?1 · closed$/, '$1closed')
    .replace(/(?<= · |^)b([A-Za-z0-9+/=]*)(?= · )/g, (_, base64) => `<${Buffer.from(base64, 'base64').toString('hex')}>`)
    .replace(/^404 .*$/s, '404');

/** The packets of a reaction, printed as Node prints them. */
const respelled = (reaction) => bare(reaction).split(' · ').map((packet) => {
  const at = packet.search(/[[{]/);
  try {
    return at < 0 ? packet : packet.slice(0, at) + JSON.stringify(JSON.parse(packet.slice(at)));
  } catch {
    return packet;
  }
}).join();

/** Why `other` may differ from `one`, if it may. */
function reason(name, one, other) {
  const expected = EXPECTED[name] ?? EXPECTED[name.replace(/^\S+ \S+: /, '')];
  if (expected?.reaction === bare(other)) return expected.why;
  if (bare(one) === bare(other)) return REASONS.ending;
  return respelled(one) === respelled(other) ? REASONS.spelling : undefined;
}

async function compare(again) {
  const [name, server, run, options] = again;
  const react = (url) => run(url).catch((error) => `FAILED ${error.message}`);
  let [one, other] = [];
  for (let attempt = 0; attempt < ATTEMPTS_MAX && (one === undefined || one !== other); attempt += 1) {
    [one, other] = await Promise.all([
      options?.kills ? 'dies of it' : react(references[server]),
      react(others[server]),
    ]);
  }
  if (process.env.VERBOSE) console.log(`${name}: ${short(one)}`);
  if (one === other) return;
  const why = reason(name, one, other);
  if (why) explained.set(name, [one, other, why]);
  else unexplained.push([name, one, other, again]);
}

async function worker() {
  for (let next = cases.shift(); next; next = cases.shift()) await compare(next);
}

const count = cases.length;
await Promise.all(Array.from({ length: CASES_AT_ONCE }, worker));
settleMs = SETTLE_AGAIN_MS;
for (const [, , , again] of unexplained.splice(0)) await compare(again);

for (const [name, [one, other, why]] of explained) {
  console.log(`meant     ${name}\n          Node:  ${short(one)}\n          other: ${short(other)}\n          ${why}`);
}
for (const [name, one, other] of unexplained) {
  console.log(`NOT MEANT ${name}\n          Node:  ${short(one)}\n          other: ${short(other)}`);
}
console.log(`socketio_diff: ${count} cases, ${explained.size + unexplained.length} differences, ${unexplained.length} not meant`);
process.exit(unexplained.length ? 1 : 0);
