// The messages of the open conversation, as they are shown: in the order of their seq, each id once, in their present state.

const MARKS = {
  sending: ['…', 'Sending: not yet accepted'],
  accepted: ['✓', 'Accepted: it cannot be lost by the failure of one server'],
  stored: ['✓✓', 'Stored: it is in the database'],
  read: ['✓✓', 'Read'],
  failed: ['✗', 'Refused'],
};
const EMOJIS = ['👍', '❤️', '😂', '😮', '🎉'];
/** As near to the end, in pixels, as counts for being at the end. */
const END_PX = 40;
/** A typist who is not heard of for so long, in milliseconds, has stopped. */
const TYPING_MS_MAX = 7_000;

const $ = (id) => document.getElementById(id);

/** Makes an element. */
export function make(tag, name, text = '') {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

function makeButton(name, label, sign, onClick) {
  const button = make('button', name, sign);
  button.type = 'button';
  button.title = label;
  button.setAttribute('aria-label', label);
  button.addEventListener('click', onClick);
  return button;
}

/** `actions` has `edit(item)`, `delete(seq)`, `react(seq, emoji, isOn)`, `reply(item)`, `seen(seq)`. */
export class Messages {
  #user;
  #actions;
  #items = new Map();
  #bySeq = new Map();
  #mine = new Map();
  #storedUpto = 0;
  #reads = new Map();
  #typists = new Map();

  constructor(user, actions) {
    this.#user = user;
    this.#actions = actions;
    $('log').replaceChildren();
    this.#showTypists();
    this.#settle(true);
  }

  // ---- what this user sends

  sending({ client_id, text, reply_to }) {
    const item = this.#item({ sender: this.#user, body: { text }, reply_to });
    this.#mine.set(client_id, item);
    this.#mark(item, 'sending');
    $('log').append(item);
    this.#settle(true);
  }

  accepted(clientId, { id, seq, time }) {
    const item = this.#mine.get(clientId);
    if (!item || item.dataset.seq) return;
    this.#items.set(id, item);
    this.#place(item, seq, time);
    this.#markMine(item);
  }

  failed(clientId, reason) {
    this.#mark(this.#mine.get(clientId), 'failed', reason);
  }

  stored(upto) {
    this.#storedUpto = Math.max(this.#storedUpto, upto);
    this.#markAllMine();
  }

  // ---- what arrives

  /** A live page may change what was shown before; an earlier one has everything in its present state already. */
  show(messages, { isLive }) {
    const isAtEnd = isScrolledDown();
    const heightBelow = $('scroll').scrollHeight - $('scroll').scrollTop;
    $('scroll').setAttribute('aria-busy', String(messages.length > 1));
    for (const message of messages) this.#showOne(message, isLive);
    $('scroll').setAttribute('aria-busy', 'false');
    if (isLive) this.#settle(isAtEnd);
    else $('scroll').scrollTop = $('scroll').scrollHeight - heightBelow;
    $('earlier').hidden = !(this.#first?.prev > 0);
    this.seen();
  }

  get firstSeq() {
    return this.#first?.seq;
  }

  event(name, data) {
    if (name === 'typing' && data.user !== this.#user) this.#typing(data.user, data.typing);
    if (name === 'receipt' && data.user !== this.#user) {
      this.#reads.set(data.user, Math.max(data.read, this.#reads.get(data.user) ?? 0));
      this.#markAllMine();
    }
  }

  /** What is on the screen is read. */
  seen() {
    const last = Math.max(0, ...this.#bySeq.keys());
    if (last && isScrolledDown() && document.visibilityState === 'visible') this.#actions.seen(last);
  }

  /** The newest message of this user that can still be changed. */
  lastOfMine() {
    return [...$('log').querySelectorAll('li.mine[data-seq]:not([data-deleted])')].at(-1);
  }

  // ---- one message

  /** The lowest entry that was shown, message or not, and where the one before it is. */
  #first;

  #showOne(message, isLive) {
    const { id, seq, prev, time, sender, client_id, kind, body } = message;
    if (!this.#first || seq <= this.#first.seq) this.#first = { seq, prev };
    if (kind === 'void') return;
    if (kind === 'edit' || kind === 'delete' || kind === 'reaction') {
      if (isLive) this.#change(kind, this.#bySeq.get(body?.target), message);
      return;
    }
    this.#typing(sender, false);
    if (this.#items.has(id)) return this.#state(this.#items.get(id), message);
    const isMine = sender === this.#user;
    const item = (isMine && this.#mine.get(client_id)) || (kind === 'members' ? this.#notice(message) : this.#item(message));
    this.#items.set(id, item);
    this.#place(item, seq, time);
    this.#state(item, message);
    if (isMine && item.classList.contains('mine')) this.#markMine(item);
  }

  #notice({ sender, body }) {
    const who = (body.users ?? []).filter((user) => user !== sender).join(', ');
    const did = { role: `made ${who} ${body.role}`, renamed: 'renamed the conversation', left: 'left' }[body.action];
    const item = make('li', 'notice');
    item.append(make('p', 'text', `${sender} ${did ?? `${body.action} ${who || sender}`}`), make('time', 'time'));
    return item;
  }

  #item({ sender, body, reply_to: replyTo }) {
    const item = make('li', sender === this.#user ? 'mine' : '');
    item.tabIndex = -1;
    const facts = make('span', 'facts');
    facts.append(make('span', 'edited'), make('time', 'time'));
    if (sender === this.#user) {
      const mark = make('span', 'mark');
      mark.setAttribute('role', 'img');
      facts.append(mark);
    }
    item.append(make('span', `sender${item.className ? ' unseen' : ''}`, sender));
    if (replyTo) item.append(this.#quote(replyTo));
    item.append(make('p', 'text', textOf(body)), make('span', 'reactions'), facts, this.#menu(item));
    return item;
  }

  #quote(seq) {
    const quoted = this.#bySeq.get(seq)?.querySelector('.text')?.textContent ?? 'an earlier message';
    return make('blockquote', 'quote', quoted);
  }

  /** Buttons that are there for keyboard and pointer, and seen where one of them is. */
  #menu(item) {
    const menu = make('span', 'menu');
    const seq = () => Number(item.dataset.seq);
    for (const emoji of EMOJIS) {
      menu.append(makeButton('', `React with ${emoji}`, emoji, () => this.#toggle(item, emoji)));
    }
    menu.append(makeButton('', 'Reply', '↩', () => this.#actions.reply(item)));
    if (item.classList.contains('mine')) {
      menu.append(makeButton('', 'Edit', '✎', () => this.#actions.edit(item)));
      menu.append(makeButton('', 'Delete', '🗑', () => this.#actions.delete(seq())));
    }
    return menu;
  }

  #place(item, seq, time) {
    item.dataset.seq = seq;
    this.#bySeq.set(seq, item);
    const moment = new Date(time);
    const clock = item.querySelector('time');
    clock.dateTime = moment.toISOString();
    clock.title = moment.toLocaleString();
    clock.textContent = moment.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    let next = null;
    for (let before = $('log').lastElementChild; before; before = before.previousElementSibling) {
      if (before === item) continue;
      if (before.dataset.seq && Number(before.dataset.seq) < seq) break;
      next = before;
    }
    if (item.parentNode !== $('log') || item.nextElementSibling !== next) $('log').insertBefore(item, next);
  }

  // ---- its present state

  #state(item, { body, edited, deleted, reactions }) {
    if (edited) this.#edited(item, body);
    if (deleted) this.#deleted(item);
    for (const { emoji, users } of reactions ?? []) {
      for (const user of users) this.#reacted(item, emoji, user, true);
    }
  }

  #change(kind, item, { body, sender }) {
    if (!item) return;
    if (kind === 'edit') this.#edited(item, body.body);
    if (kind === 'delete') this.#deleted(item);
    if (kind === 'reaction') this.#reacted(item, body.emoji, sender, body.on);
  }

  #edited(item, body) {
    if (item.dataset.deleted) return;
    item.querySelector('.text').textContent = textOf(body);
    item.querySelector('.edited').textContent = 'edited';
  }

  #deleted(item) {
    item.dataset.deleted = 'true';
    item.querySelector('.text').textContent = 'Message deleted';
    for (const part of item.querySelectorAll('.menu, .reactions, .edited, .quote')) part.remove();
  }

  #reacted(item, emoji, user, isOn) {
    const reactions = item.querySelector('.reactions');
    if (!reactions) return;
    let chip = [...reactions.children].find((chip) => chip.dataset.emoji === emoji);
    if (!chip && !isOn) return;
    if (!chip) {
      chip = makeButton('reaction', '', '', () => this.#toggle(item, emoji));
      chip.dataset.emoji = emoji;
      chip.users = new Set();
      reactions.append(chip);
    }
    if (isOn) chip.users.add(user);
    else chip.users.delete(user);
    if (!chip.users.size) return chip.remove();
    chip.textContent = `${emoji} ${chip.users.size}`;
    chip.title = [...chip.users].join(', ');
    chip.setAttribute('aria-label', `${emoji} by ${chip.title}`);
    chip.setAttribute('aria-pressed', String(chip.users.has(this.#user)));
  }

  #toggle(item, emoji) {
    const chip = [...item.querySelectorAll('.reaction')].find((chip) => chip.dataset.emoji === emoji);
    this.#actions.react(Number(item.dataset.seq), emoji, !chip?.users.has(this.#user));
  }

  // ---- marks and typists

  #markAllMine() {
    for (const item of $('log').querySelectorAll('li.mine[data-seq]')) this.#markMine(item);
  }

  /** Notices and receipts may overtake the acknowledgement. */
  #markMine(item) {
    const seq = Number(item.dataset.seq);
    const readers = [...this.#reads].filter(([, read]) => read >= seq).map(([user]) => user);
    if (readers.length) this.#mark(item, 'read', readers.join(', '));
    else this.#mark(item, seq <= this.#storedUpto ? 'stored' : 'accepted');
  }

  #mark(item, state, detail = '') {
    const [sign, meaning] = MARKS[state];
    item.dataset.state = state;
    const mark = item.querySelector('.mark');
    mark.textContent = sign;
    mark.title = detail ? `${meaning}${state === 'read' ? ' by' : ':'} ${detail}` : meaning;
    mark.setAttribute('aria-label', mark.title);
  }

  #typing(user, isTyping) {
    clearTimeout(this.#typists.get(user));
    this.#typists.delete(user);
    if (isTyping) this.#typists.set(user, setTimeout(() => this.#typing(user, false), TYPING_MS_MAX));
    this.#showTypists();
  }

  #showTypists() {
    const users = [...this.#typists.keys()];
    const who = users.length > 2 ? `${users.length} people are` : `${users.join(' and ')} ${users.length > 1 ? 'are' : 'is'}`;
    $('typing').hidden = users.length === 0;
    $('typists').textContent = users.length ? `${who} typing` : '';
  }

  #settle(shouldFollow) {
    $('empty').hidden = $('log').childElementCount > 0;
    if (shouldFollow) $('scroll').scrollTop = $('scroll').scrollHeight;
    else $('newer').hidden = isScrolledDown();
  }
}

function textOf(body) {
  return typeof body?.text === 'string' ? body.text : JSON.stringify(body);
}

export function isScrolledDown() {
  const { scrollHeight, scrollTop, clientHeight } = $('scroll');
  return scrollHeight - scrollTop - clientHeight < END_PX;
}
