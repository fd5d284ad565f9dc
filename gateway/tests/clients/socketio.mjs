// The stock Socket.IO client: two users on two nodes, over every transport, through a balancer without stickiness, with breaks of every
// kind, and with a user of another protocol in the same conversation.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import {
  connected, env, main, mint, openLink, pause, run, step, subscribe, token, until, websocketClient,
} from './lib.mjs';
import {
  MODES, assertSame, bodies, direct, has, inConversation, messages, open, send, socketClient, user,
} from './socketio_lib.mjs';

const [A, B] = [env('URL_A'), env('URL_B')];
/** A balancer before both, or none. */
const BALANCER = process.env.URL_LB;
/** An event that the nodes are configured to relay to the members of the conversation that it names. */
const RELAYED = process.env.SOCKETIO_RELAYED;
/** The servers are example servers on Node: what those cannot do is left out. */
const IS_NODE = process.env.SOCKETIO_NODE === '1';
/** Long enough for the next poll to be under way, in milliseconds. */
const CALM_MS = 1_000;
/** Enough requests that each node gets some that belong to the other's sessions. */
const REQUESTS = 24;

await main('socketio', async () => {
  await authentication();
  for (const mode of Object.keys(MODES)) await talk(mode);
  await chat();
  await namespaces();
  for (const mode of Object.keys(MODES)) await breaks(mode);
  await harderBreaks();
  if (BALANCER) await balancer();
  else console.log('--  through a balancer: skipped, since URL_LB is not set');
  if (!IS_NODE) await otherProtocol();
  await relay();
});

async function authentication() {
  const refused = async (auth, options) => {
    const socket = io(A, { auth, forceNew: true, reconnection: false, ...options });
    const error = await new Promise((resolve, reject) => {
      socket.on('connect_error', resolve);
      socket.on('connect', () => reject(new Error('let in')));
    });
    socket.close();
    return error;
  };

  await step('without a good token one is refused, and told so', async () => {
    for (const mode of Object.values(MODES)) {
      for (const auth of [undefined, {}, { token: 'not.a.token' }, { token: 1 }, { token: '' }]) {
        const { message, data } = await refused(auth, mode);
        assert.equal(message, 'unauthorized');
        assert.deepEqual(data, { code: 'unauthorized' });
      }
    }
  });

  if (!process.env.TOKEN_SECRET) return console.log('--  tokens that run out: skipped, since TOKEN_SECRET is not set');
  await step('an expired token is refused, and a new one lets the same client in', async () => {
    let asked = 0;
    const socket = socketClient(A, user('alice'), {
      auth: (give) => give({ token: mint(user('alice'), (asked += 1) === 1 ? -3600 : 3600) }),
    });
    const error = await new Promise((resolve) => socket.once('connect_error', resolve));
    assert.equal(error.message, 'unauthorized');
    socket.connect();
    await until('it is let in', () => socket.connected);
    socket.close();
  });
}

async function talk(mode) {
  const [alice, bob] = [user(`alice-${mode}`), user(`bob-${mode}`)];
  const conversation = direct(alice, bob);
  const [one, two] = await step(`${mode}: two users on two nodes join`, () => Promise.all([
    inConversation(A, alice, conversation, MODES[mode]),
    inConversation(B, bob, conversation, MODES[mode]),
  ]));

  await step(`${mode}: what each says, both hear, in one order`, async () => {
    for (let number = 0; number < 5; number += 1) {
      await send(one, conversation, { text: `a${number}` });
      await send(two, conversation, { text: `b${number}` });
    }
    await Promise.all([has(one, conversation, 10), has(two, conversation, 10)]);
    const expected = [0, 1, 2, 3, 4].flatMap((number) => [`a${number}`, `b${number}`]);
    assert.deepEqual(bodies(one, conversation).map(({ text }) => text), expected);
    assertSame(one, two, conversation);
  });

  await step(`${mode}: a burst from both sides comes in one order`, async () => {
    const burst = (socket, name) =>
      Promise.all(Array.from({ length: 50 }, (_, number) => send(socket, conversation, { text: `${name}${number}` })));
    await Promise.all([burst(one, 'x'), burst(two, 'y')]);
    await Promise.all([has(one, conversation, 110), has(two, conversation, 110)]);
    assertSame(one, two, conversation);
    for (const name of ['x', 'y']) {
      const own = bodies(one, conversation).map(({ text }) => text).filter((text) => text[0] === name);
      assert.deepEqual(own, [...Array(50).keys()].map((number) => `${name}${number}`));
    }
  });

  await step(`${mode}: the transport is the one that was wanted`, () => {
    const expected = mode === 'polling' ? 'polling' : 'websocket';
    return until(`it is ${expected}`, () => [one, two].every(({ io }) => io.engine.transport.name === expected));
  });
  for (const socket of [one, two]) {
    assert.equal(socket.connects, 1, 'never thrown out');
    socket.close();
  }
}

async function chat() {
  const [alice, bob] = [user('alice'), user('bob')];
  const conversation = direct(alice, bob);
  const one = await open(A, alice);
  // Before anything is said, strangers must not see each other.
  await send(one, conversation, 'are you there?');
  assert.equal((await one.ask('join_conversation', { conversation_id: conversation, seq: 0 })).ok, true);

  await step('presence: who is not there, comes and goes is known on the other node', async () => {
    await until('bob is known to be away', () => one.all('user_offline').some(({ user_id }) => user_id === bob));
    const tab = await inConversation(B, bob, conversation);
    await until('alice sees bob come', () => one.all('user_online').some(({ user_id }) => user_id === bob));
    await until('bob sees alice', () => tab.all('user_online').some(({ user_id }) => user_id === alice));
    const before = one.all('user_offline').length;
    tab.close();
    await until('alice sees bob go', () => one.all('user_offline').length > before);
    const { user_id, last_seen } = one.all('user_offline').at(-1);
    assert.equal(user_id, bob);
    assert.ok(last_seen > 1_600_000_000_000 && last_seen < Date.now() + 60_000, String(last_seen));
  });

  const two = await inConversation(B, bob, conversation);

  await step('a message says what it is, and an answer which it has become', async () => {
    const answer = await send(one, conversation, { text: 'once' }, { client_id: 'c1', kind: 'text' });
    assert.deepEqual(Object.keys(answer).sort(), ['id', 'ok', 'seq', 'time']);
    await has(two, conversation, 1);
    const message = messages(two, conversation).at(-1);
    const { id, seq, time } = answer;
    assert.deepEqual(
      { ...message },
      {
        ...message, id, seq, time, conversation_id: conversation, sender_id: alice, body: { text: 'once' }, kind: 'text',
        client_id: 'c1',
      },
    );
    assert.deepEqual(await send(one, conversation, { text: 'once' }, { client_id: 'c1' }), answer);
  });

  await step('a body has four names, and any JSON is one', async () => {
    const before = messages(two, conversation).length;
    for (const name of ['body', 'text', 'content', 'message']) {
      const answer = await one.ask('send_message', { conversation_id: conversation, [name]: `as ${name}` });
      assert.equal(answer.ok, true, name);
    }
    const odd = { text: 'ä ß 世界 🐦 \u0000 \u2028 "\\/', n: [1, -2.5, 1e-7, true, null, {}, []], '': { deep: [[['x']]] } };
    await send(one, conversation, odd);
    await has(two, conversation, before + 5);
    assert.deepEqual(bodies(two, conversation).slice(before), ['as body', 'as text', 'as content', 'as message', odd]);
  });

  await step('typing, with both forms of a conversation', async () => {
    const heard = () => two.all('user_typing').map(({ conversation_id, user_id, typing }) => [conversation_id, user_id, typing]);
    one.emit('typing', conversation);
    await until('bob sees it', () => heard().length === 1);
    one.emit('stop_typing', { conversation_id: conversation });
    await until('bob sees it stop', () => heard().length === 2);
    assert.deepEqual(heard(), [[conversation, alice, true], [conversation, alice, false]]);
  });

  await step('what is read is known, and never goes back', async () => {
    const seqs = messages(two, conversation).map(({ seq }) => seq);
    const read = async (argument) => (await two.ask('mark_read', argument)).seq;
    assert.equal(await read({ conversation_id: conversation, seq: seqs[1] }), seqs[1]);
    assert.equal(await read({ conversation_id: conversation, seq: seqs[0] }), seqs[1]);
    assert.equal(await read(conversation), seqs.at(-1));
    await until('alice knows', () => one.all('message_read').some(({ user_id, seq }) => user_id === bob && seq === seqs.at(-1)));
    const tab = await inConversation(A, alice, conversation);
    await until('who joins later is told', () => tab.all('message_read').some(({ user_id, seq }) => user_id === bob && seq === seqs.at(-1)));
    tab.close();
  });

  await step('who leaves hears nothing, and catches up from the last seq that was seen', async () => {
    const before = messages(two, conversation).length;
    const { seq } = messages(two, conversation).at(-1);
    assert.equal((await two.ask('leave_conversation', conversation)).ok, true);
    for (let number = 0; number < 3; number += 1) await send(one, conversation, { number });
    assert.equal(messages(two, conversation).length, before);
    const answer = await two.ask('join_conversation', { conversation_id: conversation, seq });
    assert.equal(messages(two, conversation).length, before + 3, 'what was missed comes before the answer');
    assert.equal(answer.seq, messages(two, conversation).at(-1).seq);
    const tab = await open(A, bob);
    await tab.ask('join_conversation', { conversation_id: conversation, seq });
    await has(tab, conversation, 3);
    assert.deepEqual(messages(tab, conversation), messages(two, conversation).slice(before));
    tab.close();
  });

  await step('what belongs to others, or makes no sense, is refused, and the connection lives', async () => {
    const error = async (event, ...args) => {
      const { ok, error } = await one.ask(event, ...args);
      assert.equal(ok, false, event);
      return error;
    };
    for (const foreign of ['conv_xavier_yves', `group-${run}-that-is-not-there`]) {
      assert.equal(await error('join_conversation', foreign), 'forbidden');
      assert.equal(await error('send_message', { conversation_id: foreign, body: 'x' }), 'forbidden');
      assert.equal(await error('mark_read', foreign), 'forbidden');
      assert.equal(await error('typing', foreign), 'forbidden');
    }
    for (const nonsense of [undefined, null, 7, true, [], {}, { conversation_id: 7 }, { conversation_id: conversation }]) {
      assert.equal(await error('send_message', nonsense), 'invalid', JSON.stringify(nonsense));
    }
    one.emit('typing', 'conv_xavier_yves');
    await until('a refusal comes without being asked for', () => one.all('error').length > 0);
    assert.equal(one.all('error')[0].event, 'typing');
    assert.equal(one.all('error')[0].error, 'forbidden');
    assert.ok(one.connected && one.connects === 1);
  });

  await step('register_user changes nothing: the token says who one is', async () => {
    for (const argument of [bob, { user_id: bob }, undefined]) {
      const answer = await one.ask('register_user', ...(argument === undefined ? [] : [argument]));
      assert.deepEqual(answer, { ok: true, user_id: alice });
    }
    await send(one, conversation, 'still me');
    await until('it is alice', () => messages(two, conversation).at(-1).body === 'still me');
    assert.equal(messages(two, conversation).at(-1).sender_id, alice);
  });
  for (const socket of [one, two]) socket.close();
}

async function relay() {
  if (!RELAYED) return console.log('--  events of an app: skipped, since SOCKETIO_RELAYED is not set');
  const [alice, bob] = [user('alice-relay'), user('bob-relay')];
  const conversation = direct(alice, bob);
  const [one, two] = await Promise.all([inConversation(A, alice, conversation), inConversation(B, bob, conversation)]);
  const say = (more) => ({ conversation_id: conversation, ...more });

  await step("an event of the app is relayed to the conversation's members", async () => {
    one.emit(RELAYED, say({ x: 1 }));
    await until('bob has it', () => two.all(RELAYED).length === 1);
    const [{ conversation_id, user_id, data }] = two.all(RELAYED);
    assert.deepEqual([conversation_id, user_id, data], [conversation, alice, say({ x: 1 })]);
  });

  await step('so is one with bytes', async () => {
    const [small, big] = [Buffer.from([1, 2, 3]), Buffer.alloc(3000, 7)];
    one.emit(RELAYED, say({ one: small, more: [big] }));
    await until('bob has it', () => two.all(RELAYED).length === 2);
    const { data } = two.all(RELAYED)[1];
    assert.ok(small.equals(data.one) && big.equals(data.more[0]));
  });
  for (const socket of [one, two]) socket.close();
}

async function namespaces() {
  await step('a namespace that is not there is refused, and the connection goes on with the others', async () => {
    const name = user('alice-namespaces');
    const main = await open(A, name);
    const nowhere = main.io.socket('/nowhere', { auth: { token: await token(A, name) } });
    const error = new Promise((resolve) => nowhere.once('connect_error', resolve));
    nowhere.connect();
    assert.equal((await error).message, 'Invalid namespace');
    assert.equal((await main.ask('register_user', name)).ok, true);
    assert.equal(main.connects, 1);
    main.close();
  });

  const other = process.env.SOCKETIO_NAMESPACE;
  if (!other) return console.log('--  a second namespace: skipped, since SOCKETIO_NAMESPACE is not set');
  await step('several namespaces on one connection, with a user of its own in each', async () => {
    const [alice, bob] = [user('alice-namespaces'), user('bob-namespaces')];
    const main = await open(A, alice);
    const second = main.io.socket(other, { auth: { token: await token(A, bob) } });
    second.connect();
    await until('it is connected', () => second.connected);
    assert.notEqual(main.id, second.id);
    const who = async (socket) => (await socket.timeout(60_000).emitWithAck('register_user')).user_id;
    assert.deepEqual([await who(main), await who(second)], [alice, bob]);
    second.disconnect();
    assert.equal(await who(main), alice);
    main.close();
  });
}

/** Waits until the client is back after `deed`; whether its session was recovered. */
async function comesBack(socket, deed) {
  const before = socket.connects;
  await deed();
  await until(`${socket.user} is back`, () => socket.connects > before);
  return socket.recovered;
}

async function breaks(mode) {
  const [alice, bob] = [user(`alice-break-${mode}`), user(`bob-break-${mode}`)];
  const conversation = direct(alice, bob);
  const link = await openLink(B);
  const one = await inConversation(A, alice, conversation, MODES[mode]);
  const two = await inConversation(link.url, bob, conversation, MODES[mode]);
  const cut = async () => {
    // Between two polls a Node server would not notice, and could not recover.
    if (IS_NODE) await pause(CALM_MS);
    link.cut();
    await until('bob notices', () => !two.connected);
  };

  await step(`${mode}: a break is recovered from, again and again: nothing is lost, nothing comes twice`, async () => {
    await send(one, conversation, 'before');
    await has(two, conversation, 1);
    for (let round = 1; round <= 3; round += 1) {
      const sid = two.id;
      const isRecovered = await comesBack(two, async () => {
        await cut();
        for (let number = 0; number < 5; number += 1) await send(one, conversation, { round, number });
        link.mend();
      });
      assert.equal(isRecovered, true, `round ${round}`);
      assert.equal(two.id, sid, 'the same session');
      await send(one, conversation, { round, live: true });
      await Promise.all([one, two].map((side) => has(side, conversation, 1 + 6 * round)));
      assertSame(one, two, conversation);
    }
    await send(two, conversation, 'and back');
    await has(one, conversation, 20);
  });

  if (!IS_NODE) await step(`${mode}: so is a break before anything was heard`, async () => {
    const [carol, dave] = [user(`carol-break-${mode}`), user(`dave-break-${mode}`)];
    const quiet = direct(carol, dave);
    const other = await inConversation(A, carol, quiet, MODES[mode]);
    const silent = await open(link.url, dave, MODES[mode]);
    silent.emit('join_conversation', quiet);
    await silent.ask('register_user', dave);
    const isRecovered = await comesBack(silent, async () => {
      link.cut();
      await until('dave notices', () => !silent.connected);
      await send(other, quiet, 'missed');
      link.mend();
    });
    assert.equal(isRecovered, true);
    await has(silent, quiet, 1);
    assert.deepEqual(bodies(silent, quiet), ['missed']);
    for (const socket of [other, silent]) socket.close();
  });
  for (const socket of [one, two]) socket.close();
}

async function harderBreaks() {
  const [alice, bob] = [user('alice-hard'), user('bob-hard')];
  const conversation = direct(alice, bob);
  const link = await openLink(B);
  const one = await inConversation(A, alice, conversation);
  const two = await inConversation(link.url, bob, conversation);

  if (!IS_NODE) await step('a break that the node has not noticed is recovered from, too', async () => {
    await send(one, conversation, 'before');
    await has(two, conversation, 1);
    const isRecovered = await comesBack(two, async () => {
      link.lose();
      await send(one, conversation, 'into the void');
    });
    assert.equal(isRecovered, true);
    await send(one, conversation, 'after');
    await has(two, conversation, 3);
    assertSame(one, two, conversation);
  });

  await step('so is a break right after an event that is kept nowhere', async () => {
    one.emit('typing', conversation);
    await until('bob sees it', () => two.all('user_typing').length > 0);
    const before = messages(two, conversation).length;
    const isRecovered = await comesBack(two, async () => {
      link.cut();
      await until('bob notices', () => !two.connected);
      await send(one, conversation, 'missed');
      link.mend();
    });
    assert.equal(isRecovered, true);
    await has(two, conversation, before + 1);
    assertSame(one, two, conversation);
  });

  for (const socket of [one, two]) socket.close();
  await goodbye();
}

async function goodbye() {
  const [alice, bob] = [user('alice-goodbye'), user('bob-goodbye')];
  const conversation = direct(alice, bob);
  const one = await inConversation(A, alice, conversation);
  const two = await inConversation(B, bob, conversation);
  await step('who says good-bye is not recovered, and joining with the last seq catches up', async () => {
    const { seq } = await send(one, conversation, 'before');
    await has(two, conversation, 1);
    two.disconnect();
    await send(one, conversation, 'while away');
    two.connect();
    await until('bob is back', () => two.connected);
    assert.ok(!two.recovered);
    assert.equal((await two.ask('join_conversation', { conversation_id: conversation, seq })).ok, true);
    await send(one, conversation, 'and now');
    await has(two, conversation, 3);
    assertSame(one, two, conversation);
  });
  for (const socket of [one, two]) socket.close();
}

async function balancer() {
  for (const mode of Object.keys(MODES)) {
    const [alice, bob] = [user(`alice-lb-${mode}`), user(`bob-lb-${mode}`)];
    const conversation = direct(alice, bob);
    const link = await openLink(BALANCER);
    const [one, two] = await step(`${mode}: through a balancer that knows no sessions`, () => Promise.all([
      inConversation(BALANCER, alice, conversation, MODES[mode]),
      inConversation(link.url, bob, conversation, MODES[mode]),
    ]));
    await step(`${mode}: every request finds its session, whichever node it reaches`, async () => {
      for (let number = 0; number < REQUESTS; number += 1) await send(number % 2 ? two : one, conversation, { number });
      await Promise.all([has(one, conversation, REQUESTS), has(two, conversation, REQUESTS)]);
      assert.deepEqual(bodies(two, conversation).map(({ number }) => number), [...Array(REQUESTS).keys()]);
      assertSame(one, two, conversation);
      assert.ok(one.connects === 1 && two.connects === 1, 'never thrown out');
    });
    if (!IS_NODE) await step(`${mode}: a session is recovered on whichever node it comes back to`, async () => {
      for (let round = 1; round <= 4; round += 1) {
        const isRecovered = await comesBack(two, async () => {
          link.cut();
          await until('bob notices', () => !two.connected);
          await send(one, conversation, { round });
          link.mend();
        });
        assert.equal(isRecovered, true, `round ${round}`);
        await has(two, conversation, REQUESTS + round);
      }
      assertSame(one, two, conversation);
    });
    await step(`${mode}: the transport is the one that was wanted`, () => {
      const expected = mode === 'polling' ? 'polling' : 'websocket';
      return until(`it is ${expected}`, () => [one, two].every(({ io }) => io.engine.transport.name === expected));
    });
    for (const socket of [one, two]) socket.close();
  }
}

async function otherProtocol() {
  const [alice, bob] = [user('alice-mixed'), user('bob-mixed')];
  const conversation = direct(alice, bob);
  const one = await inConversation(A, alice, conversation);
  const two = await connected(websocketClient(B, bob));
  const far = await subscribe(two, conversation);

  await step('a Socket.IO user and a Centrifuge user talk in one conversation', async () => {
    for (let number = 0; number < 5; number += 1) {
      await send(one, conversation, { text: `socket.io ${number}` }, { client_id: `s${number}` });
      await far.publish({ text: `centrifuge ${number}` });
    }
    await has(one, conversation, 10);
    const publications = () => far.publications.filter(({ offset }) => offset);
    await until('bob has them, too', () => publications().length === 10);
    assert.deepEqual(
      messages(one, conversation).map(({ id, seq, sender_id, body, kind }) => [id, seq, sender_id, body, kind]),
      publications().map(({ data, info, offset, tags }) => [tags.id, offset, info.user, data, tags.kind]),
    );
    assert.equal(publications()[0].tags.client_id, 's0');
  });

  await step('the one sees the other type', async () => {
    one.emit('typing', conversation);
    await until('bob sees it', () =>
      far.ephemeral.some(({ data, tags }) => tags?.event === 'typing' && data.user === alice && data.typing === true));
    await two.rpc('typing', { conversation });
    await until('alice sees it', () => one.all('user_typing').some(({ user_id, typing }) => user_id === bob && typing));
  });

  await step('the one sees what the other has read', async () => {
    const { seq } = await send(one, conversation, 'read this');
    await two.rpc('mark_read', { conversation, seq });
    await until('alice sees it', () => one.all('message_read').some((read) => read.user_id === bob && read.seq === seq));
    await far.publish('and this');
    await has(one, conversation, 12);
    const top = messages(one, conversation).at(-1).seq;
    assert.equal((await one.ask('mark_read', conversation)).seq, top);
    await until('bob sees it', () =>
      far.ephemeral.some(({ data, tags }) => tags?.event === 'receipt' && data.user === alice && data.read === top));
  });
  one.close();
  two.disconnect();
  await pause(0);
}
