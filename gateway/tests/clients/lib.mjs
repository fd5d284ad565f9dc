// What the client tests share: where the gateways are, tokens, steps with names, and a link that can be cut.

import { createHmac, randomBytes } from 'node:crypto';
import net from 'node:net';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

/** Longest wait for one expected thing, in milliseconds. */
export const STEP_MS_MAX = 60_000;
/** Longest that a whole script may take, in milliseconds: far above what it takes on a machine that has nothing else to do. */
const SCRIPT_MS_MAX = 400_000;
/** How often an expected thing is looked for, in milliseconds. */
const LOOK_MS = 10;

/** Makes the users and conversations of this run new. */
export const run = randomBytes(4).toString('hex');

export function env(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`${name} is not set`);
    process.exit(2);
  }
  return value.replace(/\/$/, '');
}

/** Runs a whole script: exit code 0 when `body` returns, 1 when it throws or takes too long. */
export async function main(name, body) {
  const timer = setTimeout(() => {
    console.error(`FAILED ${name}: not done within ${SCRIPT_MS_MAX / 1000} s, at: ${current}`);
    process.exit(1);
  }, SCRIPT_MS_MAX);
  try {
    await body();
    console.log(`${name}: ${steps} steps passed`);
    clearTimeout(timer);
    process.exit(0);
  } catch (error) {
    console.error(`FAILED ${name} at: ${current}\n${error.stack ?? error}`);
    process.exit(1);
  }
}

let steps = 0;
let current = 'start';

export async function step(name, body) {
  current = name;
  const result = await body();
  steps += 1;
  console.log(`ok  ${name}`);
  return result;
}

/** Waits until `look` returns something true, and returns that. */
export async function until(what, look) {
  const deadline = Date.now() + STEP_MS_MAX;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await pause(LOOK_MS);
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A token signed here, which needs TOKEN_SECRET. `seconds` may be negative: expired already. */
export function mint(user, seconds = 3600) {
  const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp })}`;
  return `${text}.${createHmac('sha256', process.env.TOKEN_SECRET).update(text).digest('base64url')}`;
}

/** A token for the user: signed here, or from the node's dev endpoint where no secret is known. */
export async function token(url, user) {
  if (process.env.TOKEN_SECRET) return mint(user);
  const response = await fetch(`${url}/dev/token?user=${encodeURIComponent(user)}`);
  if (!response.ok) throw new Error(`no dev token: ${response.status}`);
  return (await response.json()).token;
}

/** A stock client over WebSocket. What it reports is in `.events`, in order. */
export function websocketClient(url, user, options = {}) {
  const endpoint = `${url.replace(/^http/, 'ws')}/connection/websocket`;
  return client(endpoint, url, user, { websocket: WebSocket, ...options });
}

export function client(endpoints, url, user, options = {}) {
  const made = new Centrifuge(endpoints, {
    getToken: () => token(url, user),
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
    timeout: STEP_MS_MAX,
    ...options,
  });
  made.user = user;
  made.events = record(made, [
    'connecting', 'connected', 'disconnected', 'error', 'message', 'subscribed', 'unsubscribed', 'publication',
  ]);
  return made;
}

export async function connected(centrifuge) {
  centrifuge.connect();
  await centrifuge.ready(STEP_MS_MAX);
  return centrifuge;
}

/** Subscribes. What the subscription reports is in `.events`, its messages in `.publications`, what is kept nowhere in `.ephemeral`. */
export async function subscribe(centrifuge, channel, options = {}) {
  const subscription = centrifuge.newSubscription(channel, { minResubscribeDelay: 50, ...options });
  subscription.events = record(subscription, ['subscribed', 'unsubscribed', 'error', 'join', 'leave']);
  subscription.publications = [];
  subscription.ephemeral = [];
  subscription.on('publication', (publication) =>
    (publication.offset ? subscription.publications : subscription.ephemeral).push(publication));
  subscription.subscribe();
  await subscription.ready(STEP_MS_MAX);
  return subscription;
}

/** The error code with which a promise is rejected. */
export async function refusal(promise) {
  try {
    const value = await promise;
    throw new Error(`expected a refusal, got ${JSON.stringify(value)}`);
  } catch (error) {
    if (typeof error.code !== 'number') throw error;
    return error.code;
  }
}

function record(emitter, names) {
  const events = [];
  for (const name of names) emitter.on(name, (context) => events.push({ name, ...context }));
  events.all = (name) => events.filter((event) => event.name === name);
  return events;
}

/**
 * A TCP link to a node that can be cut under any transport, with everything that is under way, and mended. `lose()` cuts it so that only
 * the client notices: the node keeps connections on which nothing comes any more.
 */
export async function openLink(url) {
  const target = new URL(url);
  const sockets = new Set();
  const nears = new Set();
  let isCut = false;
  const server = net.createServer((near) => {
    if (isCut) return near.destroy();
    const far = net.connect(Number(target.port || 80), target.hostname);
    nears.add(near);
    for (const [socket, other] of [[near, far], [far, near]]) {
      const end = () => near.isLost || other.destroy();
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', end);
      socket.on('close', () => (sockets.delete(socket), nears.delete(socket), end()));
      socket.pipe(other, { end: false });
      socket.on('end', () => near.isLost || other.end());
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      isCut = true;
      for (const socket of sockets) socket.destroy();
    },
    lose() {
      for (const near of nears) {
        near.isLost = true;
        near.unpipe();
        near.destroy();
      }
    },
    mend() {
      isCut = false;
    },
  };
}
