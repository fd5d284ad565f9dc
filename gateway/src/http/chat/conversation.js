// One conversation of a session: joins, resumes where it was, and sends.
//
// What any client of Starling has to do is here once, in the open: resume by offset, keep what is not acknowledged and
// send it again under the same client id. Whoever shows the messages filters by id what comes twice.

import { Refused, jitter } from './session.js';

const PAGE = 50;
/** How often a typist says so again, in milliseconds; the others are told that it is over after twice that. */
const TYPING_MS = 3_000;

/** The listener has `sending`, `accepted`, `failed`, `show(messages, {isLive})`, `stored`, `event(name, data)`, `refused(text)`. */
export class Conversation {
  #session;
  #listener;
  #position = null;
  #isJoined = false;
  #isCatchingUp = false;
  #liveUpto = 0;
  #isSending = false;
  #isOver = false;
  #typingUntil = 0;
  #readUpto = 0;
  #toldRead = 0;
  #isReading = false;

  constructor(session, id, listener) {
    this.id = id;
    this.#session = session;
    this.#listener = listener;
    this.outgoing = new Outgoing(session.user, id);
    for (const message of this.outgoing.all()) listener.sending(message);
  }

  // ---- what the user does

  send(text, replyTo) {
    this.#typingUntil = 0;
    this.#listener.sending(this.outgoing.add(text, replyTo));
    this.#flush();
  }

  edit = (seq, text) => this.#do('edit', { seq, body: { text } });
  delete = (seq) => this.#do('delete', { seq });
  react = (seq, emoji, isOn) => this.#do(isOn ? 'react' : 'unreact', { seq, emoji });

  async earlier(before) {
    const page = { conversation: this.id, before, limit: PAGE, reverse: true };
    return (await this.#session.rpc('history', page)).messages;
  }

  /** Everything up to `seq` was seen. */
  read(seq) {
    this.#readUpto = Math.max(this.#readUpto, seq);
    this.#tellRead();
  }

  typing(isTyping) {
    const now = Date.now();
    if (!this.#isJoined || (isTyping ? now < this.#typingUntil : !this.#typingUntil)) return;
    this.#typingUntil = isTyping ? now + TYPING_MS : 0;
    this.#do(isTyping ? 'typing' : 'stop_typing', {}).catch(() => {});
  }

  async close() {
    this.typing(false);
    this.#isOver = true;
    this.#isJoined = false;
    await this.#session.call({ unsubscribe: { channel: this.id } }).catch(() => {});
  }

  /** One request at a time; the latest wins. */
  async #tellRead() {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      while (this.#isJoined && this.#toldRead < this.#readUpto) {
        const seq = this.#readUpto;
        await this.#do('mark_read', { seq });
        this.#toldRead = seq;
      }
    } catch {
      // Told with the next message, or after the next join.
    } finally {
      this.#isReading = false;
    }
  }

  #do(method, data) {
    return this.#session.rpc(method, { conversation: this.id, ...data });
  }

  // ---- what the session does

  /** On every new connection. */
  async join() {
    const known = this.#position;
    const recover = known && { recover: true, offset: known.offset, epoch: known.epoch };
    this.#liveUpto = 0;
    this.#isCatchingUp = true;
    const subscribed = await this.#session.call({ subscribe: { channel: this.id, join_leave: true, ...recover } })
      .catch((error) => this.#refused(error));
    if (!subscribed || this.#isOver) return;
    const { offset = 0, epoch = '', recovered, publications = [] } = subscribed;
    if (!known) {
      this.#listener.show((await this.earlier()).reverse(), { isLive: true });
    } else if (recovered) {
      this.#listener.show(publications.map(asMessage), { isLive: true });
    } else {
      await this.#pageUpTo(known.offset, offset);
    }
    const caughtUp = Math.max(offset, ...publications.map((publication) => publication.offset));
    this.#position = { epoch, offset: Math.max(caughtUp, this.#liveUpto) };
    this.#isCatchingUp = false;
    this.#isJoined = true;
    await this.#receipts();
    this.#tellRead();
    this.#flush();
  }

  lost() {
    this.#isJoined = false;
    this.#typingUntil = 0;
  }

  take(push) {
    if (push.pub?.offset) this.#publication(push.pub);
    else if (push.pub) this.#listener.event(push.pub.tags?.event, push.pub.data);
    else if (push.unsubscribe) this.#unsubscribed(push.unsubscribe);
  }

  async #receipts() {
    const { receipts } = await this.#do('receipts', {});
    for (const receipt of receipts) this.#listener.event('receipt', receipt);
  }

  #refused(error) {
    if (!(error instanceof Refused) || error.isTemporary) throw error;
    this.#isOver = true;
    this.#listener.refused(error.code === 103 ? 'You are not a member of this conversation.' : error.message);
  }

  #unsubscribed({ code = 2500, reason }) {
    if (code >= 2500) return void this.join().catch(() => this.#session.interrupt('cannot join'));
    this.#isOver = true;
    this.#isJoined = false;
    this.#listener.refused(`You are no longer in this conversation (${reason}).`);
  }

  /** Too much was missed for one answer. What is live meanwhile lies beyond the end. */
  async #pageUpTo(start, end) {
    for (let after = start; after < end; ) {
      const { messages } = await this.#session.rpc('history', { conversation: this.id, after, limit: PAGE });
      if (!messages.length) return;
      this.#listener.show(messages, { isLive: true });
      after = messages.at(-1).seq;
    }
  }

  /** While something before it is still missing, a live message must not move the position. */
  #publication(publication) {
    this.#liveUpto = publication.offset;
    if (!this.#isCatchingUp) this.#position.offset = publication.offset;
    this.#listener.show([asMessage(publication)], { isLive: true });
  }

  /** Sends what waits, each message after the one before was accepted, so that their order holds. */
  async #flush() {
    if (this.#isSending) return;
    this.#isSending = true;
    try {
      for (let message; (message = this.outgoing.first()) && this.#isJoined; ) {
        await this.#sendOne(message);
      }
    } catch {
      this.#session.interrupt('no answer');
    } finally {
      this.#isSending = false;
    }
    // Whatever is left was interrupted; if the next connection is up already, it has not been told.
    if (this.outgoing.first() && this.#isJoined) this.#flush();
  }

  async #sendOne({ client_id, text, reply_to, tried }) {
    this.outgoing.tried(client_id);
    const data = { client_id, kind: 'text', body: { text }, reply_to, retry: tried };
    try {
      const { id, seq, time } = await this.#do('send', data);
      this.#listener.accepted(client_id, { id, seq, time });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.isTemporary) return new Promise((resolve) => setTimeout(resolve, jitter(2)));
      this.#listener.failed(client_id, error.message);
    }
    this.outgoing.remove(client_id);
  }
}

/** A publication, as history would show it. */
function asMessage({ data, offset, info, tags = {}, time }) {
  const { id, kind, client_id, prev, reply_to } = tags;
  return {
    id, seq: offset, prev: Number(prev), time, sender: info?.user, kind, client_id, body: data,
    reply_to: reply_to && Number(reply_to),
  };
}

/** What is not acknowledged yet. It is kept for this tab, so that reloading the page does not lose it. */
class Outgoing {
  #key;
  #messages;

  constructor(user, conversation) {
    this.#key = `starling outgoing ${user} ${conversation}`;
    this.#messages = JSON.parse(sessionStorage.getItem(this.#key) ?? '[]');
  }

  all = () => this.#messages;
  first = () => this.#messages[0];

  add(text, replyTo) {
    const message = { client_id: newId(), text, reply_to: replyTo, tried: false };
    this.#messages.push(message);
    this.#keep();
    return message;
  }

  tried(clientId) {
    this.#messages.find((message) => message.client_id === clientId).tried = true;
    this.#keep();
  }

  remove(clientId) {
    this.#messages = this.#messages.filter((message) => message.client_id !== clientId);
    this.#keep();
  }

  #keep() {
    sessionStorage.setItem(this.#key, JSON.stringify(this.#messages));
  }
}

/** 128 random bits; `crypto.randomUUID` exists only where the page came over TLS or from this machine. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The direct conversation of two users is named after both, the smaller first: as numbers when both are numbers. */
export function directConversation(one, other) {
  const areNumbers = [one, other].every((id) => /^\d+$/.test(id));
  const isInOrder = areNumbers && one.length !== other.length ? one.length < other.length : one < other;
  return `conv_${isInOrder ? one : other}_${isInOrder ? other : one}`;
}
