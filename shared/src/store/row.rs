//! Rows as both databases keep them, and the way back. Both know signed 64-bit numbers only.

use bytes::Bytes;
use uuid::Uuid;

use super::{Conversation, ConversationSummary, Role, StoreError};
use crate::{
    broker::{EntryId, LogPosition},
    domain::{
        Body, ClientMessageId, ConversationId, Epoch, Message, MessageId, MessageKind, Partition, Seq, UserId,
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
            let user = UserId::parse(&user).map_err(|_| unreadable("a user id"))?;
            conversation.members.push((user, read_role(&role)?));
        }
    }
    Ok(Some(conversation))
}

/// A row of `members` joined with the one of its conversation.
pub(super) struct SummaryRow {
    pub id: String,
    pub kind: String,
    pub name: Option<String>,
    pub created_ms: i64,
    pub role: String,
}

impl SummaryRow {
    /// The conversation as its member sees it.
    pub fn read(self) -> Result<ConversationSummary, StoreError> {
        Ok(ConversationSummary {
            id: ConversationId::parse(&self.id).map_err(|_| unreadable("a conversation id"))?,
            kind: self.kind,
            name: self.name,
            role: read_role(&self.role)?,
            created_ms: unsigned(self.created_ms)?,
        })
    }
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
