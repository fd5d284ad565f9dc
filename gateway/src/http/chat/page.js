// The chat page: its forms, and what belongs together. The session, the conversation and the views are beside this file.

import { Conversation, directConversation } from './conversation.js';
import { List } from './list.js';
import { Messages, isScrolledDown } from './messages.js';
import { Session, Token } from './session.js';

const STATES = { connecting: 'Connecting…', connected: 'Connected', reconnecting: 'Reconnecting…' };

const $ = (id) => document.getElementById(id);

/** One user's page, from the first connection to the end. */
class Page {
  #user;
  #session;
  #list;
  #chat = null;
  #messages = null;
  #edited = null;
  #reply = null;
  #isConnected = false;

  constructor(user, token) {
    this.#user = user;
    this.#session = new Session(user, token, this);
    this.#list = new List(this.#session, (id) => this.open(id));
    this.#list.onPresence = () => this.#showHead();
    for (const [id, isHidden] of [['start', true], ['problem', true], ['app', false], ['leave', false]]) $(id).hidden = isHidden;
    $('me').textContent = user;
    this.#bind();
    this.#session.start();
  }

  // ---- what the session says

  state(name) {
    this.#isConnected = name === 'connected';
    document.body.dataset.connection = name;
    $('state').textContent = STATES[name];
    $('earlier').disabled = !this.#isConnected;
    if (!this.#isConnected) this.#chat?.lost();
  }

  async connected() {
    await this.#list.load();
    await this.#chat?.join();
  }

  push({ channel = '', ...push }) {
    if (push.message?.data?.type === 'stored') {
      if (push.message.data.conversation === this.#chat?.id) this.#messages.stored(push.message.data.upto);
    } else if (channel === `user:${this.#user}`) {
      this.#list.take(push);
    } else if (channel.startsWith('presence:') && push.pub) {
      this.#list.takeOnline(push.pub.data);
    } else if (channel === this.#chat?.id) {
      this.#chat.take(push);
    }
  }

  ended(problem, needsToken) {
    document.body.dataset.connection = 'ended';
    $('state').textContent = '';
    $('app').hidden = true;
    $('leave').hidden = true;
    $('start').hidden = false;
    $('problem').textContent = problem;
    $('problem').hidden = false;
    $('token-field').hidden = !needsToken;
    (needsToken ? $('token') : $('user')).focus();
  }

  // ---- what the user does

  open(id) {
    if (this.#chat?.id === id) return this.#showChat(true);
    this.#chat?.close();
    history.replaceState(null, '', `?${new URLSearchParams({ user: this.#user, conversation: id })}`);
    this.#cancel();
    $('refused').hidden = true;
    $('compose').hidden = false;
    this.#messages = new Messages(this.#user, {
      seen: (seq) => this.#chat.read(seq),
      react: (seq, emoji, isOn) => this.#try(this.#chat.react(seq, emoji, isOn)),
      delete: (seq) => confirm('Delete this message for everyone?') && this.#try(this.#chat.delete(seq)),
      edit: (item) => this.#edit(item),
      reply: (item) => this.#replyTo(item),
    });
    const messages = this.#messages;
    const chat = new Conversation(this.#session, id, {
      sending: (message) => messages.sending(message),
      accepted: (clientId, sent) => messages.accepted(clientId, sent),
      failed: (clientId, reason) => messages.failed(clientId, reason),
      event: (name, data) => chat === this.#chat && messages.event(name, data),
      show: (shown, how) => this.#show(chat, messages, shown, how),
      refused: (text) => this.#refused(chat, text),
    });
    this.#chat = chat;
    this.#list.opened(id);
    this.#showChat(true);
    if (this.#isConnected) chat.join().catch(() => this.#session.interrupt('cannot join'));
    $('text').focus();
  }

  #show(chat, messages, shown, how) {
    if (chat !== this.#chat) return;
    messages.show(shown, how);
    const isSaid = ({ kind }) => !['void', 'edit', 'delete', 'reaction', 'members'].includes(kind);
    const last = shown.filter(isSaid).at(-1);
    if (how.isLive && last) this.#list.said(chat.id, last);
    this.#showHead();
  }

  #refused(chat, text) {
    if (chat !== this.#chat) return;
    $('refused').textContent = text;
    $('refused').hidden = false;
    $('compose').hidden = true;
  }

  #showHead() {
    if (!this.#chat) return;
    const { id } = this.#chat;
    const other = otherUser(this.#user, id);
    const title = this.#list.titleOf(id) ?? (other || id);
    $('where').textContent = title;
    $('presence').textContent = this.#list.presenceOf(id);
    document.title = `${title} · Starling`;
    const guest = other || 'someone-else';
    $('invite').href = `/chat?${new URLSearchParams({ user: guest, conversation: id })}`;
    $('invite').textContent = other ? `Open another tab as ${other}` : 'Open another tab as another member';
  }

  /** A phone shows either the list or the conversation. */
  #showChat(isShown) {
    document.body.dataset.shows = isShown ? 'chat' : 'list';
    $('chat').hidden = !this.#chat;
    $('nothing').hidden = Boolean(this.#chat);
    this.#showHead();
  }

  #edit(item) {
    this.#cancel();
    this.#edited = item;
    $('context').textContent = 'Editing your message';
    $('context-bar').hidden = false;
    $('text').value = item.querySelector('.text').textContent;
    $('text').focus();
  }

  #replyTo(item) {
    this.#cancel();
    this.#reply = item;
    $('context').textContent = `Reply to: ${item.querySelector('.text').textContent}`;
    $('context-bar').hidden = false;
    $('text').focus();
  }

  #cancel() {
    if (this.#edited) $('text').value = '';
    this.#edited = null;
    this.#reply = null;
    $('context-bar').hidden = true;
  }

  #submit() {
    const text = $('text').value.trim();
    if (!text) return;
    if (this.#edited) this.#try(this.#chat.edit(Number(this.#edited.dataset.seq), text));
    else this.#chat.send(text, this.#reply ? Number(this.#reply.dataset.seq) : undefined);
    $('text').value = '';
    this.#cancel();
    $('text').focus();
  }

  async #try(answer) {
    try {
      await answer;
      $('trouble').hidden = true;
    } catch (error) {
      $('trouble').textContent = `That did not work: ${error.message}`;
      $('trouble').hidden = false;
    }
  }

  async #create({ people, name }) {
    const users = people.split(/[\s,]+/).filter((user) => user && user !== this.#user);
    if (users.length === 0) return;
    if (users.length === 1 && !name) return this.open(directConversation(this.#user, users[0]));
    const made = await this.#session.rpc('create_conversation', { kind: 'group', name: name || undefined, members: users });
    await this.#list.load();
    this.open(made.id);
  }

  #bind() {
    $('compose').onsubmit = (event) => (event.preventDefault(), this.#submit());
    $('text').onkeydown = (event) => this.#key(event);
    $('text').oninput = () => this.#chat?.typing($('text').value !== '' && !this.#edited);
    $('cancel').onclick = () => this.#cancel();
    $('back').onclick = () => this.#showChat(false);
    $('scroll').onscroll = () => {
      if (!isScrolledDown()) return;
      $('newer').hidden = true;
      this.#messages?.seen();
    };
    $('newer').onclick = () => ($('scroll').scrollTop = $('scroll').scrollHeight);
    document.onvisibilitychange = () => this.#messages?.seen();
    $('earlier').onclick = async () => {
      try {
        const page = await this.#chat.earlier(this.#messages.firstSeq);
        this.#messages.show(page.reverse(), { isLive: false });
      } catch {
        // The button stays; the connection's state says why nothing came.
      }
    };
    $('new').onsubmit = (event) => {
      event.preventDefault();
      this.#try(this.#create(Object.fromEntries(new FormData($('new')))));
      $('new').reset();
      $('new').closest('details').open = false;
    };
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === 'Escape') return this.#cancel();
    if (event.key === 'ArrowUp' && $('text').value === '') {
      const last = this.#messages.lastOfMine();
      if (last) event.preventDefault(), this.#edit(last);
    }
    if (event.key !== 'Enter' || event.shiftKey) return;
    event.preventDefault();
    $('compose').requestSubmit();
  }
}

function otherUser(user, conversation) {
  const pair = conversation.startsWith('conv_') ? conversation.slice('conv_'.length) : '';
  if (pair.startsWith(`${user}_`)) return pair.slice(user.length + 1);
  return pair.endsWith(`_${user}`) ? pair.slice(0, -user.length - 1) : '';
}

function start(user, conversation, pastedToken) {
  const page = new Page(user, new Token(user, pastedToken));
  document.body.dataset.shows = 'list';
  if (conversation) page.open(conversation);
}

$('start').addEventListener('submit', (event) => {
  event.preventDefault();
  const { user, other, conversation, token } = Object.fromEntries(new FormData($('start')));
  const id = other && other !== user ? directConversation(user, other) : conversation.trim();
  history.replaceState(null, '', `?${new URLSearchParams(id ? { user, conversation: id } : { user })}`);
  start(user, id, token.trim());
});

const asked = new URLSearchParams(location.search);
$('user').value = asked.get('user') ?? '';
$('conversation').value = asked.get('conversation') ?? '';
$('conversation').closest('details').open = Boolean(asked.get('conversation'));
if ($('user').value) start($('user').value, asked.get('conversation') ?? '', '');
else $('user').focus();
