// A chat app's side of Starling: the stock Centrifuge client, and one function for each thing that a user can do.

import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

/** One user on one device. `onEvent(name, data, channel)` gets everything that happens, whatever it is. */
export class ChatUser {
  #client;
  #rooms = new Map();

  constructor(url, user, getToken, onEvent) {
    this.user = user;
    this.onEvent = onEvent;
    this.#client = new Centrifuge(`${url.replace(/^http/, 'ws')}/connection/websocket`, {
      websocket: WebSocket,
      getToken,
      minReconnectDelay: 50,
    });
    // The personal room is a subscription that the server makes: every device of the user is in it.
    this.#client.on('publication', ({ channel, ...publication }) => this.#take(channel, publication));
    this.#client.on('disconnected', ({ code, reason }) => onEvent('disconnected', { code, reason }));
  }

  async connect() {
    this.#client.connect();
    await this.#client.ready();
    return this;
  }

  close() {
    this.#client.disconnect();
  }

  /** Joins a conversation and, after every reconnect, gets what was missed. */
  async join(conversation) {
    const room = this.#client.newSubscription(conversation, { joinLeave: true, minResubscribeDelay: 50 });
    room.on('publication', (publication) => this.#take(conversation, publication));
    for (const event of ['join', 'leave']) room.on(event, ({ info }) => this.onEvent(event, info, conversation));
    room.on('unsubscribed', ({ code, reason }) => this.onEvent('unsubscribed', { code, reason }, conversation));
    room.subscribe();
    this.#rooms.set(conversation, room);
    await room.ready();
    return room;
  }

  /** Watches whether somebody is online. The first event says how it is now. */
  watch(user) {
    return this.join(`presence:${user}`);
  }

  /** Any operation, by its name: `ask('send', { conversation, body })`. A refusal is an error with a `code`. */
  async ask(operation, data = {}) {
    return (await this.#client.rpc(operation, data)).data;
  }

  /** A message has an offset, its place in the conversation. What is kept nowhere has none, and says its name. */
  #take(channel, { data, offset, info, tags = {}, time }) {
    if (!offset) return this.onEvent(tags.event, data, channel);
    const { id, kind, client_id, reply_to } = tags;
    const message = { id, seq: offset, sender: info?.user, kind, client_id, time, body: data };
    this.onEvent(kind, reply_to ? { ...message, reply_to: Number(reply_to) } : message, channel);
  }
}
