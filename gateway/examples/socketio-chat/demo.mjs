// One scenario of two users against any server, once for each way to connect: `node demo.mjs URL [URL…]`. Prints what the users saw after each
// step, so that the output for two servers can be compared.

import { createHmac, randomBytes } from 'node:crypto';
import { Chat } from './client.mjs';
import { openLink } from './link.mjs';
import { Transcript } from './transcript.mjs';

/** Longest wait for something that must happen, and for the whole scenario, in milliseconds. */
const WAIT_MS_MAX = 60_000;
const SCENARIO_MS_MAX = 130_000;
/** Long enough for the next poll to be under way, in milliseconds. */
const CALM_MS = 1_000;
const TRANSPORTS = {
  polling: { transports: ['polling'] },
  websocket: { transports: ['websocket'] },
  upgrade: {},
};

const urls = process.argv.slice(2);
if (!urls.length) {
  console.error('usage: node demo.mjs URL [URL…]');
  process.exit(2);
}
const [first, second] = [urls[0], urls[1] ?? urls[0]];

for (const mode of (process.env.MODES ?? Object.keys(TRANSPORTS).join()).split(',')) {
  let step = 'start';
  const timer = setTimeout(() => fail(mode, step, new Error('takes too long')), SCENARIO_MS_MAX);
  await scenario(mode, (name) => (step = name)).catch((error) => fail(mode, step, error));
  clearTimeout(timer);
}
process.exit(0);

function fail(mode, step, error) {
  console.log(`FAILED ${mode}, at: ${step}`);
  console.error(error);
  process.exit(1);
}

async function scenario(mode, enter) {
  const run = randomBytes(4).toString('hex');
  const [alice, bob] = [`alice-${run}`, `bob-${run}`];
  const [id, foreign] = [`conv_${alice}_${bob}`, `conv_${bob}_zoe-${run}`];
  const transcript = new Transcript({ [alice]: 'alice', [bob]: 'bob', [`zoe-${run}`]: 'zoe' });
  const link = await openLink(second);
  const connect = (name, url, user, give = token) => {
    const chat = new Chat(url, user, (user) => give(first, user), { forceNew: true, ...TRANSPORTS[mode] });
    transcript.watch(name, chat);
    return chat;
  };
  const step = async (name, body) => {
    enter(name);
    transcript.begin(`${mode}: ${name}`);
    await body();
    transcript.end();
  };
  const say = (what, value) => transcript.say(what, value);
  const texts = (chat) => chat.conversation(id).messages.map(({ body }) => body);
  const shows = (chat, text) => until(`${chat.user} sees ${text}`, () => texts(chat).includes(text));
  const isOnline = (chat, user) => chat.people.get(user)?.online;

  await step('a token that is none is refused', async () => {
    const stranger = new Chat(first, alice, async () => 'not.a.token', { forceNew: true, ...TRANSPORTS[mode] });
    const { message, data } = await new Promise((resolve) => stranger.socket.on('connect_error', resolve));
    say('stranger', { message, data });
    stranger.close();
  });

  const one = connect('alice', first, alice);
  await step('alice connects and joins, and bob is not there', async () => {
    say('alice registers', await one.register());
    // Before anything is said, strangers need not see each other.
    say('alice sends', await one.send(id, { text: 'are you there?', client_id: 'a0' }));
    say('alice joins', await one.join(id, 0));
    await until('bob is known to be away', () => isOnline(one, bob) === false);
    await landed(one, mode, say);
  });

  const two = connect('bob', link.url, bob);
  await step('bob comes', async () => {
    say('bob registers', await two.register());
    await until('alice sees bob come', () => isOnline(one, bob));
    say('bob joins', await two.join(id, 0));
    await until('bob sees alice', () => isOnline(two, alice));
    await landed(two, mode, say);
  });

  await step('they talk', async () => {
    say('alice sends', await one.send(id, { text: 'hello', client_id: 'a1' }));
    await Promise.all([shows(one, 'hello'), shows(two, 'hello')]);
    say('bob sends', await two.send(id, { content: 'hello yourself ä 世界 🐦', client_id: 'b1' }));
    say('alice sends', await one.send(id, { body: 'a picture', kind: 'image' }));
    await Promise.all([shows(one, 'a picture'), shows(two, 'a picture')]);
  });

  await step('a body may be any JSON', async () => {
    const body = { text: 'x', n: [0, -2.5, 1e21, true, null, {}, []], '': { 'ä"\\': '\u0000\u2028' } };
    say('bob sends', await two.send(id, { body, client_id: 'b2' }));
    await until('both have it', () => [one, two].every((chat) => texts(chat).length === 5));
  });

  await step('sending again changes nothing', async () => {
    say('alice sends again', await one.send(id, { text: 'hello', client_id: 'a1' }));
    say('alice sends', await one.send(id, { text: 'how are you?', client_id: 'a2' }));
    await Promise.all([shows(one, 'how are you?'), shows(two, 'how are you?')]);
  });

  await step('bob types, and stops', async () => {
    const typing = one.conversation(id).typing;
    two.typing(id);
    await until('alice sees bob type', () => typing.has(bob));
    say('alice sees', `${[...typing].join()} typing`);
    two.stopTyping(id);
    await until('alice sees bob stop', () => !typing.has(bob));
  });

  await step('what is read is known to the other', async () => {
    const { messages, readBy } = one.conversation(id);
    for (const text of ['r1', 'r2']) say('alice sends', await one.send(id, { text, client_id: text }));
    await Promise.all([shows(one, 'r2'), shows(two, 'r2')]);
    const seq = messages.at(-2).seq;
    say('bob reads', await two.read(id, seq));
    await until('alice knows', () => readBy.get(bob) === seq);
    say('alice sees that bob has read', { seq });
    say('bob reads less', await two.read(id, messages[0].seq));
    say('bob sends', await two.send(id, { text: 'r3', client_id: 'r3' }));
    await Promise.all([shows(one, 'r3'), shows(two, 'r3')]);
    say('alice reads all', await one.read(id));
    await until('bob knows', () => two.conversation(id).readBy.get(alice) === messages.at(-1).seq);
    say('bob sees that alice has read', { seq: messages.at(-1).seq });
  });

  await step('what is not allowed is refused', async () => {
    say('alice joins', await one.join(foreign));
    say('alice sends', await one.send(foreign, { text: 'may I?' }));
    say('alice reads', await one.read(foreign));
    say('alice sends nowhere', await one.send(undefined, { text: 'where to?' }));
    say('alice sends nothing', await one.send(id, {}));
    one.typing(foreign);
    await until('a refusal comes without an answer asked for', () => one.errors.length);
  });

  await step('bob has a second tab', async () => {
    const tab = connect("bob's tab", first, bob);
    say('the tab joins', await tab.join(id));
    await until('the tab knows who has read what', () => tab.conversation(id).readBy.has(alice));
    say('alice sends', await one.send(id, { text: 'to both tabs', client_id: 'a3' }));
    await Promise.all([one, two, tab].map((chat) => shows(chat, 'to both tabs')));
    tab.close();
    say('bob sends', await two.send(id, { text: 'one tab is gone', client_id: 'b3' }));
    await Promise.all([one, two].map((chat) => shows(chat, 'one tab is gone')));
    transcript.unwatch("bob's tab");
  });

  await step('who leaves hears nothing, and catches up on return', async () => {
    const seen = one.conversation(id).messages.at(-1).seq;
    say('alice leaves', await one.leave(id));
    for (const text of ['are you', 'still there?']) say('bob sends', await two.send(id, { text }));
    await shows(two, 'still there?');
    say('alice missed', !texts(one).includes('are you'));
    say('alice joins', await one.join(id, seen));
    await shows(one, 'still there?');
  });

  await step('a short break is recovered from', async () => {
    const again = new Promise((resolve) => two.socket.once('connect', resolve));
    const broken = new Promise((resolve) => two.socket.once('disconnect', resolve));
    // Between two polls a Node server would not notice, and could not recover.
    await new Promise((resolve) => setTimeout(resolve, CALM_MS));
    link.cut();
    await broken;
    for (const text of ['m1', 'm2', 'm3']) say('alice sends', await one.send(id, { text, client_id: text }));
    link.mend();
    await within('bob is back', again);
    say('recovered', Boolean(two.socket.recovered));
    await shows(two, 'm3');
    say('alice sends', await one.send(id, { text: 'live again', client_id: 'm4' }));
    await shows(two, 'live again');
    await until('alice sees bob', () => isOnline(one, bob));
    say('bob sends', await two.send(id, { text: 'and back', client_id: 'm5' }));
    await Promise.all([shows(one, 'and back'), shows(two, 'and back')]);
    await landed(two, mode, say);
  });

  await step('bob goes', async () => {
    two.close();
    await until('alice sees bob go', () => isOnline(one, bob) === false);
    for (const text of ['n1', 'n2']) say('alice sends', await one.send(id, { text, client_id: text }));
    await shows(one, 'n2');
    transcript.unwatch('bob');
  });

  await step('bob starts the app again, and catches up from what it had', async () => {
    const app = connect('bob again', second, bob);
    say('bob joins', await app.join(id, two.conversation(id).messages.at(-1).seq));
    await shows(app, 'n2');
    say('recovered', Boolean(app.socket.recovered));
    say('alice sends', await one.send(id, { text: 'good night', client_id: 'a4' }));
    await Promise.all([shows(one, 'good night'), shows(app, 'good night')]);
    await until('all is known', () => isOnline(app, alice) && isOnline(one, bob) && app.conversation(id).readBy.has(alice));
    for (const chat of [one, app]) chat.close();
  });
  link.close();
}

/** Waits for the transport that this mode must end on. */
async function landed(chat, mode, say) {
  const expected = mode === 'polling' ? 'polling' : 'websocket';
  await until(`${expected} is used`, () => chat.socket.io.engine?.transport?.name === expected);
  say('transport', expected);
}

/** A token signed here, or one from the server where no secret is known. */
async function token(url, user) {
  if (!process.env.TOKEN_SECRET) {
    const response = await fetch(`${url}/dev/token?user=${encodeURIComponent(user)}`);
    return (await response.json()).token;
  }
  const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp })}`;
  return `${text}.${createHmac('sha256', process.env.TOKEN_SECRET).update(text).digest('base64url')}`;
}

async function until(what, look) {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!look()) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function within(what, promise) {
  let isDone = false;
  promise.then(() => (isDone = true));
  await until(what, () => isDone);
}
