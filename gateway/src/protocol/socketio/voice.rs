//! What a namespace of the chat says: events and answers, in the names that its deployment has for them.

use std::io::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use shared::domain::{
    Catchup, ClientInfo, ConversationId, ConversationKind, Disconnect, Event, Message, MessageKind, Online,
    Receipt, Refusal, Sent, Seq, Signal, Subscribed, Typing,
};

use super::{
    binary,
    encode::{Head, PacketType, packet},
    request::Offset,
    spelling::{Say, Spelling},
};
use crate::{
    dialect::Dialect,
    frame::encode::{self, FrameWriter},
};

/// The first of the numbers that dialects of Socket.IO have; one for each namespace.
const DIALECT_FIRST: usize = 8;
/// Most namespaces that one process can have for chat.
pub const CHAT_NAMESPACES_MAX: usize = crate::dialect::DIALECTS_MAX - DIALECT_FIRST;

const WRITES: &str = "a buffer takes whatever is written to it";

/// How one namespace speaks.
#[derive(Debug)]
pub struct Voice {
    /// The namespace.
    pub namespace: String,
    /// What events are called.
    pub spelling: Spelling,
    /// Whether clients can have missed events restored, for which each message carries its place.
    pub recovers: bool,
}

impl Voice {
    /// A voice that is there as long as the process, and its dialect. `at` is which of the namespaces it is.
    pub fn lasting(self, at: usize) -> (&'static Self, &'static Dialect) {
        let voice: &'static Self = Box::leak(Box::new(self));
        let dialect = Dialect {
            name: "socketio",
            index: DIALECT_FIRST + at,
            batch: Box::leak(Box::new(|conversation: &ConversationId, events: &[Event]| {
                voice.batch(conversation, events)
            })),
            frame: Bytes::copy_from_slice,
            farewell,
            // Nobody asks for it: the answer to a message says as much as the log does.
            stored: |_| Bytes::new(),
            // No app knows how to ask again, so the connection ends and comes back.
            resubscribe: |_| Bytes::new(),
            removed: Box::leak(Box::new(|conversation: &ConversationId| voice.removed(conversation))),
            // Engine.IO pings by itself.
            ping: Bytes::new,
        };
        (voice, Box::leak(Box::new(dialect)))
    }

    /// Everything that was waiting for a conversation.
    pub fn batch(&self, conversation: &ConversationId, events: &[Event]) -> Bytes {
        let bodies: usize = events.iter().map(size_guess).sum();
        let mut frames = FrameWriter::with_capacity(bodies);
        for event in events {
            self.one(conversation, event, &mut frames);
        }
        frames.finish()
    }

    /// What was missed, oldest first.
    fn missed(&self, catchup: &Catchup, frames: &mut FrameWriter) {
        if let Catchup::Complete(messages) = catchup {
            for message in messages {
                self.message(message, frames);
            }
        }
    }

    /// What was missed, without a word about the joining itself.
    pub fn restored(&self, subscriptions: &[&Subscribed]) -> Bytes {
        let mut frames = FrameWriter::default();
        for subscribed in subscriptions {
            self.missed(&subscribed.catchup, &mut frames);
        }
        frames.finish()
    }

    /// The answer to a join, behind what was missed.
    pub fn joined(&self, id: Option<u64>, conversation: &ConversationId, subscribed: &Subscribed) -> Bytes {
        let mut frames = FrameWriter::default();
        self.missed(&subscribed.catchup, &mut frames);
        let is_limited = subscribed.catchup == Catchup::Limited;
        let seq = last_seq(subscribed);
        match id {
            Some(id) => {
                let limited = if is_limited { ",\"limited\":true" } else { "" };
                let json =
                    format!(r#"[{{"ok":true,"conversation_id":"{conversation}","seq":{seq}{limited}}}]"#);
                self.packet(PacketType::Ack, Some(id), &mut frames, |out| out.put_slice(json.as_bytes()));
            }
            None if is_limited => self.event(Say::CatchUpLimited, &mut frames, |out| {
                write!(out.writer(), r#"{{"conversation_id":"{conversation}","seq":{seq}}}"#).expect(WRITES);
            }),
            None => {}
        }
        frames.finish()
    }

    /// The connection has begun: a first place, so that a client that hears nothing for long can be restored, too.
    pub fn session(&self, offset: &Offset) -> Bytes {
        let mut frames = FrameWriter::default();
        self.packet(PacketType::Event, None, &mut frames, |out| {
            write!(out.writer(), r#"[{},"{offset}"]"#, self.spelling.say(Say::Session)).expect(WRITES);
        });
        frames.finish()
    }

    /// A message was accepted.
    pub fn sent(&self, id: u64, sent: &Sent) -> Bytes {
        let Sent { id: message, seq, time } = sent;
        self.ack(id, &format!(r#"{{"ok":true,"id":"{message}","seq":{seq},"time":{time}}}"#))
    }

    /// The answer to an event: a JSON object.
    pub fn ack(&self, id: u64, json: &str) -> Bytes {
        let mut frames = FrameWriter::default();
        self.packet(PacketType::Ack, Some(id), &mut frames, |out| {
            write!(out.writer(), "[{json}]").expect(WRITES);
        });
        frames.finish()
    }

    /// What was asked without wanting an answer is refused.
    pub fn refused(&self, event: &str, refusal: Refusal, conversation: Option<&ConversationId>) -> Bytes {
        let event = serde_json::to_string(event).expect("text can be written as JSON");
        let conversation = conversation.map(|id| format!(r#","conversation_id":"{id}""#)).unwrap_or_default();
        let code = refusal.code();
        let mut frames = FrameWriter::default();
        self.event(Say::Error, &mut frames, |out| {
            write!(out.writer(), r#"{{"event":{event},"error":"{code}"{conversation}}}"#).expect(WRITES);
        });
        frames.finish()
    }

    fn removed(&self, conversation: &ConversationId) -> Bytes {
        let mut frames = FrameWriter::default();
        self.event(Say::RemovedFromConversation, &mut frames, |out| {
            write!(out.writer(), r#"{{"conversation_id":"{conversation}"}}"#).expect(WRITES);
        });
        frames.finish()
    }

    fn one(&self, conversation: &ConversationId, event: &Event, frames: &mut FrameWriter) {
        match event {
            Event::Message(message) => self.message(message, frames),
            Event::Join(info) => self.presence(Say::UserJoined, conversation, info, frames),
            Event::Leave(info) => self.presence(Say::UserLeft, conversation, info, frames),
            Event::Typing(Typing { user, typing }) => self.event(Say::UserTyping, frames, |out| {
                let json =
                    format!(r#"{{"conversation_id":"{conversation}","user_id":"{user}","typing":{typing}}}"#);
                out.put_slice(json.as_bytes());
            }),
            Event::Receipt(receipt) => self.receipt(conversation, receipt, frames),
            Event::Online(online) => self.online(online, frames),
            Event::Signal(signal) => self.signal(conversation, signal, frames),
            Event::Occupancy(occupancy) => self.event(Say::Occupancy, frames, |out| {
                let (clients, users) = (occupancy.clients, occupancy.users);
                let json =
                    format!(r#"{{"conversation_id":"{conversation}","clients":{clients},"users":{users}}}"#);
                out.put_slice(json.as_bytes());
            }),
            Event::Unread(unread) => self.event(Say::Unread, frames, |out| {
                let (id, count, seq) = (&unread.conversation, unread.unread, unread.seq);
                let json = format!(r#"{{"conversation_id":"{id}","unread":{count},"seq":{seq}}}"#);
                out.put_slice(json.as_bytes());
            }),
        }
    }

    fn message(&self, message: &Message, frames: &mut FrameWriter) {
        if message.kind == MessageKind::VOID {
            return;
        }
        let is_own_room =
            matches!(message.conversation.kind(), ConversationKind::Personal(_) | ConversationKind::Role(_));
        let say = match message.kind.as_str() {
            _ if is_own_room => Say::Notification,
            "edit" => Say::MessageEdited,
            "delete" => Say::MessageDeleted,
            "reaction" => Say::MessageReaction,
            "members" | "conversation" => Say::ConversationChanged,
            _ => Say::NewMessage,
        };
        let (body, attachments) = binary::extract(message.body.as_bytes());
        self.with_bytes(&attachments, frames, |out| {
            let mut text = out.writer();
            let (name, Message { id, seq, time, kind, .. }) = (self.spelling.say(say), message);
            write!(text, r#"[{name},{{"id":"{id}","seq":{seq}"#).expect(WRITES);
            if !is_own_room {
                let (conversation, sender) = (&message.conversation, &message.sender);
                write!(text, r#","conversation_id":"{conversation}","sender_id":"{sender}""#).expect(WRITES);
            }
            write!(text, r#","time":{time},"kind":"{}""#, kind.as_str()).expect(WRITES);
            if let Some(client_id) = &message.client_id {
                write!(text, r#","client_id":"{client_id}""#).expect(WRITES);
            }
            if let Some(target) = message.reply_to {
                write!(text, r#","reply_to":{target}"#).expect(WRITES);
            }
            write!(text, r#","body":"#).expect(WRITES);
            text.write_all(&body).expect(WRITES);
            write!(text, "}}").expect(WRITES);
            if self.recovers {
                // The same for all who get it, so that they share the bytes.
                write!(text, r#","{time}.{seq}.{}""#, message.conversation).expect(WRITES);
            }
            write!(text, "]").expect(WRITES);
        });
    }

    fn presence(&self, say: Say, conversation: &ConversationId, info: &ClientInfo, frames: &mut FrameWriter) {
        self.event(say, frames, |out| {
            let (user, client) = (&info.user, info.client);
            let json = format!(
                r#"{{"conversation_id":"{conversation}","user_id":"{user}","client_id":"{client}"}}"#
            );
            out.put_slice(json.as_bytes());
        });
    }

    fn receipt(&self, conversation: &ConversationId, receipt: &Receipt, frames: &mut FrameWriter) {
        self.event(Say::MessageRead, frames, |out| {
            let Receipt { user, read, delivered } = receipt;
            let json = format!(
                r#"{{"conversation_id":"{conversation}","user_id":"{user}","seq":{read},"delivered":{delivered}}}"#
            );
            out.put_slice(json.as_bytes());
        });
    }

    fn online(&self, online: &Online, frames: &mut FrameWriter) {
        let say = if online.online { Say::UserOnline } else { Say::UserOffline };
        self.event(say, frames, |out| {
            let last_seen = online.last_seen.map_or_else(|| "null".to_owned(), |time| time.to_string());
            let json = format!(r#"{{"user_id":"{}","last_seen":{last_seen}}}"#, online.user);
            out.put_slice(json.as_bytes());
        });
    }

    /// Under its own name, as an app expects that is used to have its events relayed; unless that name means something here
    /// or to the library.
    fn signal(&self, room: &ConversationId, signal: &Signal, frames: &mut FrameWriter) {
        let Signal { conversation, user, name, data } = signal;
        let name = serde_json::to_string(name.as_str()).expect("text can be written as JSON");
        let is_taken = self.spelling.says(&name) || super::decode::is_reserved(signal.name.as_str());
        let event = if is_taken { self.spelling.say(Say::Signal) } else { &name };
        let room = conversation.as_ref().unwrap_or(room);
        let (data, attachments) = binary::extract(data.as_ref().map_or(b"null", |data| data.as_bytes()));
        self.with_bytes(&attachments, frames, |out| {
            let head =
                format!(r#"[{event},{{"conversation_id":"{room}","user_id":"{user}","name":{name},"data":"#);
            out.put_slice(head.as_bytes());
            out.put_slice(&data);
            out.put_slice(b"}]");
        });
    }

    fn event(&self, say: Say, frames: &mut FrameWriter, json: impl FnOnce(&mut BytesMut)) {
        self.packet(PacketType::Event, None, frames, |out| {
            out.put_u8(b'[');
            out.put_slice(self.spelling.say(say).as_bytes());
            out.put_u8(b',');
            json(out);
            out.put_u8(b']');
        });
    }

    fn with_bytes(&self, attachments: &[Bytes], frames: &mut FrameWriter, json: impl FnOnce(&mut BytesMut)) {
        let (kind, namespace) = (PacketType::Event, self.namespace.as_str());
        packet(
            &Head { kind, namespace, id: None, attachments: attachments.len() },
            attachments,
            frames,
            json,
        );
    }

    fn packet(
        &self,
        kind: PacketType,
        id: Option<u64>,
        frames: &mut FrameWriter,
        json: impl FnOnce(&mut BytesMut),
    ) {
        packet(&Head { kind, namespace: &self.namespace, id, attachments: 0 }, &[], frames, json);
    }
}

/// Bytes of an event's frame, about.
fn size_guess(event: &Event) -> usize {
    const ENVELOPE_BYTES: usize = 320;
    match event {
        Event::Message(message) => message.body.as_bytes().len() + ENVELOPE_BYTES,
        _ => ENVELOPE_BYTES,
    }
}

/// The last words: who must not come back is put out of the namespace, which the library takes as final; everybody else
/// loses the connection and comes back.
pub fn farewell(why: Disconnect) -> Bytes {
    const FINAL: u16 = 3500;
    match why {
        Disconnect::ConnectionClosed => Bytes::new(),
        why if why.code() >= FINAL && why != Disconnect::BadRequest => {
            [encode::text(b"41"), encode::close(why.code(), why.reason())].concat().into()
        }
        why => encode::close(why.code(), why.reason()),
    }
}

/// Where a catch-up has brought a client.
fn last_seq(subscribed: &Subscribed) -> Seq {
    match &subscribed.catchup {
        Catchup::Complete(messages) => messages.last().map_or(subscribed.seq, |message| message.seq),
        Catchup::NotAsked | Catchup::Limited => subscribed.seq,
    }
}
