// The client side of a chat app, as it is written for a Socket.IO server. It keeps what the app would show.

import { io } from 'socket.io-client';

/** Longest wait for an answer, in milliseconds. */
const ANSWER_MS_MAX = 30_000;

export class Chat {
  /** Conversation id → what is known of it. */
  conversations = new Map();
  /** User id → `{online, lastSeen}`. */
  people = new Map();
  /** What the server said to this user, and what it refused without being asked for an answer. */
  notifications = [];
  errors = [];

  /** `token` is a function that fetches a token; `options` are those of `io()`. */
  constructor(url, user, token, options = {}) {
    this.user = user;
    this.socket = io(url, {
      auth: (give) => token(user).then((token) => give({ token })),
      reconnectionDelay: 100,
      reconnectionDelayMax: 500,
      ...options,
    });
    this.socket.on('connect', () => this.#connected());
    this.socket.on('new_message', (message) => this.#add(message));
    this.socket.on('message_read', ({ conversation_id, user_id, seq }) => {
      const { readBy } = this.conversation(conversation_id);
      readBy.set(user_id, Math.max(seq, readBy.get(user_id) ?? 0));
    });
    this.socket.on('user_typing', ({ conversation_id, user_id, typing }) => {
      if (user_id === this.user) return;
      this.conversation(conversation_id).typing[typing ? 'add' : 'delete'](user_id);
    });
    this.socket.on('user_online', ({ user_id, last_seen }) =>
      this.people.set(user_id, { online: true, lastSeen: last_seen }));
    this.socket.on('user_offline', ({ user_id, last_seen }) =>
      this.people.set(user_id, { online: false, lastSeen: last_seen }));
    this.socket.on('notification', (notification) => this.notifications.push(notification));
    this.socket.on('error', (error) => this.errors.push(error));
  }

  /** After a break without recovery, everything is joined again, from the last message that was seen. */
  #connected() {
    if (this.socket.recovered) return;
    this.socket.emit('register_user', this.user);
    for (const [conversation_id, { isJoined, messages }] of this.conversations) {
      if (isJoined) this.socket.emit('join_conversation', { conversation_id, seq: messages.at(-1)?.seq ?? 0 });
    }
  }

  /** A message may come twice, as live event and with what was missed; it is shown once. */
  #add(message) {
    const { messages } = this.conversation(message.conversation_id);
    if (!messages.some(({ id }) => id === message.id)) messages.push(message);
  }

  conversation(id) {
    if (!this.conversations.has(id)) {
      this.conversations.set(id, { isJoined: false, messages: [], readBy: new Map(), typing: new Set() });
    }
    return this.conversations.get(id);
  }

  #ask(event, ...args) {
    return this.socket.timeout(ANSWER_MS_MAX).emitWithAck(event, ...args);
  }

  register() {
    return this.#ask('register_user', this.user);
  }

  /** `seq`: the last message that this app has already. */
  async join(conversation_id, seq) {
    const answer = await this.#ask('join_conversation', seq === undefined ? conversation_id : { conversation_id, seq });
    if (answer.ok) this.conversation(conversation_id).isJoined = true;
    return answer;
  }

  async leave(conversation_id) {
    this.conversation(conversation_id).isJoined = false;
    return this.#ask('leave_conversation', conversation_id);
  }

  /** `message` is `{text}`, and what else the app wants to say about it. */
  send(conversation_id, message) {
    return this.#ask('send_message', { conversation_id, ...message });
  }

  typing(conversation_id) {
    this.socket.emit('typing', conversation_id);
  }

  stopTyping(conversation_id) {
    this.socket.emit('stop_typing', { conversation_id });
  }

  /** Up to `seq`, or everything. */
  read(conversation_id, seq) {
    return this.#ask('mark_read', seq === undefined ? conversation_id : { conversation_id, seq });
  }

  close() {
    this.socket.disconnect();
  }
}
