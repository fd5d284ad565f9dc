// One conversation over Centrifuge's JSON protocol, by hand, with nothing between this file and the socket.
//
// What any client of Starling has to do is here once, in the open: resume by offset, keep what is not acknowledged and
// send it again under the same client id. Whoever shows the messages filters by id what comes twice.

const COMMAND_MS_MAX = 5_000;
const PING_GRACE_MS = 10_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MS_MAX = 20_000;
const PAGE = 50;
/** Refusals that say "later": internal error, too many requests, try again. */
const TEMPORARY = new Set([100, 111, 113]);

// ---- one connection ------------------------------------------------------------------------------------------------

/** A WebSocket that matches replies to commands. `onPush` gets every push, `onClose` the code, once. */
class Connection {
  #socket;
  #waiting = new Map();
  #lastId = 0;
  #silence;
  #silenceMs = COMMAND_MS_MAX + PING_GRACE_MS;
  #answersPings = false;
  isOver = false;

  constructor(onPush, onClose) {
    this.#socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/connection/websocket`);
    this.opened = new Promise((resolve) => this.#socket.addEventListener('open', resolve));
    this.#socket.addEventListener('message', ({ data }) => {
      if (this.isOver) return;
      this.#watch();
      for (const line of data.split('\n')) this.#take(JSON.parse(line), onPush);
    });
    this.end = (code, reason) => {
      if (this.isOver) return;
      this.isOver = true;
      clearTimeout(this.#silence);
      for (const waiting of this.#waiting.values()) waiting.reject(new Unknown('connection closed'));
      this.#socket.close();
      onClose(code, reason);
    };
    this.#socket.addEventListener('close', ({ code, reason }) => this.end(code, reason));
    this.#watch();
  }

  async connect(token) {
    await this.opened;
    const connected = await this.call({ connect: { token, name: 'chat-page' } });
    this.#answersPings = Boolean(connected.pong);
    this.#silenceMs = connected.ping ? connected.ping * 1000 + PING_GRACE_MS : 0;
    this.#watch();
    return connected;
  }

  call(request) {
    if (this.isOver) return Promise.reject(new Unknown('connection closed'));
    const id = (this.#lastId += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => settle(reject, new Unknown('no answer')), COMMAND_MS_MAX);
      const settle = (how, value) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        how(value);
      };
      this.#waiting.set(id, {
        resolve: (value) => settle(resolve, value),
        reject: (error) => settle(reject, error),
      });
      this.#socket.send(JSON.stringify({ id, ...request }));
    });
  }

  async rpc(method, data) {
    return (await this.call({ rpc: { method, data } })).data;
  }

  #take({ id, error, push, ...results }, onPush) {
    if (push) return onPush(push);
    if (id) {
      const waiting = this.#waiting.get(id);
      return error ? waiting?.reject(new Refused(error)) : waiting?.resolve(Object.values(results)[0]);
    }
    if (this.#answersPings) this.#socket.send('{}');
  }

  /** A server that has promised pings and falls silent is gone, whatever the socket says. */
  #watch() {
    clearTimeout(this.#silence);
    if (this.#silenceMs) this.#silence = setTimeout(() => this.end(0, 'no ping'), this.#silenceMs);
  }
}

/** The server said no; unless it is temporary, nothing happened. */
class Refused extends Error {
  constructor({ code, message, temporary }) {
    super(message);
    this.code = code;
    this.isTemporary = Boolean(temporary) || TEMPORARY.has(code);
  }
}

/** There was no answer: it may have happened, and trying again with the same client id is safe. */
class Unknown extends Error {}

// ---- the conversation: connects, resumes, sends --------------------------------------------------------------------

export class Conversation {
  #view;
  #connection = null;
  #position = null;
  #failures = 0;
  #retry;
  #refresh;
  #isJoined = false;
  #isCatchingUp = false;
  #liveUpto = 0;
  #isSending = false;
  #isOver = false;

  constructor(user, id, token, view) {
    Object.assign(this, { user, id, token });
    this.#view = view;
    this.outgoing = new Outgoing(user, id);
    for (const message of this.outgoing.all()) view.sending(message);
    addEventListener('online', () => this.#retry && this.#start());
    addEventListener('offline', () => this.#connection?.end(0, 'offline'));
    this.#start();
  }

  send(text) {
    this.#view.sending(this.outgoing.add(text));
    this.#flush();
  }

  async earlier(before) {
    return (await this.#connection.rpc('history', { conversation: this.id, before, limit: PAGE, reverse: true })).messages;
  }

  async #start() {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#view.state(this.#position ? 'reconnecting' : 'connecting');
    const connection = new Connection(
      (push) => this.#take(push),
      (code, reason) => this.#lost(connection, code, reason),
    );
    this.#connection = connection;
    try {
      const { expires, ttl } = await connection.connect(await this.token.get());
      if (expires) this.#refreshIn(connection, ttl);
      await this.#join(connection);
      this.#failures = 0;
      this.#isJoined = true;
      this.#view.state('connected');
      this.#flush();
    } catch (error) {
      this.#failed(connection, error);
    }
  }

  async #join(connection) {
    const known = this.#position;
    const recover = known && { recover: true, offset: known.offset, epoch: known.epoch };
    this.#liveUpto = 0;
    this.#isCatchingUp = true;
    const joined = await connection.call({ subscribe: { channel: this.id, ...recover } });
    const { offset = 0, epoch = '', recovered, publications = [] } = joined;
    if (!known) {
      const page = { conversation: this.id, limit: PAGE, reverse: true };
      this.#view.show((await connection.rpc('history', page)).messages);
    } else if (recovered) {
      this.#view.show(publications.map(asMessage));
    } else {
      await this.#pageUpTo(connection, known.offset, offset);
    }
    const caughtUp = Math.max(offset, ...publications.map((publication) => publication.offset));
    this.#position = { epoch, offset: Math.max(caughtUp, this.#liveUpto) };
    this.#isCatchingUp = false;
  }

  /** Too much was missed for one answer. What is live meanwhile lies beyond the end. */
  async #pageUpTo(connection, start, end) {
    for (let after = start; after < end; ) {
      const { messages } = await connection.rpc('history', { conversation: this.id, after, limit: PAGE });
      if (!messages.length) return;
      this.#view.show(messages);
      after = messages.at(-1).seq;
    }
  }

  #take(push) {
    if (push.message?.data?.type === 'stored' && push.message.data.conversation === this.id) {
      this.#view.stored(push.message.data.upto);
    } else if (push.channel === this.id && push.pub) {
      this.#publication(push.pub);
    } else if (push.channel === this.id && push.unsubscribe) {
      const { code = 2500, reason } = push.unsubscribe;
      if (code < 2500) this.#finish(`The server ended this conversation: ${reason}`);
      else this.#join(this.#connection).catch((error) => this.#failed(this.#connection, error));
    }
  }

  /** While something before it is still missing, a live message must not move the position. */
  #publication(publication) {
    this.#liveUpto = publication.offset;
    if (!this.#isCatchingUp) this.#position.offset = publication.offset;
    this.#view.show([asMessage(publication)]);
  }

  /** Sends what waits, each message after the one before was accepted, so that their order holds. */
  async #flush() {
    if (this.#isSending) return;
    this.#isSending = true;
    const connection = this.#connection;
    try {
      for (let message; (message = this.outgoing.first()) && this.#isJoined; ) {
        const { client_id, text, tried } = message;
        this.outgoing.tried(client_id);
        const data = { conversation: this.id, client_id, kind: 'text', body: { text }, retry: tried };
        try {
          const { id, seq, time } = await connection.rpc('send', data);
          this.#view.accepted(client_id, { id, seq, time });
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          if (error.isTemporary) {
            await new Promise((resolve) => setTimeout(resolve, jitter(2)));
            continue;
          }
          this.#view.failed(client_id, error.message);
        }
        this.outgoing.remove(client_id);
      }
    } catch {
      connection.end(0, 'no answer');
    } finally {
      this.#isSending = false;
    }
    // Whatever is left was interrupted; if the next connection is up already, it has not been told.
    if (this.outgoing.first() && this.#isJoined) this.#flush();
  }

  #refreshIn(connection, ttl) {
    clearTimeout(this.#refresh);
    this.#refresh = setTimeout(async () => {
      try {
        const { expires, ttl: next } = await connection.call({ refresh: { token: await this.token.get(true) } });
        if (expires) this.#refreshIn(connection, next);
      } catch {
        connection.end(0, 'token expired');
      }
    }, ttl * 1000);
  }

  async #failed(connection, error) {
    if (error instanceof Refused && error.code === 109) {
      this.token.drop();
    } else if (error instanceof Refused && !error.isTemporary) {
      const isDenied = error.code === 103;
      this.#finish(isDenied ? 'You are not a member of this conversation.' : `The server says: ${error.message}`);
    } else if (error instanceof NoToken) {
      this.#finish('A token is needed.', true);
    }
    connection.end(0, error.message);
  }

  #lost(connection, code, reason) {
    if (connection !== this.#connection || this.#isOver) return;
    clearTimeout(this.#refresh);
    this.#isJoined = false;
    if (code === 3500) return this.#finish('The server does not accept the token.', true);
    if ((code >= 3500 && code < 4000) || (code >= 4500 && code < 5000)) {
      return this.#finish(`The server ended the connection: ${reason}`);
    }
    this.#view.state('reconnecting');
    this.#retry = setTimeout(() => this.#start(), jitter(this.#failures));
    this.#failures += 1;
  }

  #finish(problem, needsToken = false) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection?.end(0, 'finished');
    this.#view.ended(problem, needsToken);
  }
}

/** A publication, as history would show it. */
function asMessage({ data, offset, info, tags = {}, time }) {
  const { id, kind, client_id, prev } = tags;
  return { id, seq: offset, prev: Number(prev), time, sender: info?.user, kind, client_id, body: data };
}

/** Anything up to a limit that doubles, so that the clients of a lost server do not come back together. */
function jitter(failures) {
  return Math.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_FIRST_MS * 2 ** failures);
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

  add(text) {
    const message = { client_id: newId(), text, tried: false };
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

class NoToken extends Error {}

/** The token: pasted by the user, or from the endpoint that servers without a real key offer for trying. */
export class Token {
  #user;
  #pasted;
  #current = null;

  constructor(user, pasted) {
    this.#user = user;
    this.#pasted = pasted;
  }

  async get(mustBeNew = false) {
    if (mustBeNew) this.drop();
    this.#current ??= this.#pasted || (await this.#ask());
    return this.#current;
  }

  drop() {
    this.#current = null;
    this.#pasted = null;
  }

  async #ask() {
    const answer = await fetch(`/dev/token?user=${encodeURIComponent(this.#user)}`, { cache: 'no-store' });
    if (answer.status === 404) throw new NoToken('no dev token');
    if (!answer.ok) throw new Unknown(`no token: ${answer.status}`);
    return (await answer.json()).token;
  }
}

/** The direct conversation of two users is named after both, the smaller first: as numbers when both are numbers. */
export function directConversation(one, other) {
  const areNumbers = [one, other].every((id) => /^\d+$/.test(id));
  const isInOrder = areNumbers && one.length !== other.length ? one.length < other.length : one < other;
  return `conv_${isInOrder ? one : other}_${isInOrder ? other : one}`;
}
