//! Reads everything after a position: the hot tail first, then the store below it.
//!
//! The order matters. What leaves the hot tail has long been in the log, and what leaves the log is in the store; reading
//! the store first could miss a message that moved from one to the other in between.

use std::time::Duration;

use shared::{
    broker::Broker,
    domain::{ConversationId, Direction, Message, Seq},
    store::{HistoryRange, Store},
};

/// How often a read is repeated while the store has not yet committed what the hot tail no longer reaches back to.
const ATTEMPTS_MAX: usize = 20;
/// The pause between two of them.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// How much one catch-up may return.
#[derive(Debug, Clone, Copy)]
pub struct CatchUpLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

/// What lies after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatchUp {
    /// All of it, oldest first, without a hole.
    Complete {
        /// The messages, those of kind `void` among them.
        messages: Vec<Message>,
        /// The last one's seq, or the position asked from when there are none.
        top: Seq,
    },
    /// More than the limits allow, or nothing is known of the position: it lies beyond the end, so it is made up, or what
    /// was seen up to there did not survive.
    Limited {
        /// The present end.
        top: Seq,
    },
}

/// The broker or the store did not answer, or the two do not meet at the moment.
#[derive(Debug, thiserror::Error)]
#[error("history is not available: {0}")]
pub struct CatchUpError(String);

/// What lies after a position, as far as a page reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Messages after the position, oldest first, without a hole; one more than the limit when there are more.
    pub messages: Vec<Message>,
    /// The present end.
    pub top: Seq,
}

/// Reads everything after `after`.
///
/// # Errors
/// As [`page_after`].
pub async fn catch_up(
    broker: &dyn Broker,
    store: &dyn Store,
    conversation: &ConversationId,
    after: Seq,
    limits: CatchUpLimits,
) -> Result<CatchUp, CatchUpError> {
    let Page { messages, top } = page_after(broker, store, conversation, after, limits).await?;
    let bytes: usize = messages.iter().map(|message| message.body.as_bytes().len()).sum();
    // Whoever follows on a position beyond the end would take everything up to there for known.
    if messages.len() > limits.messages || bytes > limits.bytes || top < after {
        return Ok(CatchUp::Limited { top });
    }
    let top = messages.last().map_or(after, |message| message.seq);
    Ok(CatchUp::Complete { messages, top })
}

/// Reads one more message after `after` than the limit allows, so that the caller sees whether there are more.
///
/// # Errors
/// When the broker or the store does not answer, or the store lags behind for longer than [`ATTEMPTS_MAX`] pauses.
pub async fn page_after(
    broker: &dyn Broker,
    store: &dyn Store,
    conversation: &ConversationId,
    after: Seq,
    limits: CatchUpLimits,
) -> Result<Page, CatchUpError> {
    for attempt in 0..=ATTEMPTS_MAX {
        let (page, is_whole) = read_once(broker, store, conversation, after, limits.messages).await?;
        if is_whole {
            return Ok(page);
        }
        // The store commits a conversation in order. Once it has what comes after a hole, nothing will fill the hole any
        // more: it was lost with Redis and with the node that had accepted it.
        let end = page.messages.last().map_or(page.top, |message| message.seq);
        if attempt == ATTEMPTS_MAX
            && store.last_seq(conversation).await.map_err(|error| unavailable(&error))? >= end
        {
            tracing::error!(%conversation, %after, "messages are missing for good");
            return Ok(page);
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
    Err(CatchUpError("the store has not committed what the hot tail no longer holds".to_owned()))
}

fn unavailable(error: &dyn std::error::Error) -> CatchUpError {
    CatchUpError(error.to_string())
}

/// One attempt, and whether it is whole: false when the store and the hot tail do not meet.
async fn read_once(
    broker: &dyn Broker,
    store: &dyn Store,
    conversation: &ConversationId,
    after: Seq,
    limit: usize,
) -> Result<(Page, bool), CatchUpError> {
    let recent = broker.recent(conversation, after, limit + 1).await.map_err(|error| unavailable(&error))?;
    let mut messages = recent.messages;
    if !recent.complete {
        let range = HistoryRange {
            conversation: conversation.clone(),
            after,
            before: messages.first().map(|message| message.seq),
            limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
            direction: Direction::Forward,
        };
        let mut older = store.messages(&range).await.map_err(|error| unavailable(&error))?;
        older.append(&mut messages);
        messages = older;
        messages.truncate(limit + 1);
    }
    let last = messages.last().map_or(after, |message| message.seq);
    let is_full = messages.len() > limit;
    let top = match recent.top {
        Some(top) if top >= last => top,
        // The broker knows nothing, or less than it did.
        known if is_full || last == after => {
            let stored = store.last_seq(conversation).await.map_err(|error| unavailable(&error))?;
            stored.max(known.unwrap_or_default())
        }
        _ => last,
    };
    let is_whole = is_chain(after, &messages) && (is_full || last >= top);
    Ok((Page { messages, top }, is_whole))
}

/// Whether the messages follow each other without a hole, the first one following `after`.
///
/// A first message whose `prev` lies below `after` is no hole: what the reader saw in between did not survive.
fn is_chain(after: Seq, messages: &[Message]) -> bool {
    let mut last = after;
    messages.iter().enumerate().all(|(at, message)| {
        let follows = if at == 0 { message.prev <= last } else { message.prev == last };
        last = message.seq;
        follows
    })
}
