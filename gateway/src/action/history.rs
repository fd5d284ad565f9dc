//! Reads a conversation back: the hot tail, and the store below it.

use std::collections::{BTreeSet, HashMap, HashSet};

use shared::{
    auth::Identity,
    domain::{
        Body, Change, ConversationId, Direction, HistoryPage, HistoryQuery, Message, MessageKind,
        MessageState, Refusal, Seq,
    },
    store::HistoryRange,
};

use super::{Node, authorize};
use crate::feed::{CatchUpLimits, page_after};

/// Most messages in one page.
pub const HISTORY_MESSAGES_MAX: u32 = 500;
/// Most messages of the hot tail that a backward read looks at; the tail itself is kept shorter.
const TAIL_MESSAGES_MAX: usize = 2_000;

/// Reads a page of history.
///
/// # Errors
/// When `who` may not, the position is another installation's, or Redis or the store does not answer.
pub async fn history(node: &Node, who: &Identity, query: &HistoryQuery) -> Result<HistoryPage, Refusal> {
    authorize(node, who, &query.conversation).await?;
    read_history(node, query).await
}

/// Reads a page of history for the application's server, whose key was checked.
///
/// # Errors
/// As [`history`].
pub async fn read_history(node: &Node, query: &HistoryQuery) -> Result<HistoryPage, Refusal> {
    let since = query.since.as_ref();
    if since.is_some_and(|position| !position.epoch.is_empty() && position.epoch != node.installation) {
        return Err(Refusal::UnrecoverablePosition);
    }
    let since = since.map(|position| position.seq);
    let limit = query.limit.min(HISTORY_MESSAGES_MAX) as usize;
    let (messages, top) = match (limit, query.direction) {
        (0, _) => (Vec::new(), top_of(node, &query.conversation).await?),
        (_, Direction::Forward) => {
            forward(node, &query.conversation, since.unwrap_or_default(), limit).await?
        }
        (_, Direction::Backward) => backward(node, &query.conversation, since, limit).await?,
    };
    let (messages, states) = as_they_stand(node, &query.conversation, messages).await?;
    Ok(HistoryPage { messages, states, epoch: node.installation.clone(), top })
}

/// Messages as they stand in the store: with what they say now, and what became of them. The hot tail has them as they
/// were sent.
async fn as_they_stand(
    node: &Node,
    conversation: &ConversationId,
    mut messages: Vec<Message>,
) -> Result<(Vec<Message>, Vec<MessageState>), Refusal> {
    let shown: BTreeSet<Seq> = messages
        .iter()
        .filter(|message| message.kind != MessageKind::VOID)
        .map(|message| message.seq)
        .collect();
    if shown.is_empty() {
        return Ok((messages, Vec::new()));
    }
    let edited = messages.iter().filter(|message| message.kind == MessageKind::EDIT);
    let edited: BTreeSet<Seq> = edited.filter_map(|edit| edit.reply_to).collect();
    let seqs: Vec<Seq> = shown.union(&edited).copied().collect();
    let mut states = node.store.states(conversation, &seqs).await.map_err(|error| unavailable(&error))?;
    empty_edits(&mut messages, &states);
    states.retain(|state| shown.contains(&state.seq));
    let bodies: HashMap<Seq, Body> =
        states.iter_mut().filter_map(|state| Some((state.seq, state.body.take()?))).collect();
    for message in &mut messages {
        if let Some(body) = bodies.get(&message.seq) {
            message.body = body.clone();
        }
    }
    Ok((messages, states))
}

/// Empties the edits of what is deleted, as the store has done.
fn empty_edits(messages: &mut [Message], states: &[MessageState]) {
    let deleted: HashSet<Seq> =
        states.iter().filter(|state| state.deleted_ms.is_some()).map(|state| state.seq).collect();
    for message in messages.iter_mut().filter(|message| message.kind == MessageKind::EDIT) {
        if let Some(change) = Change::of(message)
            && deleted.contains(&change.target)
        {
            message.body = change.emptied();
        }
    }
}

async fn forward(
    node: &Node,
    conversation: &ConversationId,
    after: Seq,
    limit: usize,
) -> Result<(Vec<Message>, Seq), Refusal> {
    let limits = CatchUpLimits { messages: limit, bytes: usize::MAX };
    let page = page_after(&*node.broker, &*node.store, conversation, after, limits).await;
    let page = page.map_err(|error| unavailable(&error))?;
    let mut messages = page.messages;
    messages.truncate(limit);
    Ok((messages, page.top))
}

async fn backward(
    node: &Node,
    conversation: &ConversationId,
    before: Option<Seq>,
    limit: usize,
) -> Result<(Vec<Message>, Seq), Refusal> {
    let tail = node.broker.recent(conversation, Seq(0), TAIL_MESSAGES_MAX).await;
    let tail = tail.map_err(|error| unavailable(&error))?;
    let is_below = |message: &Message| before.is_none_or(|before| message.seq < before);
    // Below the first one of the tail the store has to be asked, even when nothing of the tail is wanted.
    let floor = tail.messages.first().map(|message| (message.seq, message.prev));
    let mut messages: Vec<Message> = tail.messages.into_iter().rev().filter(is_below).take(limit).collect();
    let is_whole = tail.complete || floor.is_some_and(|(_, prev)| prev == Seq(0));
    if messages.len() < limit && !is_whole {
        let below = match (floor, before) {
            (Some((floor, _)), Some(before)) => Some(floor.min(before)),
            (floor, before) => floor.map(|(seq, _)| seq).or(before),
        };
        let range = HistoryRange {
            conversation: conversation.clone(),
            after: Seq(0),
            before: below,
            limit: u32::try_from(limit - messages.len()).unwrap_or(u32::MAX),
            direction: Direction::Backward,
        };
        messages.extend(node.store.messages(&range).await.map_err(|error| unavailable(&error))?);
    }
    // A hole means that the store has not committed yet what the tail no longer holds: what follows the hole is not
    // shown, so that a page never hides that something is missing.
    let contiguous = messages.windows(2).take_while(|pair| pair[0].prev == pair[1].seq).count();
    messages.truncate(contiguous + 1);
    let top = match tail.top {
        Some(top) => top,
        None => top_of(node, conversation).await?,
    };
    Ok((messages, top))
}

/// The present end of a conversation.
///
/// # Errors
/// When Redis or the store does not answer.
pub async fn top_of(node: &Node, conversation: &ConversationId) -> Result<Seq, Refusal> {
    let positions = node.broker.positions(std::slice::from_ref(conversation)).await;
    let known = positions.map_err(|error| unavailable(&error))?.first().copied().flatten();
    match known {
        Some(top) => Ok(top),
        None => node.store.last_seq(conversation).await.map_err(|error| unavailable(&error)),
    }
}

fn unavailable(error: &dyn std::error::Error) -> Refusal {
    tracing::warn!(%error, "history cannot be read");
    Refusal::Unavailable
}

#[cfg(test)]
mod tests {
    use shared::domain::{ChangeAction, MessageId, UserId};

    use super::*;

    #[test]
    fn an_edit_of_what_is_deleted_says_nothing() {
        let edit = |seq: u64, target: u64| {
            let action = ChangeAction::Edit(Body::from_json("\"secret\""));
            let change = Change { target: Seq(target), id: MessageId(uuid::Uuid::nil()), action };
            Message {
                id: MessageId(uuid::Uuid::from_u128(seq.into())),
                conversation: ConversationId::parse("c").unwrap(),
                seq: Seq(seq),
                prev: Seq(seq - 1),
                time: 1,
                sender: UserId::parse("alice").unwrap(),
                client_id: None,
                reply_to: Some(Seq(target)),
                kind: change.kind(),
                body: change.body(),
            }
        };
        let mut messages = vec![edit(3, 1), edit(4, 2)];
        let state =
            |seq: u64, deleted_ms| MessageState { seq: Seq(seq), deleted_ms, ..MessageState::default() };
        empty_edits(&mut messages, &[state(1, Some(9)), state(2, None)]);
        let says = |message: &Message| String::from_utf8_lossy(message.body.as_bytes()).contains("secret");
        assert_eq!(messages.iter().map(says).collect::<Vec<_>>(), [false, true]);
    }
}
