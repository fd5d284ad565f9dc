//! Entries that change another message: what stands in their bodies.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    ids::MessageId,
    message::{Body, Message, MessageKind, Seq},
};

/// Longest emoji of a reaction, in bytes: long enough for every sequence that is one to the eye.
pub const EMOJI_BYTES_MAX: usize = 64;

/// What becomes of a message after it was sent. Each change is a message of its own, so that catch-up is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The place of the message that is changed.
    pub target: Seq,
    /// The message that is changed; the place alone could come to belong to another one when Redis loses data.
    pub id: MessageId,
    /// How.
    pub action: ChangeAction,
}

/// How a message is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeAction {
    /// It says something else.
    Edit(Body),
    /// It says nothing any more, for good.
    Delete,
    /// The sender of the change reacts to it, or takes that back.
    React {
        /// With what.
        emoji: String,
        /// Whether the reaction is made, or taken back.
        on: bool,
    },
}

#[derive(Serialize, Deserialize)]
struct ChangeBody<'a> {
    target: u64,
    id: Uuid,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    emoji: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
}

impl Change {
    /// The kind of the entry that says so.
    pub fn kind(&self) -> MessageKind {
        match self.action {
            ChangeAction::Edit(_) => MessageKind::EDIT,
            ChangeAction::Delete => MessageKind::DELETE,
            ChangeAction::React { .. } => MessageKind::REACTION,
        }
    }

    /// The body of the entry that says so.
    pub fn body(&self) -> Body {
        let (target, id) = (self.target.0, self.id.0);
        let body = match &self.action {
            // Byte for byte: a body is not to be read here.
            ChangeAction::Edit(body) => {
                let mut text = format!(r#"{{"target":{target},"id":"{id}","body":"#).into_bytes();
                text.extend_from_slice(body.as_bytes());
                text.push(b'}');
                return Body::from_json(text);
            }
            ChangeAction::Delete => ChangeBody { target, id, body: None, emoji: None, on: None },
            ChangeAction::React { emoji, on } => {
                ChangeBody { target, id, body: None, emoji: Some(emoji.clone()), on: Some(*on) }
            }
        };
        Body::from_json(serde_json::to_vec(&body).expect("a change is plain data"))
    }

    /// What an entry says; `None` for one that changes nothing. The body of an edit shares the memory of the entry's.
    pub fn of(message: &Message) -> Option<Self> {
        if !message.kind.is_change() {
            return None;
        }
        let bytes = message.body.bytes();
        let said: ChangeBody<'_> = serde_json::from_slice(bytes).ok()?;
        let action = match message.kind.as_str() {
            "edit" => ChangeAction::Edit(Body::from_json(bytes.slice_ref(said.body?.get().as_bytes()))),
            "delete" => ChangeAction::Delete,
            _ => ChangeAction::React { emoji: said.emoji.filter(|text| is_emoji(text))?, on: said.on? },
        };
        Some(Self { target: Seq(said.target), id: MessageId(said.id), action })
    }

    /// The body that an edit of the message keeps once the message is deleted.
    pub fn emptied(&self) -> Body {
        let nothing = ChangeAction::Edit(Body::from_json(Bytes::from_static(b"null")));
        Self { action: nothing, ..self.clone() }.body()
    }
}

/// Whether a text can be reacted with: 1 to [`EMOJI_BYTES_MAX`] bytes without control characters.
pub fn is_emoji(text: &str) -> bool {
    !text.is_empty() && text.len() <= EMOJI_BYTES_MAX && !text.chars().any(char::is_control)
}

/// What became of a message up to now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageState {
    /// The message.
    pub seq: Seq,
    /// When it was edited last, in milliseconds since 1970.
    pub edited_ms: Option<u64>,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<u64>,
    /// What it says now, where that is not what it said at first.
    pub body: Option<Body>,
    /// Who has reacted to it, by emoji, the first one used first.
    pub reactions: Vec<Reaction>,
}

/// The reactions to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// With what.
    pub emoji: String,
    /// How many users.
    pub count: u32,
    /// Who, the first ones first; a bounded number of them.
    pub users: Vec<super::ids::UserId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ConversationId, UserId};

    fn entry(kind: &str, body: Body) -> Message {
        Message {
            id: MessageId(Uuid::nil()),
            conversation: ConversationId::parse("c").unwrap(),
            seq: Seq(9),
            prev: Seq(8),
            time: 1,
            sender: UserId::parse("alice").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::parse(kind).unwrap(),
            body,
        }
    }

    #[test]
    fn a_change_is_read_back_from_its_entry_byte_for_byte() {
        let body = Body::from_json(r#"{ "n":9007199254740993,"a":1,"a" : 2 }"#);
        for action in [
            ChangeAction::Edit(body),
            ChangeAction::Delete,
            ChangeAction::React { emoji: "👩‍🔬\"".to_owned(), on: true },
            ChangeAction::React { emoji: "+1".to_owned(), on: false },
        ] {
            let change = Change { target: Seq(4), id: MessageId(Uuid::from_u128(7)), action };
            let message = entry(change.kind().as_str(), change.body());
            assert_eq!(Change::of(&message), Some(change));
        }
    }

    #[test]
    fn what_says_no_change_is_none() {
        let id = Uuid::nil();
        for (kind, body) in [
            ("text", format!(r#"{{"target":1,"id":"{id}","body":1}}"#)),
            ("edit", format!(r#"{{"target":1,"id":"{id}"}}"#)),
            ("edit", r#"{"target":1,"body":1}"#.to_owned()),
            ("delete", "null".to_owned()),
            ("reaction", format!(r#"{{"target":1,"id":"{id}","on":true}}"#)),
            ("reaction", format!(r#"{{"target":1,"id":"{id}","emoji":"","on":true}}"#)),
        ] {
            assert_eq!(Change::of(&entry(kind, Body::from_json(body.clone()))), None, "{kind} {body}");
        }
    }
}
