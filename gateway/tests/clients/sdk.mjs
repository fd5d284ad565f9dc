// The stock Centrifuge client over WebSocket: two users on two nodes, everything that the protocol offers here.

import assert from 'node:assert/strict';
import {
  connected, env, main, mint, openLink, pause, refusal, run, step, subscribe, token, until, websocketClient,
} from './lib.mjs';

const [A, B] = [env('URL_A'), env('URL_B')];
const [alice, bob] = [`alice-${run}`, `bob-${run}`];
const conversation = `conv_${alice}_${bob}`;
const texts = (publications) => publications.map((publication) => publication.data.text);
const same = (one, other) => assert.deepEqual(one.publications, other.publications);
const has = (subscription, count) =>
  until(`${count} publications have come`, () => subscription.publications.length >= count);

await main('sdk', async () => {
  const link = await openLink(B);
  const one = websocketClient(A, alice);
  const two = websocketClient(link.url, bob);

  await step('two users connect to two nodes', async () => {
    await Promise.all([connected(one), connected(two)]);
    const [first, second] = [one, two].map((client) => client.events.all('connected')[0]);
    assert.ok(first.client && second.client && first.client !== second.client);
    assert.equal(first.transport, 'websocket');
  });

  await step('the personal room is there without asking', async () => {
    await until('the server has subscribed alice', () => one.events.all('subscribed').length > 0);
    assert.deepEqual(one.events.all('subscribed').map((event) => event.channel), [`user:${alice}`]);
  });

  const near = await subscribe(one, conversation, { joinLeave: true });
  const far = await subscribe(two, conversation, { joinLeave: true });

  await step('subscribing is positioned and recoverable; a new conversation is empty', async () => {
    const [subscribed] = near.events.all('subscribed');
    assert.equal(subscribed.recoverable, true);
    assert.equal(subscribed.positioned, true);
    assert.equal(subscribed.wasRecovering, false);
    assert.equal(subscribed.streamPosition.offset ?? 0, 0);
    assert.ok(subscribed.streamPosition.epoch);
  });

  await step('joining is announced', () =>
    until('alice sees bob join', () => near.events.all('join').some((event) => event.info.user === bob)));

  await step('what each says, both hear, in one order', async () => {
    for (let number = 0; number < 5; number += 1) {
      await near.publish({ text: `a${number}` });
      await far.publish({ text: `b${number}` });
    }
    await Promise.all([has(near, 10), has(far, 10)]);
    assert.deepEqual(texts(near.publications), [0, 1, 2, 3, 4].flatMap((number) => [`a${number}`, `b${number}`]));
    same(near, far);
  });

  await step('a publication says who, which and after which', () => {
    near.publications.forEach((publication, at) => {
      assert.equal(publication.info.user, at % 2 ? bob : alice);
      assert.equal(publication.tags.kind, 'text');
      assert.match(publication.tags.id, /^[0-9a-f]{8}-/);
      assert.equal(publication.tags.prev, String(at ? near.publications[at - 1].offset : 0));
    });
    assert.equal(new Set(near.publications.map((publication) => publication.tags.id)).size, 10);
  });

  await step('data arrives as it was sent', async () => {
    const body = {
      text: 'ä ß 世界 🐦 \u0000 \u2028 "\\/',
      nested: [1, -2.5, 1e-7, true, null, {}, [], { '': { deep: [[['x']]] } }],
    };
    await near.publish(body);
    await has(far, 11);
    assert.deepEqual(far.publications[10].data, body);
    for (const [at, data] of ['just text', 42, [1], false].entries()) {
      await far.publish(data);
      await has(near, 12 + at);
      assert.deepEqual(near.publications[11 + at].data, data);
    }
  });

  await step('a burst from both sides comes in one order', async () => {
    const before = near.publications.length;
    const burst = (subscription, name) =>
      Promise.all(Array.from({ length: 100 }, (_, number) => subscription.publish({ text: `${name}${number}` })));
    await Promise.all([burst(near, 'x'), burst(far, 'y')]);
    await Promise.all([has(near, before + 200), has(far, before + 200)]);
    same(near, far);
    assert.equal(new Set(texts(near.publications.slice(before))).size, 200);
    const offsets = near.publications.map((publication) => publication.offset);
    assert.deepEqual(offsets, [...new Set(offsets)].sort((left, right) => left - right));
  });

  await step('rpc send acknowledges with id, seq and time, and a retry changes nothing', async () => {
    const before = near.publications.length;
    const message = { conversation, client_id: `c-${run}`, body: { text: 'once' } };
    const { data: sent } = await one.rpc('send', message);
    assert.ok(sent.id && sent.seq > 0 && sent.time > 1_600_000_000_000);
    const { data: again } = await one.rpc('send', { ...message, retry: true });
    assert.deepEqual([again.id, again.seq, again.time], [sent.id, sent.seq, sent.time]);
    const { data: mark } = await one.rpc('send', { conversation, body: { text: 'mark' }, kind: 'text' });
    await Promise.all([has(near, before + 2), has(far, before + 2)]);
    assert.deepEqual(texts(far.publications.slice(before)), ['once', 'mark']);
    const [publication] = far.publications.slice(before);
    assert.equal(publication.offset, sent.seq);
    assert.equal(publication.tags.id, sent.id);
    assert.equal(publication.tags.client_id, message.client_id);
    await until('the sender hears that it is stored', () =>
      one.events.all('message').some(({ data }) =>
        data.type === 'stored' && data.conversation === conversation && data.upto >= mark.seq));
  });

  await step('history: position, limit, since, reverse', async () => {
    const all = near.publications;
    const top = all.at(-1).offset;
    const position = await far.history({ limit: 0 });
    assert.deepEqual([position.publications.length, position.offset], [0, top]);
    const { epoch } = position;
    const offsets = async (options) => (await far.history(options)).publications.map((found) => found.offset);
    const expected = all.map((publication) => publication.offset);
    assert.deepEqual(await offsets({ limit: 3 }), expected.slice(0, 3));
    assert.deepEqual(await offsets({ limit: 3, since: { offset: expected[4], epoch } }), expected.slice(5, 8));
    assert.deepEqual(await offsets({ limit: 3, reverse: true }), expected.slice(-3).reverse());
    assert.deepEqual(
      await offsets({ limit: 3, reverse: true, since: { offset: expected[5], epoch } }),
      expected.slice(2, 5).reverse(),
    );
    const { publications } = await far.history({ limit: 10 });
    assert.deepEqual(publications, all.slice(0, 10));
    assert.equal(await refusal(far.history({ limit: 1, since: { offset: 1, epoch: 'not-this-one' } })), 112);
  });

  await step('rpc history pages both ways', async () => {
    const expected = near.publications;
    const { data: page } = await two.rpc('history', { conversation, after: expected[1].offset, limit: 3 });
    assert.deepEqual(page.messages.map((message) => message.seq), expected.slice(2, 5).map((found) => found.offset));
    assert.deepEqual(page.messages.map((message) => message.body), expected.slice(2, 5).map((found) => found.data));
    assert.deepEqual(page.messages.map((message) => message.sender), [alice, bob, alice]);
    assert.equal(page.messages[0].prev, expected[1].offset);
    assert.equal(page.top, expected.at(-1).offset);
    assert.ok(page.epoch);
    const before = { conversation, before: expected[5].offset, limit: 2, reverse: true };
    const { data: back } = await two.rpc('history', before);
    assert.deepEqual(back.messages.map((message) => message.seq), [expected[4].offset, expected[3].offset]);
  });

  await step('presence on both nodes', async () => {
    for (const subscription of [near, far]) {
      const users = async () => Object.values((await subscription.presence()).clients).map((info) => info.user).sort();
      await until('both are present', async () => (await users()).join() === [alice, bob].join());
      assert.deepEqual(await subscription.presenceStats(), { numClients: 2, numUsers: 2 });
    }
  });

  await step('after a cut everything missed comes, in order and once', async () => {
    const [before, received] = [far.events.all('subscribed').length, far.publications.length];
    link.cut();
    await until('bob notices', () => two.state !== 'connected');
    for (let number = 0; number < 20; number += 1) await near.publish({ text: `missed ${number}` });
    link.mend();
    await until('bob is back', () => far.events.all('subscribed').length > before);
    await near.publish({ text: 'live again' });
    await has(far, received + 21);
    const subscribed = far.events.all('subscribed').at(-1);
    assert.equal(subscribed.wasRecovering, true);
    assert.equal(subscribed.recovered, true);
    await has(near, far.publications.length);
    same(near, far);
  });

  await step('after unsubscribing and subscribing again, too', async () => {
    far.unsubscribe();
    const received = far.publications.length;
    for (let number = 0; number < 3; number += 1) await near.publish({ text: `away ${number}` });
    assert.equal(far.publications.length, received);
    far.subscribe();
    await far.ready();
    await has(far, received + 3);
    assert.equal(far.events.all('subscribed').at(-1).recovered, true);
    await has(near, far.publications.length);
    same(near, far);
  });

  await step('a second tab is a client of its own, and its going is announced', async () => {
    const tab = await connected(websocketClient(A, bob));
    const subscription = await subscribe(tab, conversation, { joinLeave: true });
    await until('three clients of two users', async () => {
      const { numClients, numUsers } = await near.presenceStats();
      return numClients === 3 && numUsers === 2;
    });
    const { client } = tab.events.all('connected')[0];
    assert.notEqual(client, two.events.all('connected').at(-1).client);
    subscription.unsubscribe();
    await until('alice sees that tab leave', () => near.events.all('leave').some(({ info }) => info.client === client));
    tab.disconnect();
    await until('two clients again', async () => (await near.presenceStats()).numClients === 2);
  });

  await step('what belongs to others, or is not there, is denied alike', async () => {
    for (const foreign of ['conv_xavier_yves', 'user:someone-else', `group-${run}-that-is-not-there`]) {
      const subscription = one.newSubscription(foreign);
      const denied = new Promise((resolve) => subscription.on('unsubscribed', resolve));
      subscription.subscribe();
      assert.equal((await denied).code, 103, foreign);
      one.removeSubscription(subscription);
      assert.equal(await refusal(one.publish(foreign, {})), 103, foreign);
      assert.equal(await refusal(one.history(foreign, { limit: 1 })), 103, foreign);
      assert.equal(await refusal(one.presence(foreign)), 103, foreign);
      assert.equal(await refusal(one.presenceStats(foreign)), 103, foreign);
      assert.equal(await refusal(one.rpc('send', { conversation: foreign, body: {} })), 103, foreign);
      assert.equal(await refusal(one.rpc('history', { conversation: foreign, limit: 1 })), 103, foreign);
    }
  });

  await step('an rpc that does not exist, or makes no sense, is refused and the connection lives', async () => {
    assert.equal(await refusal(one.rpc('no-such-method', {})), 104);
    assert.equal(await refusal(one.rpc('send', { no: 'conversation' })), 107);
    assert.equal(one.state, 'connected');
  });

  await step('a group by HTTP: members talk on both nodes, others stay out', async () => {
    const http = async (url, user, path, body) => {
      const headers = { authorization: `Bearer ${await token(url, user)}`, 'content-type': 'application/json' };
      return fetch(url + path, body ? { method: 'POST', headers, body: JSON.stringify(body) } : { headers });
    };
    const created = await http(A, alice, '/v1/conversations', { kind: 'group', members: [alice, bob], name: 'Group' });
    assert.equal(created.status, 201);
    const group = await created.json();
    assert.deepEqual([...group.members].sort(), [alice, bob]);
    const [left, right] = [await subscribe(one, group.id), await subscribe(two, group.id)];
    await left.publish({ text: 'to the group' });
    await right.publish({ text: 'and back' });
    await Promise.all([has(left, 2), has(right, 2)]);
    same(left, right);
    for (const url of [A, B]) {
      const page = await (await http(url, bob, `/v1/conversations/${group.id}/messages?after=0&limit=10`)).json();
      assert.deepEqual(page.messages.map(({ body }) => body), right.publications.map(({ data }) => data));
      assert.deepEqual(page.messages.map(({ seq }) => seq), right.publications.map(({ offset }) => offset));
      assert.equal(page.top, right.publications[1].offset);
    }
    const carol = await connected(websocketClient(B, `carol-${run}`));
    assert.equal(await refusal(carol.publish(group.id, {})), 103);
    carol.disconnect();
    const stranger = await http(B, `carol-${run}`, `/v1/conversations/${group.id}/messages`);
    const nowhere = await http(B, `carol-${run}`, `/v1/conversations/group-${run}-not-there/messages`);
    assert.match(stranger.headers.get('content-type'), /^application\/problem\+json/);
    assert.equal(stranger.status, nowhere.status);
    assert.equal((await stranger.json()).code, (await nowhere.json()).code);
    const anonymous = await fetch(`${A}/v1/conversations/${group.id}/messages`);
    assert.equal(anonymous.status, 401);
    assert.equal((await anonymous.json()).code, 'unauthorized');
  });

  await step('a token that is none ends the connection for good', async () => {
    const stranger = websocketClient(A, alice, { getToken: async () => 'not.a.token' });
    stranger.connect();
    const [{ code }] = await until('it ends', () => stranger.events.all('disconnected').length
      && stranger.events.all('disconnected'));
    assert.equal(code, 3500);
  });

  if (process.env.TOKEN_SECRET) await tokens();
  else console.log('--  tokens that run out: skipped, since TOKEN_SECRET is not set');

  await step('disconnecting is clean', async () => {
    for (const client of [one, two]) client.disconnect();
    assert.deepEqual(one.events.all('connecting').length, 1, 'alice was never thrown out');
    await pause(0);
  });
});

async function tokens() {
  await step('an expired token is replaced', async () => {
    let asked = 0;
    const getToken = async () => mint(alice, (asked += 1) === 1 ? -3600 : 3600);
    const client = await connected(websocketClient(A, alice, { getToken }));
    assert.equal(asked, 2);
    client.disconnect();
  });

  await step('a token is refreshed before its time is over, and the connection survives', async () => {
    let asked = 0;
    const lifeSeconds = 6;
    const getToken = async () => mint(alice, (asked += 1) === 1 ? lifeSeconds : 3600);
    const end = Date.now() + (lifeSeconds + 1) * 1000;
    const client = await connected(websocketClient(A, alice, { getToken }));
    await until('the token is asked for again', () => asked >= 2);
    await until('the first one is over', () => Date.now() > end);
    await client.publish(conversation, { text: 'still here' });
    assert.equal(client.events.all('connecting').length, 1);
    assert.equal(client.events.all('disconnected').length, 0);
    client.disconnect();
  });
}
