// Two stock Socket.IO clients that only poll, through a balancer without stickiness, while every node behind it is replaced. It goes on
// talking until the file DONE is there.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { env, main, pause, step, until } from './lib.mjs';
import { MODES, direct, inConversation, messages, user } from './socketio_lib.mjs';

const [BALANCER, DONE] = [env('URL_LB'), env('DONE')];
/** Messages before the nodes are replaced, at least, and after. */
const MORE = 5;

await main('socketio_replaced', async () => {
  const [alice, bob] = [user('alice'), user('bob')];
  const conversation = direct(alice, bob);
  const [one, two] = await step('two users poll through the balancer', async () => {
    const both = [alice, bob].map((name) => inConversation(BALANCER, name, conversation, MODES.polling));
    return Promise.all(both);
  });
  for (const socket of [one, two]) {
    // As an app does whose session was not recovered.
    socket.on('connect', () => {
      if (socket.recovered) return;
      const seq = messages(socket, conversation).at(-1)?.seq ?? 0;
      socket.emit('join_conversation', { conversation_id: conversation, seq });
    });
  }

  let said = 0;
  /** Says it until it is accepted: sending again changes nothing. */
  const say = async (socket) => {
    const message = { conversation_id: conversation, body: said, client_id: `n${said}` };
    for (;;) {
      const answer = await socket.timeout(3_000).emitWithAck('send_message', message).catch(() => undefined);
      if (answer?.ok) break;
      await pause(100);
    }
    said += 1;
  };

  await step('they talk while nodes go and come', async () => {
    for (let more = 0; more < MORE; more += existsSync(DONE) ? 1 : 0) {
      await say(said % 2 ? two : one);
      await pause(50);
    }
  });

  await step('nothing is lost, and all is in order', async () => {
    const heard = (socket) => {
      const known = new Map(messages(socket, conversation).map((message) => [message.id, message]));
      return [...known.values()].map(({ body }) => body);
    };
    await until('both have all', () => [one, two].every((socket) => heard(socket).length === said));
    for (const socket of [one, two]) assert.deepEqual(heard(socket), [...Array(said).keys()]);
    console.log(`    ${said} messages, ${one.connects} and ${two.connects} connections`);
  });
  for (const socket of [one, two]) socket.close();
});
