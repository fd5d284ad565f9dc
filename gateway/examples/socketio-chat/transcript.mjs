// Writes down what users see, in a way that is the same on every server: ids and times get names, and what comes in no fixed order is sorted.

/** Fields whose value a server chooses. */
const TIMES = ['time', 'last_seen', 'lastSeen'];

export class Transcript {
  /** Name of a connection → its chat and how much of it is written. */
  #watched = new Map();
  #lines = [];
  #ids = new Map();
  #seqs = [];

  /** `names`: what to write instead of these words. */
  constructor(names) {
    this.names = names;
  }

  watch(name, chat) {
    this.#watched.set(name, { chat, messages: 0, errors: 0, notifications: 0, state: '' });
  }

  unwatch(name) {
    this.#watched.delete(name);
  }

  begin(title) {
    this.title = title;
    this.#lines = [];
  }

  /** An answer, or anything else that happens in a fixed order. */
  say(what, value) {
    this.#lines.push([what, value]);
  }

  /** Prints what was said in this step, and what has changed for each connection. */
  end() {
    console.log(`== ${this.title}`);
    const seen = [...this.#watched].flatMap(([name, watched]) => this.#changes(name, watched));
    for (const [, value] of [...this.#lines, ...seen]) this.#learn(value);
    for (const [what, value] of [...this.#lines, ...seen]) console.log(`${what}: ${this.#plain(value)}`);
  }

  #changes(name, watched) {
    const changes = [];
    const { chat } = watched;
    const take = (what, list) => {
      for (const entry of list.slice(watched[what])) changes.push([`${name} sees`, entry]);
      watched[what] = list.length;
    };
    const conversations = [...chat.conversations.values()];
    take('messages', conversations.flatMap(({ messages }) => messages));
    take('errors', chat.errors);
    take('notifications', chat.notifications);
    const people = [...chat.people].map(([user, { online, lastSeen }]) =>
      online ? { user, online } : { user, online, lastSeen });
    const typing = conversations.flatMap(({ typing }) => [...typing]);
    const byUser = (one, other) => (one.user < other.user ? -1 : 1);
    const state = { people: people.sort(byUser), typing };
    if (JSON.stringify(state) !== watched.state) changes.push([`${name} knows`, state]);
    watched.state = JSON.stringify(state);
    return changes;
  }

  /** Ids are numbered as they come, and so are seqs, of which the later is the greater. */
  #learn(value) {
    if (value === null || typeof value !== 'object') return;
    if (typeof value.id === 'string' && !this.#ids.has(value.id)) this.#ids.set(value.id, `id${this.#ids.size + 1}`);
    if (value.seq && !this.#seqs.includes(value.seq)) this.#seqs.push(value.seq);
    this.#seqs.sort((one, other) => one - other);
    for (const inner of Object.values(value)) this.#learn(inner);
  }

  #plain(value) {
    const text = JSON.stringify(value, (key, inner) => {
      if (key === 'id') return this.#ids.get(inner) ?? inner;
      if (key === 'seq' && inner) return `#${this.#seqs.indexOf(inner) + 1}`;
      if (TIMES.includes(key) && Number.isInteger(inner) && inner > 1_600_000_000_000) return 'TIME';
      if (inner === null || typeof inner !== 'object' || Array.isArray(inner)) return inner;
      return Object.fromEntries(Object.entries(inner).sort(([one], [other]) => (one < other ? -1 : 1)));
    });
    return Object.entries(this.names).reduce((written, [word, name]) => written.replaceAll(word, name), text);
  }
}
