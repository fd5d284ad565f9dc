//! Types that several endpoints say or hear, and how the document at `/openapi.json` describes them.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    domain::{ClientMessageId, ConversationId, Message, Refusal, Sent, UserId},
    store::Role,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// Printable ASCII without spaces, braces, quotes, angle brackets, slashes, backslash and backquote.
const ID_PATTERN: &str = r"^[!#-&(-.0-;=?-\[\]-_a-z|~]+$";
/// What a message kind looks like.
const KIND_PATTERN: &str = "^[a-z0-9_.-]+$";

/// Declares how a text of the domain is described.
macro_rules! text {
    ($type:ident, $name:literal, $length_max:literal, $pattern:expr, $description:literal) => {
        #[doc = $description]
        pub struct $type;

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .min_length(Some(1))
                    .max_length(Some($length_max))
                    .pattern(Some($pattern))
                    .into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    };
}

text!(ConversationIdText, "ConversationId", 255, ID_PATTERN, "Names a conversation.");
text!(UserIdText, "UserId", 100, ID_PATTERN, "Names a user.");
text!(ClientIdText, "ClientMessageId", 100, ID_PATTERN, "The sender's own name for its message.");
text!(SignalNameText, "SignalName", 64, ID_PATTERN, "What a signal is for, such as `call_offer`.");
text!(RoleText, "RoleName", 64, ID_PATTERN, "A role that tokens give.");
text!(KindText, "MessageKind", 32, KIND_PATTERN, "What a message is for; `void` is reserved.");

/// A message that was accepted.
#[derive(Serialize, ToSchema)]
#[schema(as = Sent)]
pub struct SentView {
    /// Names the message for ever.
    id: String,
    /// Its place in the conversation.
    seq: u64,
    /// When it was accepted, in milliseconds since 1970.
    time: u64,
}

impl From<Sent> for SentView {
    fn from(sent: Sent) -> Self {
        Self { id: sent.id.to_string(), seq: sent.seq.0, time: sent.time }
    }
}

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView {
    /// Names the message for ever.
    id: String,
    /// Its place in the conversation.
    seq: u64,
    /// The place of the message before it; 0 for the first.
    prev: u64,
    /// When it was accepted, in milliseconds since 1970.
    time: u64,
    /// Who said it; `$server` for what an application server published.
    #[schema(value_type = String)]
    sender: UserId,
    /// The sender's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ClientIdText>)]
    client_id: Option<ClientMessageId>,
    /// What it is for.
    #[schema(value_type = KindText)]
    kind: String,
    /// What was said: any JSON.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
}

impl TryFrom<&Message> for MessageView {
    type Error = Refusal;

    fn try_from(message: &Message) -> Result<Self, Refusal> {
        Ok(Self {
            id: message.id.to_string(),
            seq: message.seq.0,
            prev: message.prev.0,
            time: message.time,
            sender: message.sender.clone(),
            client_id: message.client_id.clone(),
            kind: message.kind.as_str().to_owned(),
            body: serde_json::from_slice(message.body.as_bytes()).map_err(|_| Refusal::Unavailable)?,
        })
    }
}

/// A member of a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    /// The user.
    #[schema(value_type = UserIdText)]
    user: UserId,
    /// `owner` or `member`.
    role: &'static str,
}

impl From<(UserId, Role)> for MemberView {
    fn from((user, role): (UserId, Role)) -> Self {
        Self { user, role: role.as_str() }
    }
}

/// Reads the id of a conversation. What is no id names no conversation, which a stranger is told like a foreign one.
pub fn conversation_id(text: &str) -> Result<ConversationId, Refusal> {
    ConversationId::parse(text).map_err(|_| Refusal::Forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a byte is matched by the class in [`ID_PATTERN`], read by hand: no regex engine is built in.
    fn is_in_class(byte: u8) -> bool {
        matches!(byte, b'!' | b'#'..=b'&' | b'('..=b'.' | b'0'..=b';' | b'=' | b'?'..=b'[' | b']'..=b'_' | b'a'..=b'z' | b'|' | b'~')
    }

    #[test]
    fn the_pattern_is_what_ids_are() {
        for byte in 0..=127_u8 {
            let text = char::from(byte).to_string();
            assert_eq!(is_in_class(byte), ConversationId::parse(&text).is_ok(), "{text:?}");
        }
    }
}
