// The list of a user's conversations: last message, unread count, and who of the others is there.

import { make } from './messages.js';

const PAGE = 50;
/** Unread counts are exact up to here. */
const UNREAD_EXACT_MAX = 99;
/** How long a conversation with its first message takes to be in the list, in milliseconds: it has to be stored. */
const STORED_MS = 1_000;
/** Most people whose comings and goings are watched. */
const WATCHED_MAX = 100;

const $ = (id) => document.getElementById(id);

/** `onOpen(id)` is called when one is chosen. */
export class List {
  #session;
  #onOpen;
  #entries = new Map();
  #people = new Map();
  #openId = null;
  #cursor = null;
  #reload = null;

  constructor(session, onOpen) {
    this.#session = session;
    this.#onOpen = onOpen;
    $('list').replaceChildren();
    $('more').onclick = () => this.#page(this.#cursor).catch(() => session.interrupt('no answer'));
  }

  /** On every new connection: what is shown may be old by now. */
  async load() {
    for (const person of this.#people.values()) person.isWatched = false;
    await this.#page(null);
  }

  opened(id) {
    this.#openId = id;
    for (const [each, { row }] of this.#entries) row.setAttribute('aria-current', String(each === id));
  }

  titleOf(id) {
    return this.#entries.get(id)?.title;
  }

  /** What the user's own room says. */
  take(push) {
    const { data, tags = {} } = push.pub ?? {};
    if (tags.event === 'unread') this.#unread(data);
    else if (tags.kind === 'conversation') this.#loadNow();
  }

  /** What the room of somebody's presence says. */
  takeOnline(data) {
    const person = this.#people.get(data.user);
    if (!person) return;
    Object.assign(person, { isOnline: data.online, lastSeen: data.last_seen });
    for (const entry of this.#entries.values()) if (entry.other === data.user) this.#showPresence(entry);
    this.onPresence?.();
  }

  /** In words, for the head of an open conversation. */
  presenceOf(id) {
    const person = this.#people.get(this.#entries.get(id)?.other);
    if (!person || person.isOnline === undefined) return '';
    if (person.isOnline) return 'online';
    return person.lastSeen ? `last seen ${new Date(person.lastSeen).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })}` : 'offline';
  }

  /** Something was said in a conversation that is shown. */
  said(id, message) {
    const entry = this.#entries.get(id);
    if (!entry) return this.#loadSoon();
    if (message.seq < (entry.seq ?? 0)) return;
    entry.seq = message.seq;
    entry.preview.textContent = previewOf(message);
    $('list').prepend(entry.row.parentElement);
  }

  #loadNow() {
    this.load().catch(() => this.#session.interrupt('no answer'));
  }

  #loadSoon() {
    this.#reload ??= setTimeout(() => {
      this.#reload = null;
      this.#loadNow();
    }, STORED_MS);
  }

  async #page(cursor) {
    const answer = await this.#session.rpc('conversations', { limit: PAGE, after: cursor ?? undefined });
    this.#cursor = answer.next;
    $('more').hidden = !answer.next;
    if (!cursor) {
      this.#entries.clear();
      $('list').replaceChildren();
    }
    for (const conversation of answer.conversations) this.#show(conversation);
    this.opened(this.#openId);
    $('no-conversations').hidden = this.#entries.size > 0;
    await this.#watchPeople();
  }

  #show(conversation) {
    const { others } = conversation;
    const other = conversation.kind === 'direct' ? others[0] : undefined;
    const title = conversation.name || others.join(', ') || conversation.id;
    const row = make('button', 'row');
    row.type = 'button';
    const [dot, name, preview, badge] = ['dot', 'name', 'preview', 'badge'].map((part) => make('span', part));
    name.textContent = title;
    preview.textContent = conversation.last ? previewOf(conversation.last) : '';
    row.append(dot, name, badge, preview);
    row.addEventListener('click', () => this.#onOpen(conversation.id));
    const item = make('li');
    item.append(row);
    $('list').append(item);
    const entry = { row, dot, preview, badge, title, other, seq: conversation.last?.seq ?? 0 };
    this.#entries.set(conversation.id, entry);
    this.#showUnread(entry, conversation.unread);
    if (other && !this.#people.has(other)) this.#people.set(other, {});
    this.#showPresence(entry);
  }

  #unread({ conversation, unread }) {
    const entry = this.#entries.get(conversation);
    if (!entry) return this.#loadNow();
    this.#showUnread(entry, unread);
    if (unread > 0) $('list').prepend(entry.row.parentElement);
    this.#refreshPreview(conversation, entry);
  }

  /** A conversation that is not open says only how much is unread: what was said last has to be asked for. */
  async #refreshPreview(id, entry) {
    if (id === this.#openId) return;
    const page = { conversation: id, limit: 5, reverse: true };
    const { messages } = await this.#session.rpc('history', page).catch(() => ({ messages: [] }));
    const last = messages.find(({ kind }) => !['void', 'edit', 'delete', 'reaction', 'members'].includes(kind));
    if (last && last.seq >= entry.seq) Object.assign(entry, { seq: last.seq }).preview.textContent = previewOf(last);
  }

  #showUnread(entry, unread) {
    entry.badge.hidden = !unread;
    entry.badge.textContent = unread > UNREAD_EXACT_MAX ? `${UNREAD_EXACT_MAX}+` : String(unread ?? 0);
    entry.badge.setAttribute('aria-label', `${entry.badge.textContent} unread`);
  }

  #showPresence(entry) {
    const person = this.#people.get(entry.other);
    entry.dot.dataset.online = String(Boolean(person?.isOnline));
    entry.dot.hidden = !entry.other;
    entry.dot.title = person?.isOnline ? 'online' : 'offline';
  }

  /** The others of direct conversations: how they are now, and from now on. */
  async #watchPeople() {
    const unwatched = [...this.#people].filter(([, person]) => !person.isWatched).slice(0, WATCHED_MAX);
    for (const [user, person] of unwatched) {
      person.isWatched = true;
      // Somebody with whom nothing was said yet cannot be watched.
      await this.#session.call({ subscribe: { channel: `presence:${user}` } }).catch(() => {});
    }
  }
}

function previewOf({ sender, body, deleted }) {
  const text = deleted ? 'Message deleted' : typeof body?.text === 'string' ? body.text : JSON.stringify(body);
  return `${sender}: ${text}`;
}
