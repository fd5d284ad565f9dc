//! What a client asks of conversations beside messages, and what it is answered.

use super::{
    change::ChangeAction,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{Message, Seq},
    role::Role,
};

/// One request about conversations, members, or messages that were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatCommand {
    /// Makes a conversation.
    CreateConversation(NewConversation),
    /// Lists the user's conversations, newest activity first.
    Conversations {
        /// The place after which to go on.
        after: Option<ListCursor>,
        /// At most so many.
        limit: u32,
    },
    /// Shows one conversation as the list does.
    Conversation(ConversationId),
    /// Lists the members.
    Members(ConversationId),
    /// How far members have come.
    Receipts(ConversationId),
    /// Changes who is in a conversation, what they are, or what it is called.
    Manage {
        /// Which one.
        conversation: ConversationId,
        /// What is done.
        action: Manage,
    },
    /// Changes a message that was sent.
    Change(SendChange),
    /// Has read, or received, everything up to a place.
    Mark {
        /// Where.
        conversation: ConversationId,
        /// Up to where.
        seq: Seq,
        /// Whether it was read, or only received.
        read: bool,
    },
}

/// A conversation that somebody wants to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConversation {
    /// `direct`, `group`, `channel`, or a kind of the deployment's own.
    pub kind: String,
    /// What it is called.
    pub name: Option<String>,
    /// Who is in it beside the user who makes it, and what they are; without a role what the kind says.
    pub members: Vec<(UserId, Option<Role>)>,
}

/// What can be done about the members of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manage {
    /// Makes users members.
    Add {
        /// Whom.
        users: Vec<UserId>,
        /// What they become; without it what the kind says.
        role: Option<Role>,
    },
    /// Ends a membership.
    Remove(UserId),
    /// Ends one's own membership.
    Leave,
    /// Makes a member something else.
    SetRole(UserId, Role),
    /// Lets a member only read until then, in milliseconds since 1970; `None` for as long as nobody ends it.
    Mute(UserId, Option<u64>),
    /// Lets a member write again.
    Unmute(UserId),
    /// Ends a membership and allows none until then, in milliseconds since 1970; `None` for ever.
    Ban(UserId, Option<u64>),
    /// Allows a membership again.
    Unban(UserId),
    /// Changes what the conversation is called; `None` takes its name away.
    Rename(Option<String>),
}

/// The request to change a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendChange {
    /// Where it was said.
    pub conversation: ConversationId,
    /// Its place.
    pub target: Seq,
    /// What becomes of it.
    pub action: ChangeAction,
    /// The sender's name for the change, by which a retry is recognised.
    pub client_id: Option<ClientMessageId>,
    /// The client does not know whether an earlier try succeeded, perhaps long ago.
    pub retry: bool,
}

/// The answer to a [`ChatCommand`] that has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatReply {
    /// One conversation.
    Conversation(Box<ConversationSummary>),
    /// A page of the list, and the place after which the next one begins.
    Conversations(Vec<ConversationSummary>, Option<ListCursor>),
    /// The members.
    Members(Vec<Member>),
    /// How far members have come.
    Receipts(Vec<Receipt>),
}

/// A member of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub user: UserId,
    /// What the user is.
    pub role: Role,
    /// May only read before, in milliseconds since 1970; `None` when not muted.
    pub muted_until_ms: Option<u64>,
    /// Since when, in milliseconds since 1970; 0 where nobody knows.
    pub joined_ms: u64,
}

/// How far a member has come.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// The member.
    pub user: UserId,
    /// Has read everything up to here.
    pub read: Seq,
    /// Has received everything up to here.
    pub delivered: Seq,
}

/// A conversation as a list of conversations shows it to one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Its id.
    pub id: ConversationId,
    /// `direct`, `group`, `channel`, or a kind of the deployment's own.
    pub kind: String,
    /// What it is called.
    pub name: Option<String>,
    /// What the member is in it.
    pub role: Role,
    /// May only read before, in milliseconds since 1970; `None` when not muted.
    pub muted_until_ms: Option<u64>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When the last message was sent or, without one, the conversation made; in milliseconds since 1970.
    pub active_ms: u64,
    /// Its last entry, of whatever kind.
    pub top: Seq,
    /// Up to where the member has read.
    pub read: Seq,
    /// How many messages of others it has not read, up to [`UNREAD_MAX`].
    pub unread: u32,
    /// How many members it has.
    pub members_count: u32,
    /// The other members, by id, at most [`SUMMARY_MEMBERS_MAX`].
    pub others: Vec<UserId>,
    /// The last message: entries that only change others do not count.
    pub last: Option<LastMessage>,
}

/// Most users that a summary names beside the one it is for.
pub const SUMMARY_MEMBERS_MAX: u32 = 10;
/// Unread messages are counted up to here; what reaches it stands for more.
pub const UNREAD_MAX: u32 = 100;

/// The last message of a conversation, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastMessage {
    /// The message; its body is what it says now.
    pub message: Message,
    /// When it was edited, in milliseconds since 1970.
    pub edited_ms: Option<u64>,
    /// When it was deleted, in milliseconds since 1970.
    pub deleted_ms: Option<u64>,
}

/// A place in a list of conversations, newest activity first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor {
    /// When the last one on the page before was active, in milliseconds since 1970.
    pub active_ms: u64,
    /// Which it is.
    pub id: ConversationId,
}

impl ListCursor {
    /// Reads what [`std::fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (active_ms, id) = text.split_once('.')?;
        Some(Self { active_ms: active_ms.parse().ok()?, id: ConversationId::parse(id).ok()? })
    }
}

impl std::fmt::Display for ListCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.active_ms, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_list_can_be_carried_as_text() {
        let cursor = ListCursor { active_ms: 12, id: ConversationId::parse("a.b:c").unwrap() };
        assert_eq!(cursor.to_string(), "12.a.b:c");
        assert_eq!(ListCursor::parse("12.a.b:c"), Some(cursor));
        for bad in ["", "12", ".a", "x.a", "12.", "12.a b", "-1.a"] {
            assert_eq!(ListCursor::parse(bad), None, "{bad}");
        }
    }
}
