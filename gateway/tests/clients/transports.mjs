// The stock client where WebSocket is blocked: over SSE and HTTP streaming, through a balancer without stickiness.

import assert from 'node:assert/strict';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { client, connected, env, main, openLink, run, step, subscribe, until } from './lib.mjs';

const balancer = env('URL_LB');
/** Enough requests that each node gets some that belong to the other's connections. */
const REQUESTS = 24;

function fallbackClient(url, user, transports) {
  const paths = { sse: '/connection/sse', http_stream: '/connection/http_stream', websocket: '/no-websocket-here' };
  const endpoints = transports.map((transport) => {
    const base = transport === 'websocket' ? url.replace(/^http/, 'ws') : url;
    return { transport, endpoint: base + paths[transport] };
  });
  return client(endpoints, url, user, {
    emulationEndpoint: `${url}/emulation`,
    fetch,
    eventsource: EventSource,
    readableStream: ReadableStream,
    websocket: WebSocket,
  });
}

await main('transports', async () => {
  for (const transport of ['sse', 'http_stream']) await talk(transport);
  await fallBack();
});

async function talk(transport) {
  const name = transport.replace('_', '-');
  const [alice, bob] = [`alice-${name}-${run}`, `bob-${name}-${run}`];
  const conversation = `conv_${alice}_${bob}`;
  const link = await openLink(balancer);
  const [one, two] = [fallbackClient(balancer, alice, [transport]), fallbackClient(link.url, bob, [transport])];
  const has = (subscription, count) =>
    until(`${count} publications have come`, () => subscription.publications.length >= count);

  await step(`${transport}: connects`, async () => {
    await Promise.all([connected(one), connected(two)]);
    for (const side of [one, two]) assert.equal(side.events.all('connected')[0].transport, transport);
    await until('the personal room is there', () =>
      one.events.all('subscribed').some(({ channel }) => channel === `user:${alice}`));
  });

  const [near, far] = await step(`${transport}: subscribes`, () =>
    Promise.all([subscribe(one, conversation), subscribe(two, conversation)]));

  await step(`${transport}: every request finds its connection, whichever node it reaches`, async () => {
    for (let number = 0; number < REQUESTS; number += 1) {
      const [side, user] = number % 2 ? [two, bob] : [one, alice];
      const message = { conversation, client_id: `${user}-${number}`, body: { number } };
      const { data } = await side.rpc('send', message);
      assert.ok(data.seq > 0);
    }
    await Promise.all([has(near, REQUESTS), has(far, REQUESTS)]);
    assert.deepEqual(far.publications.map(({ data }) => data.number), [...Array(REQUESTS).keys()]);
    assert.deepEqual(near.publications, far.publications);
  });

  await step(`${transport}: text of any script arrives intact`, async () => {
    const text = 'äöüß 世界 🐦👩‍👩‍👧 \u2028 "\\n" '.repeat(200);
    for (let number = 0; number < 10; number += 1) await near.publish({ number, text });
    await has(far, REQUESTS + 10);
    for (const { data } of far.publications.slice(REQUESTS)) assert.equal(data.text, text);
  });

  await step(`${transport}: history and presence`, async () => {
    const { publications } = await far.history({ limit: 5, reverse: true });
    assert.deepEqual(publications, near.publications.slice(-5).reverse());
    await until('both are present', async () => (await near.presenceStats()).numUsers === 2);
  });

  await step(`${transport}: after a cut everything missed comes, in order and once`, async () => {
    const [before, received] = [far.events.all('subscribed').length, far.publications.length];
    link.cut();
    await until('bob notices', () => two.state !== 'connected');
    for (let number = 0; number < 12; number += 1) await near.publish({ text: `missed ${number} ü 🐦` });
    link.mend();
    await until('bob is back', () => far.events.all('subscribed').length > before);
    await near.publish({ text: 'live again' });
    await has(far, received + 13);
    assert.equal(far.events.all('subscribed').at(-1).recovered, true);
    await has(near, far.publications.length);
    assert.deepEqual(near.publications, far.publications);
  });

  await step(`${transport}: a refused token ends it for good`, async () => {
    const stranger = fallbackClient(balancer, alice, [transport]);
    stranger.setToken('not.a.token');
    stranger.connect();
    await until('it ends', () => stranger.events.all('disconnected').some(({ code }) => code === 3500));
  });

  for (const side of [one, two]) side.disconnect();
}

async function fallBack() {
  await step('where WebSocket is blocked, the next transport is taken by itself', async () => {
    const side = await connected(fallbackClient(balancer, `carol-${run}`, ['websocket', 'http_stream', 'sse']));
    assert.equal(side.events.all('connected')[0].transport, 'http_stream');
    side.disconnect();
  });
}
