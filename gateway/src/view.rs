//! What answers look like in JSON: the same over HTTP and by `rpc`, and as the document at `/openapi.json` describes it.
//!
//! May use: domain, serde, utoipa. Deliberately absent: protocols, and what is asked.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use shared::domain::{
    Body, ClientMessageId, ConversationId, ConversationSummary, LastMessage, Member, Message, MessageState,
    Reaction, Receipt, Refusal, Sent, UserId,
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
/// What a role looks like.
const ROLE_PATTERN: &str = "^[a-z0-9_-]+$";

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
text!(SignalNameText, "SignalName", 64, ID_PATTERN, "What a signal is for, such as `call_offer`.");
text!(RoleNameText, "RoleName", 64, ID_PATTERN, "A role that tokens give.");
text!(ClientIdText, "ClientMessageId", 100, ID_PATTERN, "The sender's own name for its message.");
text!(KindText, "MessageKind", 32, KIND_PATTERN, "What a message is for; Starling's own kinds are reserved.");
text!(
    RoleText,
    "Role",
    32,
    ROLE_PATTERN,
    "`owner`, `moderator`, `member`, `observer`, or a role of the kind's own."
);

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

/// A message as it stands now.
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
    /// The place of the message that it answers or, for an edit, a deletion and a reaction, that it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<u64>,
    /// What it is for.
    #[schema(value_type = KindText)]
    kind: String,
    /// What it says now: any JSON; `null` once it is deleted.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
    /// When it was edited last, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<u64>,
    /// When it was deleted, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
    /// Who has reacted to it, by emoji, the first one used first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reactions: Vec<ReactionView>,
}

impl MessageView {
    /// A message, and what became of it.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when its body is no JSON, which another hand must have written.
    pub fn new(message: &Message, state: Option<&MessageState>) -> Result<Self, Refusal> {
        Ok(Self {
            id: message.id.to_string(),
            seq: message.seq.0,
            prev: message.prev.0,
            time: message.time,
            sender: message.sender.clone(),
            client_id: message.client_id.clone(),
            reply_to: message.reply_to.map(|seq| seq.0),
            kind: message.kind.as_str().to_owned(),
            body: raw(&message.body)?,
            edited: state.and_then(|state| state.edited_ms),
            deleted: state.and_then(|state| state.deleted_ms),
            reactions: state
                .map_or(&[][..], |state| &state.reactions)
                .iter()
                .map(ReactionView::from)
                .collect(),
        })
    }
}

/// Messages, each with what became of it. `states` are by seq.
///
/// # Errors
/// As [`MessageView::new`].
pub fn message_views(messages: &[Message], states: &[MessageState]) -> Result<Vec<MessageView>, Refusal> {
    let state = |message: &Message| {
        let at = states.binary_search_by_key(&message.seq, |state| state.seq);
        at.ok().map(|at| &states[at])
    };
    messages.iter().map(|message| MessageView::new(message, state(message))).collect()
}

fn raw(body: &Body) -> Result<Box<RawValue>, Refusal> {
    serde_json::from_slice(body.as_bytes()).map_err(|_| Refusal::Unavailable)
}

/// The reactions to a message with one emoji.
#[derive(Serialize, ToSchema)]
#[schema(as = Reaction)]
pub struct ReactionView {
    /// With what.
    emoji: String,
    /// How many users.
    count: u32,
    /// Who, the first ones first; at most 100.
    #[schema(value_type = Vec<UserIdText>)]
    users: Vec<UserId>,
}

impl From<&Reaction> for ReactionView {
    fn from(reaction: &Reaction) -> Self {
        let Reaction { emoji, count, users } = reaction.clone();
        Self { emoji, count, users }
    }
}

/// A member of a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    /// The user.
    #[schema(value_type = UserIdText)]
    user: UserId,
    /// What the user is.
    #[schema(value_type = RoleText)]
    role: String,
    /// May only read before, in milliseconds since 1970; absent when not muted.
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until: Option<u64>,
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        let Member { user, role, muted_until_ms, .. } = member;
        Self { user, role: role.as_str().to_owned(), muted_until: muted_until_ms }
    }
}

/// How far a member has come.
#[derive(Serialize, ToSchema)]
#[schema(as = Receipt)]
pub struct ReceiptView {
    /// The member.
    #[schema(value_type = UserIdText)]
    user: UserId,
    /// Has read everything up to here.
    read: u64,
    /// Has received everything up to here.
    delivered: u64,
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        Self { user: receipt.user, read: receipt.read.0, delivered: receipt.delivered.0 }
    }
}

/// A conversation as one of its members sees it in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = ConversationEntry)]
pub struct ConversationView {
    #[schema(value_type = ConversationIdText)]
    id: ConversationId,
    /// `direct`, `group`, `channel`, or a kind of the deployment's own.
    kind: String,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What the user is in it.
    #[schema(value_type = RoleText)]
    role: String,
    /// May only read before, in milliseconds since 1970; absent when not muted.
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until: Option<u64>,
    /// When it was made, in milliseconds since 1970.
    created: u64,
    /// When the last message was sent, in milliseconds since 1970; when it was made, as long as there is none.
    active: u64,
    /// The place of its last entry.
    top: u64,
    /// Up to where the user has read.
    read: u64,
    /// Messages of others that the user has not read: exact up to 99, and 100 for more.
    unread: u32,
    /// How many members it has.
    members: u32,
    /// The first of the other members, at most 10.
    #[schema(value_type = Vec<UserIdText>)]
    others: Vec<UserId>,
    /// The last message, as it stands now.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<MessageView>,
}

impl TryFrom<ConversationSummary> for ConversationView {
    type Error = Refusal;

    fn try_from(summary: ConversationSummary) -> Result<Self, Refusal> {
        let last = |last: &LastMessage| {
            let (edited_ms, deleted_ms) = (last.edited_ms, last.deleted_ms);
            let state = MessageState { edited_ms, deleted_ms, ..MessageState::default() };
            MessageView::new(&last.message, Some(&state))
        };
        Ok(Self {
            last: summary.last.as_ref().map(last).transpose()?,
            id: summary.id,
            kind: summary.kind,
            name: summary.name,
            role: summary.role.as_str().to_owned(),
            muted_until: summary.muted_until_ms,
            created: summary.created_ms,
            active: summary.active_ms,
            top: summary.top.0,
            read: summary.read.0,
            unread: summary.unread,
            members: summary.members_count,
            others: summary.others,
        })
    }
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
