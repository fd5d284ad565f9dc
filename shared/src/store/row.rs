//! Rows as both databases keep them, and the way back. Both know signed 64-bit numbers only.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::{Conversation, Standing, StoreError};
use crate::{
    broker::{EntryId, LogPosition},
    domain::{
        Body, ClientMessageId, ConversationId, ConversationSummary, Epoch, LastMessage, Member, Message,
        MessageId, MessageKind, MessageState, Partition, Reaction, Receipt, Role, Seq, UserId,
    },
};

/// A number as a column holds it.
pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Rejected(format!("{number} is too large for a column")))
}

/// A bound of a search: what is too large is above every row.
pub(super) fn bound(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

/// A number as it was written by [`signed`].
pub(super) fn unsigned<T: TryFrom<i64>>(number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| unreadable("a number"))
}

/// What a hand other than ours has written.
pub(super) fn unreadable(what: &str) -> StoreError {
    StoreError::Rejected(format!("the store holds {what} that this program cannot read"))
}

/// A row of `messages`.
pub(super) struct MessageRow<'a> {
    pub conversation: &'a str,
    pub seq: i64,
    pub prev: i64,
    pub id: Uuid,
    pub time: i64,
    pub sender: &'a str,
    pub client_id: Option<&'a str>,
    pub reply_to: Option<i64>,
    pub kind: &'a str,
    pub body: &'a [u8],
}

impl<'a> MessageRow<'a> {
    /// The row of a message.
    pub fn of(message: &'a Message) -> Result<Self, StoreError> {
        Ok(Self {
            conversation: message.conversation.as_str(),
            seq: signed(message.seq.0)?,
            prev: signed(message.prev.0)?,
            id: message.id.0,
            time: signed(message.time)?,
            sender: message.sender.as_str(),
            client_id: message.client_id.as_ref().map(ClientMessageId::as_str),
            reply_to: message.reply_to.map(|seq| signed(seq.0)).transpose()?,
            kind: message.kind.as_str(),
            body: message.body.as_bytes(),
        })
    }

    /// The message of a row.
    pub fn read(&self) -> Result<Message, StoreError> {
        let client_id = self.client_id.map(ClientMessageId::parse).transpose();
        Ok(Message {
            id: MessageId(self.id),
            conversation: ConversationId::parse(self.conversation)
                .map_err(|_| unreadable("a conversation id"))?,
            seq: Seq(unsigned(self.seq)?),
            prev: Seq(unsigned(self.prev)?),
            time: unsigned(self.time)?,
            sender: UserId::parse_sender(self.sender).map_err(|_| unreadable("a user id"))?,
            client_id: client_id.map_err(|_| unreadable("a client message id"))?,
            reply_to: self.reply_to.map(unsigned).transpose()?.map(Seq),
            kind: MessageKind::parse(self.kind).ok_or_else(|| unreadable("a message kind"))?,
            body: Body::from_json(Bytes::copy_from_slice(self.body)),
        })
    }
}

/// A row of `persister_cursor`.
#[derive(Clone, Copy)]
pub(super) struct CursorRow {
    pub partition: i32,
    pub epoch: i64,
    pub ms: i64,
    pub n: i64,
}

impl CursorRow {
    /// The row of a cursor.
    pub fn of(partition: Partition, position: LogPosition) -> Result<Self, StoreError> {
        Ok(Self {
            partition: i32::from(partition.0),
            epoch: i64::from(position.epoch.0),
            ms: signed(position.entry.ms)?,
            n: signed(position.entry.n)?,
        })
    }

    /// The cursor of a row.
    pub fn read(self) -> Result<(Partition, LogPosition), StoreError> {
        let entry = EntryId { ms: unsigned(self.ms)?, n: unsigned(self.n)? };
        let position = LogPosition { epoch: Epoch(unsigned(self.epoch)?), entry };
        Ok((Partition(unsigned(self.partition.into())?), position))
    }
}

/// A row of `conversations` joined with one of `members`, if it has any.
pub(super) struct ConversationRow {
    pub kind: String,
    pub name: Option<String>,
    pub created_ms: i64,
    pub user: Option<String>,
    pub role: Option<String>,
}

/// The conversation of all its rows; `None` when there are none.
pub(super) fn read_conversation(
    id: &ConversationId,
    rows: Vec<ConversationRow>,
) -> Result<Option<Conversation>, StoreError> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut conversation = Conversation {
        id: id.clone(),
        kind: first.kind.clone(),
        name: first.name.clone(),
        members: Vec::with_capacity(rows.len()),
        created_ms: unsigned(first.created_ms)?,
    };
    for row in rows {
        if let (Some(user), Some(role)) = (row.user, row.role) {
            conversation.members.push((read_user(&user)?, read_role(&role)?));
        }
    }
    Ok(Some(conversation))
}

/// A row of `members`.
pub(super) struct MemberRow {
    pub user: String,
    pub role: String,
    pub muted_until_ms: Option<i64>,
    pub joined_ms: i64,
}

impl MemberRow {
    /// The member of a row.
    pub fn read(self) -> Result<Member, StoreError> {
        Ok(Member {
            user: read_user(&self.user)?,
            role: read_role(&self.role)?,
            muted_until_ms: self.muted_until_ms.map(unsigned).transpose()?,
            joined_ms: unsigned(self.joined_ms)?,
        })
    }
}

/// A row of `members` joined with the one of its conversation, without the last message.
pub(super) struct SummaryRow {
    pub id: String,
    pub kind: String,
    pub name: Option<String>,
    pub created_ms: i64,
    pub active_ms: i64,
    pub top: i64,
    pub role: String,
    pub muted_until_ms: Option<i64>,
    pub read: i64,
    pub unread: i64,
    pub members_count: i64,
    pub others: Vec<String>,
    pub last: Option<LastMessage>,
}

impl SummaryRow {
    /// The conversation as its member sees it.
    pub fn read(self) -> Result<ConversationSummary, StoreError> {
        Ok(ConversationSummary {
            id: read_conversation_id(&self.id)?,
            kind: self.kind,
            name: self.name,
            role: read_role(&self.role)?,
            muted_until_ms: self.muted_until_ms.map(unsigned).transpose()?,
            created_ms: unsigned(self.created_ms)?,
            active_ms: unsigned(self.active_ms)?,
            top: Seq(unsigned(self.top)?),
            read: Seq(unsigned(self.read)?),
            unread: unsigned(self.unread)?,
            members_count: unsigned(self.members_count)?,
            others: self.others.iter().map(|user| read_user(user)).collect::<Result<_, _>>()?,
            last: self.last,
        })
    }
}

/// How far a member has come, by its columns.
pub(super) fn read_receipt(user: &str, read: i64, delivered: i64) -> Result<Receipt, StoreError> {
    let (read, delivered) = (Seq(unsigned(read)?), Seq(unsigned(delivered)?));
    Ok(Receipt { user: read_user(user)?, read, delivered })
}

/// The standing of its columns.
pub(super) fn read_standing(
    kind: String,
    role: Option<&str>,
    muted_until_ms: Option<i64>,
) -> Result<Option<Standing>, StoreError> {
    let Some(role) = role else { return Ok(None) };
    let muted_until_ms = muted_until_ms.map(unsigned).transpose()?;
    Ok(Some(Standing { kind, role: read_role(role)?, muted_until_ms }))
}

/// What became of messages, and the reactions to them: both by seq.
pub(super) fn join_states(changed: Vec<MessageState>, reactions: Vec<(Seq, Reaction)>) -> Vec<MessageState> {
    let mut states: BTreeMap<Seq, MessageState> =
        changed.into_iter().map(|state| (state.seq, state)).collect();
    for (seq, reaction) in reactions {
        let state = states.entry(seq).or_insert_with(|| MessageState { seq, ..MessageState::default() });
        state.reactions.push(reaction);
    }
    states.into_values().collect()
}

/// The user of its column.
pub(super) fn read_user(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|_| unreadable("a user id"))
}

/// The conversation of its column.
pub(super) fn read_conversation_id(text: &str) -> Result<ConversationId, StoreError> {
    ConversationId::parse(text).map_err(|_| unreadable("a conversation id"))
}

/// The role of its column.
pub(super) fn read_role(text: &str) -> Result<Role, StoreError> {
    Role::parse(text).ok_or_else(|| unreadable("a role"))
}

/// The id of a new installation: 8 characters.
pub(super) fn new_installation() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(8);
    id
}
