//! Replies and pushes to JSON: one object each, appended to a buffer, without a newline in it or after it.
//!
//! Ids, kinds and numbers are written as they are, since none of them can need escaping; bodies are copied.

use std::io::Write as _;

use shared::domain::{
    Body, Catchup, ClientInfo, Connected, ConnectionId, ConversationId, Disconnect, Event, HistoryPage,
    Message, MessageKind, Refusal, Reply, Sent, Stored, Subscribed,
};

use super::{chat, packet::Tag};

/// How often the server pings, in seconds, as the connect reply promises.
pub const PING_SECONDS: u32 = 25;

/// What an SSE or HTTP stream is called, so that commands sent beside it find it.
#[derive(Clone, Copy)]
pub struct StreamSession<'a> {
    /// Unguessable: whoever knows it may speak for the client.
    pub session: &'a str,
    /// The process that holds the stream.
    pub node: &'a str,
}

/// Why the server ends one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubscribe {
    /// The client may no longer read the conversation; final.
    Removed,
    /// Something was missed that this node cannot repair; the client subscribes again and recovers.
    InsufficientState,
}

impl Unsubscribe {
    /// The code: below 2500 is final.
    pub fn code(self) -> u16 {
        match self {
            Self::Removed => 2000,
            Self::InsufficientState => 2500,
        }
    }

    /// The reason, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Removed => "server unsubscribe",
            Self::InsufficientState => "insufficient state",
        }
    }
}

/// How a refusal is spelled here: its code, and whether to try again later.
pub fn error_code(refusal: Refusal) -> (u16, bool) {
    match refusal {
        Refusal::Unavailable => (100, true),
        Refusal::Unauthorized => (101, false),
        Refusal::NotFound => (102, false),
        Refusal::Forbidden => (103, false),
        Refusal::UnknownMethod => (104, false),
        Refusal::AlreadySubscribed => (105, false),
        Refusal::LimitExceeded => (106, false),
        Refusal::Invalid => (107, false),
        Refusal::NotSupported => (108, false),
        Refusal::TokenExpired => (109, false),
        Refusal::RateLimited => (111, true),
        Refusal::UnrecoverablePosition => (112, false),
        Refusal::TooLarge => (413, false),
        Refusal::Muted => (423, false),
        Refusal::BacklogFull => (503, true),
    }
}

/// Answers one command; nothing is appended when it wants no answer.
///
/// The result stands under its key, which the SDK dereferences even if the result is empty, or inside that of `rpc`.
/// `stream` is what the answer to `connect` says on SSE and HTTP streams.
pub fn reply(tag: Tag, reply: &Reply, stream: Option<StreamSession<'_>>, out: &mut Vec<u8>) {
    let Some(id) = tag.id else { return };
    let is_wrapped = tag.is_rpc && !matches!(reply, Reply::Refused(_));
    text(r#"{"id":"#, out);
    number(id.get().into(), out);
    text(if is_wrapped { r#","rpc":{"data":"# } else { key(reply) }, out);
    match reply {
        Reply::Connected(session) => connected(session, stream, out),
        Reply::Refreshed { client, ttl } => refreshed(*client, *ttl, out),
        Reply::Subscribed(subscription) => subscribed(subscription, out),
        Reply::Sent(accepted) if is_wrapped => sent(accepted, out),
        // A publish has no room for more.
        Reply::Unsubscribed | Reply::Published | Reply::Sent(_) | Reply::Done => text("{}", out),
        Reply::History(page) if is_wrapped => chat::messages(page, out),
        Reply::History(page) => history(page, out),
        Reply::Presence(clients) => presence(clients, out),
        Reply::PresenceStats { clients, users } => presence_stats(*clients, *users, out),
        Reply::UserPresence(users) => listed("users", users, out),
        Reply::Connections(connections) => listed("connections", connections, out),
        Reply::Chat(answer) => chat::reply(answer, out),
        Reply::Refused(refusal) => error(*refusal, out),
    }
    text(if is_wrapped { "}}" } else { "}" }, out);
}

/// One thing that happened in a conversation; nothing is appended for a void message, which holds only the chain together.
pub fn push(conversation: &ConversationId, event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Message(message) if message.kind == MessageKind::VOID => {}
        Event::Message(message) => {
            push_start(conversation, "pub", out);
            publication(message, out);
            text("}}", out);
        }
        Event::Join(info) => presence_push(conversation, "join", info, out),
        Event::Leave(info) => presence_push(conversation, "leave", info, out),
        other => named_push(conversation, other, out),
    }
}

/// Tells a sender that its messages are in the store.
pub fn stored_push(stored: &Stored, out: &mut Vec<u8>) {
    text(r#"{"push":{"message":{"data":{"type":"stored","conversation":""#, out);
    text(stored.conversation.as_str(), out);
    text(r#"","upto":"#, out);
    number(stored.upto.0, out);
    text("}}}}", out);
}

/// Ends one subscription.
pub fn unsubscribe_push(conversation: &ConversationId, why: Unsubscribe, out: &mut Vec<u8>) {
    push_start(conversation, "unsubscribe", out);
    code_and_reason(why.code(), why.reason(), out);
    text("}}", out);
}

/// Ends the connection where there is no close frame to say it.
pub fn disconnect_push(why: Disconnect, out: &mut Vec<u8>) {
    // 1009 means "final" in a close frame alone; said here it would make the client come back and fail again.
    let code = if why == Disconnect::TooLarge { Disconnect::BadRequest.code() } else { why.code() };
    text(r#"{"push":{"disconnect":"#, out);
    code_and_reason(code, why.reason(), out);
    text("}}", out);
}

fn key(reply: &Reply) -> &'static str {
    match reply {
        Reply::Connected(_) => r#","connect":"#,
        Reply::Refreshed { .. } => r#","refresh":"#,
        Reply::Subscribed(_) => r#","subscribe":"#,
        // What only `rpc` can ask has its place there.
        Reply::UserPresence(_) | Reply::Connections(_) | Reply::Chat(_) | Reply::Done => r#","rpc":"#,
        Reply::Unsubscribed => r#","unsubscribe":"#,
        Reply::Published | Reply::Sent(_) => r#","publish":"#,
        Reply::History(_) => r#","history":"#,
        Reply::Presence(_) => r#","presence":"#,
        Reply::PresenceStats { .. } => r#","presence_stats":"#,
        Reply::Refused(_) => r#","error":"#,
    }
}

fn error(refusal: Refusal, out: &mut Vec<u8>) {
    let (code, is_temporary) = error_code(refusal);
    write!(out, r#"{{"code":{code},"message":"{refusal}""#).expect(VEC);
    text(if is_temporary { r#","temporary":true}"# } else { "}" }, out);
}

fn connected(session: &Connected, stream: Option<StreamSession<'_>>, out: &mut Vec<u8>) {
    text("{", out);
    client_and_version(session.client, session.ttl, out);
    write!(out, r#","ping":{PING_SECONDS},"pong":true"#).expect(VEC);
    if let Some(stream) = stream {
        text(r#","session":"#, out);
        quoted(stream.session, out);
        text(r#","node":"#, out);
        quoted(stream.node, out);
    }
    if !session.subscriptions.is_empty() {
        text(r#","subs":"#, out);
        list(*b"{}", &session.subscriptions, out, |(conversation, subscription), out| {
            quoted(conversation.as_str(), out);
            text(":", out);
            subscribed(subscription, out);
        });
    }
    text("}", out);
}

fn refreshed(client: ConnectionId, ttl: Option<u32>, out: &mut Vec<u8>) {
    text("{", out);
    client_and_version(client, ttl, out);
    text("}", out);
}

/// Without a ttl the client is not asked to refresh; a ttl of 0 would be read as absent.
fn client_and_version(client: ConnectionId, ttl: Option<u32>, out: &mut Vec<u8>) {
    write!(out, r#""client":"{client}","version":"{}""#, env!("CARGO_PKG_VERSION")).expect(VEC);
    if let Some(ttl) = ttl {
        write!(out, r#","expires":true,"ttl":{}"#, ttl.max(1)).expect(VEC);
    }
}

fn subscribed(subscription: &Subscribed, out: &mut Vec<u8>) {
    text(r#"{"recoverable":true,"positioned":true,"epoch":"#, out);
    quoted(&subscription.epoch, out);
    if subscription.seq.0 > 0 {
        text(r#","offset":"#, out);
        number(subscription.seq.0, out);
    }
    match &subscription.catchup {
        Catchup::NotAsked => {}
        Catchup::Limited => text(r#","was_recovering":true"#, out),
        Catchup::Complete(missed) => {
            text(r#","was_recovering":true,"recovered":true"#, out);
            if missed.iter().any(is_shown) {
                text(r#","publications":"#, out);
                publications(missed, out);
            }
        }
    }
    text("}", out);
}

fn is_shown(message: &Message) -> bool {
    message.kind != MessageKind::VOID
}

fn publications(all: &[Message], out: &mut Vec<u8>) {
    list(*b"[]", all.iter().filter(|message| is_shown(message)), out, publication);
}

/// A message as the SDK knows it; what has no field of its own goes into `tags`.
fn publication(message: &Message, out: &mut Vec<u8>) {
    text(r#"{"data":"#, out);
    json(&message.body, out);
    text(r#","offset":"#, out);
    number(message.seq.0, out);
    text(r#","info":{"user":""#, out);
    text(message.sender.as_str(), out);
    text(r#"","client":""},"time":"#, out);
    number(message.time, out);
    text(r#","tags":{"id":""#, out);
    message_id(message, out);
    text(r#"","kind":""#, out);
    text(message.kind.as_str(), out);
    text(r#"","prev":""#, out);
    number(message.prev.0, out);
    client_id(message, out);
    if let Some(target) = message.reply_to {
        text(r#"","reply_to":""#, out);
        number(target.0, out);
    }
    text(r#""}}"#, out);
}

fn message_id(message: &Message, out: &mut Vec<u8>) {
    let mut digits = uuid::Uuid::encode_buffer();
    text(message.id.0.hyphenated().encode_lower(&mut digits), out);
}

/// Continues an object whose last string is still open, and leaves it so.
fn client_id(message: &Message, out: &mut Vec<u8>) {
    if let Some(id) = &message.client_id {
        text(r#"","client_id":""#, out);
        text(id.as_str(), out);
    }
}

fn history(page: &HistoryPage, out: &mut Vec<u8>) {
    text(r#"{"publications":"#, out);
    publications(&page.messages, out);
    text(r#","epoch":"#, out);
    quoted(&page.epoch, out);
    text(r#","offset":"#, out);
    number(page.top.0, out);
    text("}", out);
}

fn sent(accepted: &Sent, out: &mut Vec<u8>) {
    write!(out, r#"{{"id":"{}","seq":{},"time":{}}}"#, accepted.id, accepted.seq, accepted.time).expect(VEC);
}

fn presence(clients: &[ClientInfo], out: &mut Vec<u8>) {
    text(r#"{"presence":"#, out);
    list(*b"{}", clients, out, |info, out| {
        write!(out, r#""{}":"#, info.client).expect(VEC);
        client_info(info, out);
    });
    text("}", out);
}

fn presence_stats(clients: u32, users: u32, out: &mut Vec<u8>) {
    write!(out, r#"{{"num_clients":{clients},"num_users":{users}}}"#).expect(VEC);
}

fn client_info(info: &ClientInfo, out: &mut Vec<u8>) {
    write!(out, r#"{{"user":"{}","client":"{}""#, info.user, info.client).expect(VEC);
    if let Some(claim) = &info.info {
        text(r#","conn_info":"#, out);
        json(claim, out);
    }
    text("}", out);
}

fn presence_push(conversation: &ConversationId, key: &str, info: &ClientInfo, out: &mut Vec<u8>) {
    push_start(conversation, key, out);
    text(r#"{"info":"#, out);
    client_info(info, out);
    text("}}}", out);
}

/// An event that is kept nowhere: a publication without a place.
fn named_push(conversation: &ConversationId, event: &Event, out: &mut Vec<u8>) {
    let Some((name, data)) = event.data() else { return };
    push_start(conversation, "pub", out);
    text(r#"{"data":"#, out);
    json(&Body::from_json(data), out);
    text(r#","tags":{"event":""#, out);
    text(name, out);
    text(r#""}}}}"#, out);
}

/// An object with one list of plain data.
fn listed<T: serde::Serialize>(name: &str, items: &[T], out: &mut Vec<u8>) {
    write!(out, r#"{{"{name}":"#).expect(VEC);
    serde_json::to_writer(&mut *out, items).expect("what is listed is plain data");
    text("}", out);
}

fn push_start(conversation: &ConversationId, key: &str, out: &mut Vec<u8>) {
    text(r#"{"push":{"channel":""#, out);
    text(conversation.as_str(), out);
    text(r#"",""#, out);
    text(key, out);
    text(r#"":"#, out);
}

fn code_and_reason(code: u16, reason: &str, out: &mut Vec<u8>) {
    write!(out, r#"{{"code":{code},"reason":"{reason}"}}"#).expect(VEC);
}

const VEC: &str = "a Vec takes whatever is written to it";

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

fn number(number: u64, out: &mut Vec<u8>) {
    write!(out, "{number}").expect(VEC);
}

/// Text that is not known to be free of what JSON escapes.
fn quoted(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text can be written as JSON to a Vec");
}

/// Opaque JSON; a raw newline can only stand between its tokens, where a space means the same and keeps it on one line.
fn json(body: &Body, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(body.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// `[a,b]` or `{a,b}`.
fn list<T>(
    brackets: [u8; 2],
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut item: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for (at, one) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        item(one, out);
    }
    out.push(brackets[1]);
}
