//! What became of the messages of a batch that the store did not insert.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Committed, StoreError};
use crate::domain::{Body, Message, MessageId, MessageKind, Seq};

/// What stands in the store after the rows of a batch were inserted, for one message of it.
pub(super) struct Found {
    /// The message that has its seq.
    pub here: Option<MessageId>,
    /// Whether the message has a row, under any seq.
    pub stored: bool,
}

/// The row that holds the place of `message`. Its id is made of the message and the place, so that it is recognised
/// when the same entry comes again.
pub(super) fn void_of(message: &Message) -> Message {
    let mut hash = Sha256::new();
    hash.update(b"void");
    hash.update(message.id.0.as_bytes());
    hash.update(message.seq.0.to_be_bytes());
    hash.update(message.conversation.as_str());
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Message {
        id: MessageId(uuid::Builder::from_custom_bytes(bytes).into_uuid()),
        conversation: message.conversation.clone(),
        seq: message.seq,
        // A message may have no row because these two are out of bounds.
        prev: message.prev.min(Seq(message.seq.0.saturating_sub(1))),
        time: message.time.min(i64::MAX.unsigned_abs()),
        sender: message.sender.clone(),
        client_id: None,
        reply_to: None,
        kind: MessageKind::VOID,
        body: Body::from_json("null"),
    }
}

/// The messages whose rows are at their places: only these have effects. `found` has the messages' order.
pub(super) fn in_place<'a, 'b>(
    messages: &'a [Message],
    found: &'b [Found],
) -> impl Iterator<Item = &'a Message> + use<'a, 'b> {
    let pairs = messages.iter().zip(found);
    pairs.filter(|(message, found)| found.here == Some(message.id)).map(|(message, _)| message)
}

/// Tells what became of each message, and which `void` rows remain to be inserted. `found` has the messages' order.
///
/// # Errors
/// [`StoreError::Unavailable`] when a message was neither inserted nor kept out by anything: the rows that kept it out
/// were removed in between.
pub(super) fn classify(
    messages: &[Message],
    found: &[Found],
    inserted: u64,
) -> Result<(Committed, Vec<Message>), StoreError> {
    let mut committed = Committed { inserted, ..Committed::default() };
    let mut voids: Vec<Message> = Vec::new();
    let mut void_ids: HashSet<Uuid> = HashSet::new();
    let mut settled: u64 = 0;
    for (message, found) in messages.iter().zip(found) {
        let void = void_of(message);
        match found.here {
            // A message that was published again after a collision has its row elsewhere, and another has its place.
            Some(id) if id == message.id || id == void.id || found.stored => settled += 1,
            Some(_) => committed.collided.push(message.clone()),
            None if !found.stored => {
                return Err(StoreError::Unavailable("rows vanished during a commit".to_owned()));
            }
            None if void_ids.insert(void.id.0) => {
                committed.voided.push(message.clone());
                voids.push(void);
            }
            None => settled += 1,
        }
    }
    committed.replayed = settled.saturating_sub(inserted);
    Ok((committed, voids))
}
