//! Edits, deletes, and reacts to messages: each change is an entry of its own in the conversation.

use std::sync::Arc;

use shared::{
    domain::{
        Change, ChangeAction, ConversationId, Direction, Message, Permission, Permissions, Refusal, Send,
        SendChange, Seq, UserId, is_emoji,
    },
    store::HistoryRange,
};

use super::{Acknowledgement, Actor, Node, authorize_to, send::accept};
use crate::hub::Client;

/// Changes a message that was sent. Senders edit and delete their own, where their role allows it; who may, deletes those
/// of others. What is deleted stays deleted, and can no longer be edited or reacted to.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger and for a member whose role does not allow it, [`Refusal::Muted`] for a muted
/// one; [`Refusal::NotFound`] when there is no such message or it is deleted, [`Refusal::Invalid`] when the entry is no
/// message to be changed, or the emoji none; as [`super::send`] for the rest.
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
    let message = find(node, &conversation, target).await?;
    let message = message.filter(|message| message.kind.is_counted()).ok_or(Refusal::NotFound)?;
    let may = match action {
        ChangeAction::React { .. } => true,
        ChangeAction::Edit(_) => message.sender == user,
        ChangeAction::Delete if message.sender == user && permissions.contains(Permission::DeleteOwn) => true,
        ChangeAction::Delete => permissions.contains(Permission::DeleteAny),
    };
    if !may {
        return Err(Refusal::Forbidden);
    }
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

/// The message at a place, unless it is deleted: in the hot tail, or else in the store.
async fn find(node: &Node, conversation: &ConversationId, seq: Seq) -> Result<Option<Message>, Refusal> {
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
    let is_deleted = states.iter().any(|state| state.deleted_ms.is_some());
    Ok(found.filter(|_| !is_deleted))
}

fn unavailable(error: &dyn std::error::Error) -> Refusal {
    tracing::warn!(%error, "a message cannot be read");
    Refusal::Unavailable
}
