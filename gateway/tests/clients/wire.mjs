// Engine.IO spoken by hand: requests and frames exactly as a test wants them, and every wait has an end.

import WebSocket from 'ws';

/** Longest wait for something that must happen, in milliseconds. */
export const WAIT_MS_MAX = 20_000;
/** How many times slower everything goes that has a time than in the official suites, which a busy machine cannot follow. */
export const PACE = Number(process.env.PACE ?? 1);
/** Between packets of one polling payload. */
export const SEPARATOR = '\x1e';
/** What the echo programs announce. */
export const PING_INTERVAL_MS = 300 * PACE;
export const PING_TIMEOUT_MS = 200 * PACE;
/** Time for a request to reach the server, in milliseconds. */
export const ARRIVAL_MS = 50 * PACE;
export const MAX_PAYLOAD_BYTES = 1_000_000;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Rejects when `promise` takes longer than `ms`. */
export async function within(what, promise, ms = WAIT_MS_MAX) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A server at `base`, for example `http://127.0.0.1:3000`, with Engine.IO under `path`. */
export class Engine {
  constructor(base, path) {
    this.base = base.replace(/\/$/, '');
    this.path = path;
  }

  url(query) {
    return `${this.base}${this.path}?${new URLSearchParams(query)}`;
  }

  /** Any request. The answer has `status`, `headers` and the whole `text`. */
  async request(query, options = {}) {
    const { headers, status, text } = await within('an answer', (async () => {
      const response = await fetch(this.url(query), options);
      return { headers: response.headers, status: response.status, text: await response.text() };
    })());
    return { headers, status, text };
  }

  /** Waits until the server takes connections. */
  async listening() {
    const deadline = Date.now() + WAIT_MS_MAX;
    while (!(await fetch(this.base).catch(() => false))) {
      if (Date.now() > deadline) throw new Error(`nobody listens at ${this.base}`);
      await pause(20);
    }
    return this;
  }

  poll(sid, options) {
    return this.request({ EIO: 4, transport: 'polling', sid }, options);
  }

  post(sid, body, options = {}) {
    return this.request({ EIO: 4, transport: 'polling', sid }, { method: 'POST', body, ...options });
  }

  /** Everything that polls bring, pings answered and noops left out, until there are `count` packets. */
  async polled(sid, count) {
    const packets = [];
    while (packets.length < count) {
      const { status, text } = await this.poll(sid);
      if (status !== 200) throw new Error(`a poll brings ${status} ${text}`);
      for (const packet of text.split(SEPARATOR)) {
        if (packet === '2') await this.post(sid, '3');
        else if (packet !== '6') packets.push(packet);
      }
    }
    return packets;
  }

  /** A polling session: what the server said when it opened. */
  async open() {
    const { status, text } = await this.request({ EIO: 4, transport: 'polling' });
    if (status !== 200 || text[0] !== '0') throw new Error(`no session: ${status} ${text}`);
    return JSON.parse(text.slice(1));
  }

  /** A WebSocket with this query, opened or refused. */
  socket(query) {
    return new Wire(this.url(query).replace(/^http/, 'ws'));
  }

  /** A WebSocket session, after its handshake, which is in `.handshake`. */
  async openSocket() {
    const wire = this.socket({ EIO: 4, transport: 'websocket' });
    wire.handshake = JSON.parse((await wire.next()).slice(1));
    return wire;
  }

  /** A WebSocket for the polling session `sid`, to upgrade it. */
  upgrade(sid) {
    return this.socket({ EIO: 4, transport: 'websocket', sid });
  }
}

/** One WebSocket; what comes is kept until somebody asks. Text is a string, binary a Buffer. */
export class Wire {
  #packets = [];
  #waiting = [];

  constructor(url) {
    this.socket = new WebSocket(url, { perMessageDeflate: false });
    this.socket.on('message', (data, isBinary) => this.#put(isBinary ? data : data.toString()));
    this.opened = new Promise((resolve, reject) => {
      this.socket.once('open', resolve);
      this.socket.once('close', () => reject(new Error('closed before it was open')));
    });
    this.opened.catch(() => {});
    this.refused = new Promise((resolve) => {
      this.socket.once('unexpected-response', (request, response) => {
        let text = '';
        response.on('data', (chunk) => (text += chunk));
        response.on('end', () => (resolve({ status: response.statusCode, text }), this.socket.terminate()));
      });
    });
    this.ended = new Promise((resolve) => {
      this.socket.once('close', (code) => {
        this.hasEnded = true;
        resolve(code);
        for (const wait of this.#waiting.splice(0)) wait.reject(new Error(`closed with ${code}`));
      });
    });
    this.socket.on('error', () => {});
  }

  #put(packet) {
    const wait = this.#waiting.shift();
    if (wait) wait.resolve(packet);
    else this.#packets.push(packet);
  }

  async open() {
    await within('the WebSocket', this.opened);
    return this;
  }

  send(...frames) {
    for (const frame of frames) this.socket.send(frame);
  }

  /** The next packet. */
  async next(ms = WAIT_MS_MAX) {
    if (this.#packets.length) return this.#packets.shift();
    if (this.hasEnded) throw new Error('closed');
    const wait = {};
    const come = new Promise((resolve, reject) => Object.assign(wait, { resolve, reject }));
    this.#waiting.push(wait);
    try {
      return await within('a packet', come, ms);
    } finally {
      this.#waiting = this.#waiting.filter((other) => other !== wait);
    }
  }

  /** The next packet that is no ping; pings are answered. */
  async nextMessage() {
    for (;;) {
      const packet = await this.next();
      if (packet !== '2') return packet;
      this.send('3');
    }
  }

  /** Everything that has come so far. */
  taken() {
    return this.#packets.splice(0);
  }

  /** Waits until the server has closed it; the code. */
  closed(ms = WAIT_MS_MAX) {
    return within('the end of the WebSocket', this.ended, ms);
  }

  close() {
    this.socket.terminate();
  }
}
