// Everything that a chat product needs, step by step: Ann, Bob and Carl, and the app's own server. Each step waits until
// it is seen on the other side, and the program ends with an error if that does not happen.
//
//   node demo.mjs http://127.0.0.1:8000 [another node …]

import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { ChatUser } from './chat.mjs';

const URLS = process.argv.slice(2);
if (!URLS.length) {
  console.error('usage: node demo.mjs URL [URL …]     (TOKEN_SECRET=… where the server has a key of its own, API_KEY=… for the backend steps)');
  process.exit(2);
}
const { TOKEN_SECRET, API_KEY } = process.env;
/** Longest wait for one thing, in milliseconds. */
const WAIT_MS_MAX = 60_000;

const run = randomBytes(3).toString('hex');
const [ann, bob, carl, dora] = ['ann', 'bob', 'carl', 'dora'].map((name) => `${name}-${run}`);
const direct = `conv_${ann}_${bob}`;
const users = [];
let nodes = 0;

// ---- tokens, users, and waiting --------------------------------------------------------------------------------------

/** A real app's server signs these, and gives each user a token of their own. */
async function token(user, claims = {}) {
  if (!TOKEN_SECRET) return (await (await fetch(`${URLS[0]}/dev/token?user=${user}`)).json()).token;
  const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
  const text = `${part({ alg: 'HS256' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
  return `${text}.${createHmac('sha256', TOKEN_SECRET).update(text).digest('base64url')}`;
}

/** A device of a user, on one node after the other. `.seen` has all that happened there. */
async function device(user, claims) {
  const seen = [];
  const url = URLS[nodes++ % URLS.length];
  const made = new ChatUser(url, user, () => token(user, claims), (name, data, channel) => seen.push({ name, data, channel }));
  made.seen = seen;
  /** Waits for an event, in the past or the future, and returns its data. */
  made.sees = (name, like = {}, channel) => until(`${user} sees ${name} ${JSON.stringify(like)}`, () => {
    const isLike = (event) => event.name === name && (!channel || event.channel === channel) && has(event.data, like);
    return seen.find(isLike)?.data;
  });
  users.push(made);
  return made.connect();
}

const has = (data, like) => Object.entries(like).every(([key, value]) =>
  value !== null && typeof value === 'object' ? has(data?.[key] ?? {}, value) : data?.[key] === value);

async function until(what, look) {
  const deadline = Date.now() + WAIT_MS_MAX;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The code of the refusal that must come. */
async function refusal(promise) {
  const answer = await promise.then((value) => ({ value }), (error) => error);
  assert.equal(typeof answer.code, 'number', `expected a refusal, got ${JSON.stringify(answer)}`);
  return answer.code;
}

async function step(name, body) {
  try {
    await body();
    console.log(`ok  ${name}`);
  } catch (error) {
    console.error(`FAILED  ${name}\n${error.stack}`);
    process.exit(1);
  }
}

/** The app's own server, by HTTP with its key. */
async function backend(method, path, body) {
  const headers = { authorization: `Bearer ${API_KEY}`, 'content-type': 'application/json' };
  const answer = await fetch(`${URLS[0]}${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.status === 204 ? {} : answer.json();
}

// ---- the story -----------------------------------------------------------------------------------------------------

const FORBIDDEN = 103;
const MUTED = 423;

const phone = await device(ann);
const laptop = await device(ann);
const bobs = await device(bob);

await step('a direct conversation: both land in the same one, and nothing has to be made first', async () => {
  await Promise.all([phone.join(direct), bobs.join(direct)]);
  const sent = await phone.ask('send', { conversation: direct, client_id: 'm1', body: { text: 'Hello Bob' } });
  const seen = await bobs.sees('text', { id: sent.id, body: { text: 'Hello Bob' } });
  assert.equal(seen.seq, sent.seq);
  assert.deepEqual(await phone.ask('send', { conversation: direct, client_id: 'm1', body: { text: 'Hello Bob' }, retry: true }), sent);
});

await step('unread counts rise in every tab and device, joined or not, and go back when it is read on one', async () => {
  await bobs.ask('send', { conversation: direct, body: { text: 'Hi Ann' } });
  await laptop.sees('unread', { conversation: direct, unread: 1 });
  await until('the list says so', async () => (await laptop.ask('conversations')).conversations[0]?.unread === 1);
  const [entry] = (await laptop.ask('conversations')).conversations;
  assert.deepEqual([entry.id, entry.kind, entry.others, entry.last.body], [direct, 'direct', [bob], { text: 'Hi Ann' }]);
  await phone.ask('mark_read', { conversation: direct, seq: entry.top });
  await bobs.sees('receipt', { user: ann, read: entry.top });
  await laptop.sees('unread', { conversation: direct, unread: 0 });
  const { receipts } = await bobs.ask('receipts', { conversation: direct });
  assert.equal(receipts.find(({ user }) => user === ann).read, entry.top);
});

await step('typing is seen, and ends', async () => {
  await phone.ask('typing', { conversation: direct });
  await bobs.sees('typing', { user: ann, typing: true });
  await phone.ask('stop_typing', { conversation: direct });
  await bobs.sees('typing', { user: ann, typing: false });
});

await step('a message is answered, edited, reacted to and deleted; history has its present state', async () => {
  const { seq } = await phone.ask('send', { conversation: direct, body: { text: 'Lunch at noon?' } });
  const answer = await bobs.ask('send', { conversation: direct, reply_to: seq, body: { text: 'Fine' } });
  await phone.sees('text', { seq: answer.seq, reply_to: seq });
  await phone.ask('edit', { conversation: direct, seq, body: { text: 'Lunch at one?' } });
  await bobs.sees('edit', { body: { target: seq, body: { text: 'Lunch at one?' } } });
  await bobs.ask('react', { conversation: direct, seq, emoji: '👍' });
  await phone.sees('reaction', { sender: bob, body: { target: seq, emoji: '👍', on: true } });
  assert.equal(await refusal(bobs.ask('edit', { conversation: direct, seq, body: 1 })), FORBIDDEN, 'only one\'s own');
  await bobs.ask('delete', { conversation: direct, seq: answer.seq });
  await phone.sees('delete', { body: { target: answer.seq } });
  const find = async (wanted) => (await phone.ask('history', { conversation: direct })).messages.find(({ seq }) => seq === wanted);
  const message = await until('the reaction is stored', async () => {
    const found = await find(seq);
    return found?.reactions?.length && found;
  });
  assert.deepEqual(message.body, { text: 'Lunch at one?' });
  assert.ok(message.edited > 0);
  assert.deepEqual(message.reactions, [{ emoji: '👍', count: 1, users: [bob] }]);
  const gone = await until('the tombstone is stored', async () => {
    const found = await find(answer.seq);
    return found?.deleted && found;
  });
  assert.equal(gone.body, null);
});

let group;
const carls = await device(carl);

await step('a group: its members are told in their own rooms', async () => {
  ({ id: group } = await phone.ask('create_conversation', { kind: 'group', name: 'Picnic', members: [bob] }));
  await bobs.sees('conversation', { body: { action: 'created', conversation: group } });
  await Promise.all([phone.join(group), bobs.join(group)]);
  await phone.ask('add_members', { conversation: group, users: [carl] });
  await carls.sees('conversation', { body: { action: 'added', conversation: group } });
  await bobs.sees('members', { body: { action: 'added' } }, group);
  await carls.join(group);
});

await step('roles: who is muted reads, who observes reads, who is banned is out, and strangers learn nothing', async () => {
  await phone.ask('mute', { conversation: group, user: bob, until: Date.now() + 60_000 });
  await bobs.sees('members', { body: { action: 'muted' } }, group);
  await until('bob is muted on his node', async () => {
    const answer = await bobs.ask('send', { conversation: group, body: 'psst' }).catch((error) => error);
    return answer.code === MUTED;
  });
  await phone.ask('unmute', { conversation: group, user: bob });
  await phone.ask('set_role', { conversation: group, user: bob, role: 'moderator' });
  await bobs.sees('members', { body: { action: 'role', role: 'moderator' } }, group);
  await until('bob may manage on his node', () => bobs.ask('ban', { conversation: group, user: carl }).then(() => true, () => false));
  await carls.sees('unsubscribed', { code: 2000 }, group);
  await carls.sees('conversation', { body: { conversation: group } });
  assert.equal(await refusal(carls.ask('history', { conversation: group })), FORBIDDEN);
  assert.equal(await refusal(carls.ask('history', { conversation: 'no-such-conversation' })), FORBIDDEN);
});

await step('presence: who is in a conversation, who is online, and when somebody was last seen', async () => {
  const here = await phone.ask('presence', { conversation: group });
  assert.deepEqual(new Set(Object.values(here.presence ?? here).map(({ user }) => user)), new Set([ann, bob]));
  await phone.watch(bob);
  await phone.sees('online', { user: bob, online: true });
  // Strangers cannot be watched, nor asked about; whoever does not exist is a stranger, too.
  await carls.watch(dora).catch(() => {});
  await carls.sees('unsubscribed', { code: FORBIDDEN }, `presence:${dora}`);
  assert.deepEqual(await carls.ask('user_presence', { users: [dora] }), { users: [] });
  const second = await device(bob);
  second.close();
  bobs.close();
  const { last_seen: seen } = await phone.sees('online', { user: bob, online: false });
  assert.ok(seen > 0);
  const [state] = (await phone.ask('user_presence', { users: [bob] })).users;
  assert.equal(state.online, false);
});

await step('what was missed offline is there on return, in order', async () => {
  for (const text of ['one', 'two', 'three']) await phone.ask('send', { conversation: direct, body: { text } });
  await bobs.connect();
  await bobs.sees('text', { body: { text: 'three' } }, direct);
  const texts = bobs.seen.filter(({ name, channel }) => name === 'text' && channel === direct).map(({ data }) => data.body.text);
  assert.deepEqual(texts.slice(-3), ['one', 'two', 'three']);
});

await step('signals between members pass by and are kept nowhere', async () => {
  await phone.ask('signal', { conversation: direct, name: 'call_offer', data: { sdp: 'v=0' } });
  await bobs.sees('signal', { user: ann, name: 'call_offer', data: { sdp: 'v=0' } });
});

await step('one\'s own devices', async () => {
  const { connections } = await phone.ask('connections');
  assert.equal(connections.length, 2);
  assert.ok(connections.every(({ node, since, protocol }) => node && since > 0 && protocol));
});

if (API_KEY) {
  await step('the backend: notifies a user, speaks as the system, asks who is online, sends somebody away', async () => {
    await backend('POST', `/v1/users/${ann}/messages`, { kind: 'notification', body: { order: 17, status: 'shipped' } });
    await Promise.all([phone, laptop].map((each) => each.sees('notification', { body: { order: 17, status: 'shipped' } })));
    await backend('POST', `/v1/conversations/${direct}/messages`, { kind: 'system', body: { text: 'This chat is recorded' } });
    await bobs.sees('system', { body: { text: 'This chat is recorded' } }, direct);
    const { users } = await backend('POST', '/v1/presence', { users: [ann, dora] });
    assert.deepEqual(users.map(({ user, online }) => [user, online]), [[ann, true], [dora, false]]);
    await backend('POST', `/v1/users/${carl}/disconnect`, {});
    await carls.sees('disconnected');
  });
}

for (const each of users) each.close();
console.log('the story is told');
process.exit(0);
