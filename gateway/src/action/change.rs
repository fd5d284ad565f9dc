//! Edits, deletes, and reacts to messages: each change is an entry of its own in the conversation.

use std::sync::Arc;

use shared::{
    domain::{
        Change, ChangeAction, ConversationId, Direction, Message, MessageState, Permission, Permissions,
        Reaction, Refusal, Send, SendChange, Seq, UserId, is_emoji,
    },
    store::HistoryRange,
};

use super::{Acknowledgement, Actor, Node, authorize_to, send::accept};
use crate::{
    hub::Client,
    limits::{self, Limit},
};

/// Most different emojis at one message.
pub const EMOJIS_MAX: usize = 50;

/// Changes a message that was sent. Senders edit and delete their own, where their role allows it; who may, deletes those
/// of others. What is deleted stays deleted, and can no longer be edited or reacted to.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger and for a member whose role does not allow it, [`Refusal::Muted`] for a muted
/// one; [`Refusal::NotFound`] when there is no such message or it is deleted, [`Refusal::Invalid`] when the entry is no
/// message to be changed, or the emoji none; [`Refusal::LimitExceeded`] when it has too many different ones; as [`super::send`] for the rest.
pub async fn change(
    node: &Node,
    actor: &Actor,
    client: Option<&Arc<Client>>,
    wanted: SendChange,
) -> Result<Acknowledgement, Refusal> {
    let SendChange { conversation, target, action, client_id, retry } = wanted;
    if matches!(&action, ChangeAction::React { emoji, .. } if !is_emoji(emoji)) {
        return Err(Refusal::Invalid);
    }
    let (user, permissions) = permitted(node, actor, &conversation, &action).await?;
    let found = find(node, &conversation, target).await?;
    let (message, state) = found.filter(|(message, _)| message.kind.is_counted()).ok_or(Refusal::NotFound)?;
    let may = match action {
        ChangeAction::React { .. } => true,
        ChangeAction::Edit(_) => message.sender == user,
        ChangeAction::Delete if message.sender == user && permissions.contains(Permission::DeleteOwn) => true,
        ChangeAction::Delete => permissions.contains(Permission::DeleteAny),
    };
    if !may {
        return Err(Refusal::Forbidden);
    }
    check_room(&action, &state.reactions)?;
    let change = Change { target, id: message.id, action };
    let send = Send {
        conversation,
        client_id,
        reply_to: Some(target),
        kind: change.kind(),
        body: change.body(),
        retry,
    };
    accept(node, &user, client, send).await
}

/// Who changes, and what that one may do.
async fn permitted(
    node: &Node,
    actor: &Actor,
    conversation: &ConversationId,
    action: &ChangeAction,
) -> Result<(UserId, Permissions), Refusal> {
    let Actor::User(who) = actor else {
        return Ok((UserId::server(), Permissions::of(&Permission::ALL)));
    };
    node.limiter.publish_by(&who.user).await?;
    let allowed = match action {
        ChangeAction::Edit(_) => authorize_to(node, who, conversation, Permission::EditOwn).await,
        ChangeAction::React { .. } => authorize_to(node, who, conversation, Permission::React).await,
        // Which of the two it takes is known once the message is.
        ChangeAction::Delete => match authorize_to(node, who, conversation, Permission::DeleteOwn).await {
            Err(Refusal::Forbidden) => authorize_to(node, who, conversation, Permission::DeleteAny).await,
            other => other,
        },
    };
    Ok((who.user.clone(), allowed?))
}

/// Whether there is room for one more emoji. Those that are not stored yet do not count, so there may come to be more.
fn check_room(action: &ChangeAction, reactions: &[Reaction]) -> Result<(), Refusal> {
    let ChangeAction::React { emoji, on: true } = action else { return Ok(()) };
    if reactions.len() < EMOJIS_MAX || reactions.iter().any(|reaction| reaction.emoji == *emoji) {
        return Ok(());
    }
    limits::refused(Limit::Emojis);
    Err(Refusal::LimitExceeded)
}

/// The message at a place, unless it is deleted, and what became of it: in the hot tail, or else in the store.
async fn find(
    node: &Node,
    conversation: &ConversationId,
    seq: Seq,
) -> Result<Option<(Message, MessageState)>, Refusal> {
    let Some(below) = seq.0.checked_sub(1).map(Seq) else { return Ok(None) };
    let recent = node.broker.recent(conversation, below, 1).await.map_err(|error| unavailable(&error))?;
    let recent = recent.messages.into_iter().find(|message| message.seq == seq);
    let found = if recent.is_some() {
        recent
    } else {
        let range = HistoryRange {
            conversation: conversation.clone(),
            after: below,
            before: Some(Seq(seq.0.saturating_add(1))),
            limit: 1,
            direction: Direction::Forward,
        };
        node.store.messages(&range).await.map_err(|error| unavailable(&error))?.pop()
    };
    let states = node.store.states(conversation, &[seq]).await.map_err(|error| unavailable(&error))?;
    let state = states.into_iter().next().unwrap_or_default();
    Ok(found.filter(|_| state.deleted_ms.is_none()).map(|found| (found, state)))
}

fn unavailable(error: &dyn std::error::Error) -> Refusal {
    tracing::warn!(%error, "a message cannot be read");
    Refusal::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_room_for_so_many_emojis() {
        let reaction = |at: usize| Reaction { emoji: at.to_string(), count: 1, users: Vec::new() };
        let reactions: Vec<Reaction> = (0..EMOJIS_MAX).map(reaction).collect();
        let react = |emoji: &str, on: bool| ChangeAction::React { emoji: emoji.to_owned(), on };
        assert_eq!(check_room(&react("x", true), &reactions[1..]), Ok(()));
        assert_eq!(check_room(&react("x", true), &reactions), Err(Refusal::LimitExceeded));
        assert_eq!(check_room(&react("0", true), &reactions), Ok(()), "one more of the same");
        assert_eq!(check_room(&react("x", false), &reactions), Ok(()));
    }
}
