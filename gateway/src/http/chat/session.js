// One user's session over Centrifuge's JSON protocol, by hand, with nothing between this file and the socket.
//
// It connects, comes back after whatever happened, and keeps the token fresh. What is to be done on a new connection,
// and with what the server pushes, is the listener's.

const COMMAND_MS_MAX = 5_000;
const PING_GRACE_MS = 10_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MS_MAX = 20_000;
/** Refusals that say "later": internal error, too many requests, try again. */
const TEMPORARY = new Set([100, 111, 113]);

/** The server said no; unless it is temporary, nothing happened. */
export class Refused extends Error {
  constructor({ code, message, temporary }) {
    super(message);
    this.code = code;
    this.isTemporary = Boolean(temporary) || TEMPORARY.has(code);
  }
}

/** There was no answer: it may have happened, and trying again with the same client id is safe. */
export class Unknown extends Error {}

class NoToken extends Error {}

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

// ---- the session: connects, and comes back -------------------------------------------------------------------------

/**
 * The listener has `state(name)`, `push(push)`, `ended(problem, needsToken)`, and `connected()`, which may wait and call:
 * what it throws ends the connection, and after a pause there is a new one.
 */
export class Session {
  #listener;
  #token;
  #connection = null;
  #failures = 0;
  #retry;
  #refresh;
  #isOver = false;
  #wasConnected = false;

  constructor(user, token, listener) {
    this.user = user;
    this.#token = token;
    this.#listener = listener;
    addEventListener('online', () => this.#retry && this.start());
    addEventListener('offline', () => this.interrupt('offline'));
  }

  async start() {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#listener.state(this.#wasConnected ? 'reconnecting' : 'connecting');
    const connection = new Connection(
      (push) => this.#listener.push(push),
      (code, reason) => this.#lost(connection, code, reason),
    );
    this.#connection = connection;
    try {
      const { expires, ttl } = await connection.connect(await this.#token.get());
      if (expires) this.#refreshIn(connection, ttl);
      await this.#listener.connected();
      this.#failures = 0;
      this.#wasConnected = true;
      this.#listener.state('connected');
    } catch (error) {
      this.#failed(connection, error);
    }
  }

  call(request) {
    return this.#connection.call(request);
  }

  async rpc(method, data) {
    return (await this.call({ rpc: { method, data } })).data;
  }

  /** Ends the present connection; another is made. */
  interrupt(reason) {
    this.#connection?.end(0, reason);
  }

  finish(problem, needsToken = false) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection?.end(0, 'finished');
    this.#listener.ended(problem, needsToken);
  }

  #refreshIn(connection, ttl) {
    clearTimeout(this.#refresh);
    this.#refresh = setTimeout(async () => {
      try {
        const { expires, ttl: next } = await connection.call({ refresh: { token: await this.#token.get(true) } });
        if (expires) this.#refreshIn(connection, next);
      } catch {
        connection.end(0, 'token expired');
      }
    }, ttl * 1000);
  }

  #failed(connection, error) {
    if (error instanceof Refused && error.code === 109) this.#token.drop();
    else if (error instanceof Refused && !error.isTemporary) this.finish(`The server says: ${error.message}`);
    else if (error instanceof NoToken) this.finish('A token is needed.', true);
    connection.end(0, error.message);
  }

  #lost(connection, code, reason) {
    if (connection !== this.#connection || this.#isOver) return;
    clearTimeout(this.#refresh);
    if (code === 3500) return this.finish('The server does not accept the token.', true);
    if ((code >= 3500 && code < 4000) || (code >= 4500 && code < 5000)) {
      return this.finish(`The server ended the connection: ${reason}`);
    }
    this.#listener.state('reconnecting');
    this.#retry = setTimeout(() => this.start(), jitter(this.#failures));
    this.#failures += 1;
  }
}

/** Anything up to a limit that doubles, so that the clients of a lost server do not come back together. */
export function jitter(failures) {
  return Math.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_FIRST_MS * 2 ** failures);
}

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
