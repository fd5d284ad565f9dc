// The chat page: what is shown, and the forms. The conversation itself is in chat_client.js.

import { Conversation, Token, directConversation } from './chat_client.js';

const MARKS = {
  sending: ['…', 'Sending: not yet accepted'],
  accepted: ['✓', 'Accepted: it cannot be lost by the failure of one server'],
  stored: ['✓✓', 'Stored: it is in the database'],
  failed: ['✗', 'Refused'],
};
/** As near to the end, in pixels, as counts for being at the end. */
const END_PX = 40;

const $ = (id) => document.getElementById(id);

// ---- the view ------------------------------------------------------------------------------------------------------

/** Shows messages in the order of their seq, each id once; what is not accepted yet stands at the end. */
class View {
  #user;
  #items = new Map();
  #mine = new Map();
  #storedUpto = 0;

  constructor(user) {
    this.#user = user;
  }

  state(name) {
    document.body.dataset.connection = name;
    $('state').textContent = { connecting: 'Connecting…', connected: 'Connected', reconnecting: 'Reconnecting…' }[name];
    $('earlier').disabled = name !== 'connected';
  }

  ended(problem, needsToken) {
    document.body.dataset.connection = 'ended';
    $('state').textContent = '';
    $('where').textContent = '';
    $('chat').hidden = true;
    $('leave').hidden = true;
    $('start').hidden = false;
    $('problem').textContent = problem;
    $('problem').hidden = false;
    $('token-field').hidden = !needsToken;
    (needsToken ? $('token') : $('user')).focus();
  }

  sending({ client_id, text }) {
    const item = this.#item({ sender: this.#user, body: { text } });
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
    this.#markAccepted(item);
  }

  failed(clientId, reason) {
    this.#mark(this.#mine.get(clientId), 'failed', reason);
  }

  stored(upto) {
    this.#storedUpto = Math.max(this.#storedUpto, upto);
    for (const item of this.#items.values()) {
      if (item.dataset.state === 'accepted' && Number(item.dataset.seq) <= upto) this.#mark(item, 'stored');
    }
  }

  show(messages) {
    const isAtEnd = isScrolledDown();
    const heightBelow = $('scroll').scrollHeight - $('scroll').scrollTop;
    $('scroll').setAttribute('aria-busy', String(messages.length > 1));
    const first = this.first();
    for (const message of messages) this.#showOne(message);
    $('scroll').setAttribute('aria-busy', 'false');
    const isEarlier = first && this.first() !== first;
    if (isEarlier) $('scroll').scrollTop = $('scroll').scrollHeight - heightBelow;
    else this.#settle(isAtEnd);
    $('earlier').hidden = !(Number(this.first()?.dataset.prev) > 0);
  }

  first() {
    return $('log').querySelector('[data-seq]');
  }

  #showOne(message) {
    const { id, seq, time, sender, client_id, kind } = message;
    if (this.#items.has(id)) {
      this.#items.get(id).dataset.prev = message.prev;
      return;
    }
    if (kind === 'void') return;
    const isMine = sender === this.#user;
    const item = (isMine && this.#mine.get(client_id)) || this.#item(message);
    this.#items.set(id, item);
    this.#place(item, seq, time);
    item.dataset.prev = message.prev;
    if (isMine) this.#markAccepted(item);
  }

  #item({ sender, body }) {
    const item = document.createElement('li');
    const add = (tag, name, text = '') => {
      const element = document.createElement(tag);
      element.className = name;
      element.textContent = text;
      return element;
    };
    const facts = add('span', 'facts');
    facts.append(add('time', 'time'));
    if (sender === this.#user) {
      item.className = 'mine';
      const mark = add('span', 'mark');
      mark.setAttribute('role', 'img');
      facts.append(mark);
    }
    const text = typeof body?.text === 'string' ? body.text : JSON.stringify(body);
    item.append(add('span', `sender${item.className ? ' unseen' : ''}`, sender), add('p', 'text', text), facts);
    return item;
  }

  #place(item, seq, time) {
    item.dataset.seq = seq;
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

  /** The notice may have overtaken the acknowledgement. */
  #markAccepted(item) {
    this.#mark(item, Number(item.dataset.seq) <= this.#storedUpto ? 'stored' : 'accepted');
  }

  #mark(item, state, detail = '') {
    const [sign, meaning] = MARKS[state];
    item.dataset.state = state;
    const mark = item.querySelector('.mark');
    mark.textContent = sign;
    mark.title = detail ? `${meaning}: ${detail}` : meaning;
    mark.setAttribute('aria-label', mark.title);
  }

  #settle(shouldFollow) {
    $('empty').hidden = $('log').childElementCount > 0;
    if (shouldFollow) $('scroll').scrollTop = $('scroll').scrollHeight;
    else $('newer').hidden = isScrolledDown();
  }
}

function isScrolledDown() {
  const { scrollHeight, scrollTop, clientHeight } = $('scroll');
  return scrollHeight - scrollTop - clientHeight < END_PX;
}

// ---- the page ------------------------------------------------------------------------------------------------------

function otherUser(user, conversation) {
  const pair = conversation.startsWith('conv_') ? conversation.slice('conv_'.length) : '';
  if (pair.startsWith(`${user}_`)) return pair.slice(user.length + 1);
  return pair.endsWith(`_${user}`) ? pair.slice(0, -user.length - 1) : '';
}

function open(user, conversation, pastedToken) {
  const other = otherUser(user, conversation);
  const guest = other || 'someone-else';
  $('where').textContent = `${user} ${other ? `with ${other}` : `in ${conversation}`}`;
  document.title = `${other || conversation} · Starling`;
  $('invite').href = `/chat?${new URLSearchParams({ user: guest, conversation })}`;
  $('invite').textContent = other ? `Open another tab as ${other}` : 'Open another tab as another member';
  for (const [id, isHidden] of [['start', true], ['problem', true], ['chat', false], ['leave', false]]) {
    $(id).hidden = isHidden;
  }
  $('log').replaceChildren();
  const view = new View(user);
  const chat = new Conversation(user, conversation, new Token(user, pastedToken), view);
  $('compose').onsubmit = (event) => {
    event.preventDefault();
    const text = $('text').value.trim();
    if (text) chat.send(text);
    $('text').value = '';
    $('text').focus();
  };
  $('earlier').onclick = async () => {
    try {
      view.show(await chat.earlier(Number(view.first().dataset.seq)));
    } catch {
      // The button stays; the connection's state says why nothing came.
    }
  };
  $('text').focus();
}

$('text').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('compose').requestSubmit();
});
$('scroll').addEventListener('scroll', () => isScrolledDown() && ($('newer').hidden = true));
$('newer').addEventListener('click', () => ($('scroll').scrollTop = $('scroll').scrollHeight));

$('start').addEventListener('submit', (event) => {
  event.preventDefault();
  const { user, other, conversation, token } = Object.fromEntries(new FormData($('start')));
  const id = other && other !== user ? directConversation(user, other) : conversation.trim();
  if (!id) {
    $('problem').textContent = 'Say with whom: the name of someone else, or the id of a conversation.';
    $('problem').hidden = false;
    return $('other').focus();
  }
  history.replaceState(null, '', `?${new URLSearchParams({ user, conversation: id })}`);
  open(user, id, token.trim());
});

const asked = new URLSearchParams(location.search);
$('user').value = asked.get('user') ?? '';
$('conversation').value = asked.get('conversation') ?? '';
$('conversation').closest('details').open = Boolean(asked.get('conversation'));
if ($('user').value && asked.get('conversation')) open($('user').value, asked.get('conversation'), '');
else $('user').focus();
