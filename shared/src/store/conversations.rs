//! Conversations, who is in them and what became of their messages: the part of the port that chat needs.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::{
    ConversationId, ConversationSummary, ListCursor, Member, MessageState, Receipt, Role, Seq, UserId,
};

/// Most users that the reactions to a message with one emoji name.
pub const REACTION_USERS_MAX: u32 = 100;
/// Most receipts that are read at once: those of the members who have read furthest.
pub const RECEIPTS_MAX: u32 = 100;
/// Most members whose unread messages are counted at once.
pub const UNREAD_MEMBERS_MAX: u32 = 1_000;

/// What a user is in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The kind of the conversation.
    pub kind: String,
    /// The user's role in it.
    pub role: Role,
    /// May only read before, in milliseconds since 1970; `None` when not muted.
    pub muted_until_ms: Option<u64>,
}

/// The members of a conversation, as of a version that every change raises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Counts the changes of the conversation's members; 0 when the conversation does not exist.
    pub version: u64,
    /// What the user is who was asked for; `None` for a stranger.
    pub standing: Option<Standing>,
}

/// A conversation that needs a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// `direct`, `group`, `channel`, or a kind of the deployment's own.
    pub kind: String,
    /// What it is called.
    pub name: Option<String>,
    /// Who is in it.
    pub members: Vec<(UserId, Role)>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What a change of members came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersChange {
    /// It is done.
    Done(Changed),
    /// There was nothing to change.
    Unneeded,
    /// There would be more members than the limit: nothing is changed.
    Full,
    /// Somebody of them is banned: nothing is changed.
    Banned,
    /// The conversation would be without an owner: nothing is changed.
    LastOwner,
}

/// A change of members that is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// What the membership has become.
    pub version: u64,
    /// Whom it is about, by id: those who were added, removed, or are something else now.
    pub users: Vec<UserId>,
    /// Who has become owner in place of the last one, who has gone.
    pub promoted: Option<UserId>,
}

/// What marking came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// The member has come further.
    Forward(Receipt),
    /// It was as far before, and stays there.
    Unneeded,
    /// There is no such member, or no such conversation.
    Stranger,
}

/// Conversations, and who is in them.
#[async_trait]
pub trait Conversations: Send + Sync + 'static {
    /// What `user` is in a conversation that needs a row.
    async fn membership(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Membership, StoreError>;

    /// Makes a conversation with its members; false when the id is taken, and then nothing is changed.
    async fn create_conversation(&self, conversation: &Conversation) -> Result<bool, StoreError>;

    /// A conversation with its members.
    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>, StoreError>;

    /// The members of a conversation, by id; empty when it has no row.
    async fn members(&self, id: &ConversationId) -> Result<Vec<Member>, StoreError>;

    /// Makes users members, all or none; those who are members already stay as they are. They have read what was
    /// stored before. The conversation must exist. Two calls at the same moment may together exceed `members_max`.
    async fn add_members(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
        role: &Role,
        members_max: usize,
        now_ms: u64,
    ) -> Result<MembersChange, StoreError>;

    /// Ends a membership. When the last owner goes, the moderator who has been there longest becomes owner, or else the
    /// member who has.
    async fn remove_member(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<MembersChange, StoreError>;

    /// Makes a member something else. The last owner cannot be made less.
    async fn set_role(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        role: &Role,
    ) -> Result<MembersChange, StoreError>;

    /// Lets a member only read until then, in milliseconds since 1970; `None` ends it.
    async fn mute(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        until_ms: Option<u64>,
    ) -> Result<MembersChange, StoreError>;

    /// Ends a membership, if there is one, and allows none before `until_ms`, or ever without it.
    async fn ban(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        until_ms: Option<u64>,
    ) -> Result<MembersChange, StoreError>;

    /// Ends a ban; the user does not become a member by it.
    async fn unban(&self, conversation: &ConversationId, user: &UserId) -> Result<MembersChange, StoreError>;

    /// Changes what a conversation is called.
    async fn rename(
        &self,
        conversation: &ConversationId,
        name: Option<&str>,
    ) -> Result<MembersChange, StoreError>;

    /// The conversations that `user` is a member of, newest activity first, below the cursor; at most `limit`.
    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&ListCursor>,
        limit: u32,
    ) -> Result<Vec<ConversationSummary>, StoreError>;

    /// One conversation as its member sees it in the list.
    async fn summary(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<ConversationSummary>, StoreError>;

    /// The version of each conversation's membership; one without a row is not in it.
    async fn membership_versions(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<(ConversationId, u64)>, StoreError>;

    /// Those of `users` who are members of the conversation.
    async fn members_among(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
    ) -> Result<Vec<UserId>, StoreError>;

    /// Notes that a member has read up to `read`, and received up to `delivered`; what is read is received. Neither
    /// ever goes back.
    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        read: Seq,
        delivered: Seq,
    ) -> Result<Marked, StoreError>;

    /// How far members have come; those who have read furthest, at most [`RECEIPTS_MAX`]. Who has received nothing is
    /// not in it.
    async fn receipts(&self, conversation: &ConversationId) -> Result<Vec<Receipt>, StoreError>;

    /// How many messages of others each member has not read, up to [`crate::domain::UNREAD_MAX`] each; at most
    /// [`UNREAD_MEMBERS_MAX`] members, by id.
    async fn unread_of(&self, conversation: &ConversationId) -> Result<Vec<(UserId, u32)>, StoreError>;

    /// What became of those of the messages that were changed or reacted to, by seq.
    async fn states(
        &self,
        conversation: &ConversationId,
        seqs: &[Seq],
    ) -> Result<Vec<MessageState>, StoreError>;
}
