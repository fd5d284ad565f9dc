//! Joins a conversation, and reads what was missed.

use std::sync::Arc;

use bytes::Bytes;
use shared::domain::{
    Catchup, ConnectionId, ConversationId, ConversationKind, Disconnect, Event, MessageKind, Position,
    Refusal, Seq, Subscribe, Subscribed, UserId,
};

use super::{Node, authorize, history::top_of, members, users::presence_snapshot};
use crate::{
    feed::{CatchUp, CatchUpLimits, Opened, catch_up},
    hub::{Client, Subscription},
    outbox::Class,
};

/// How often a client that begins to follow a user is told how things stand, while that changes.
const SNAPSHOTS_MAX: usize = 3;
/// How often a member may find that too much has happened while it was reading.
const OPEN_ATTEMPTS_MAX: usize = 3;

/// Joins the conversation and sends the answer, which `seal` makes, before anything that comes after it.
///
/// # Errors
/// When the client may not, or Redis or the store does not answer; it is then no member.
pub async fn subscribe(
    node: &Node,
    client: &Arc<Client>,
    request: &Subscribe,
    seal: &(dyn Fn(Subscribed) -> Bytes + Sync),
) -> Result<Arc<Subscription>, Refusal> {
    authorize(node, &client.claims().identity, &request.conversation).await?;
    let subscription = Subscription::new(request.join_leave, false);
    join(node, client, request, &subscription, seal).await?;
    if let ConversationKind::Presence(of) = request.conversation.kind() {
        show_presence(node, client, &request.conversation, of).await;
        return Ok(subscription);
    }
    node.roster.enter(&request.conversation, &client.info).await;
    let (user, conversation) = (&client.info.user, &request.conversation);
    let who = &client.claims().identity;
    // Asked again now that it is here: a removal in between was told before the client could be found.
    if authorize(node, who, conversation).await == Err(Refusal::Forbidden) {
        members::expel(node, conversation, vec![user.clone()]).await;
    }
    if subscription.has_ended() {
        node.roster.leave(conversation, &client.info);
    } else {
        show_receipts(node, client, conversation).await;
    }
    Ok(subscription)
}

/// Tells a client that has just joined how far the members have come. What is marked meanwhile it is told live.
async fn show_receipts(node: &Node, client: &Client, conversation: &ConversationId) {
    match node.store.receipts(conversation).await {
        Ok(receipts) if receipts.is_empty() => {}
        Ok(receipts) => {
            let events: Vec<Event> = receipts.into_iter().map(Event::Receipt).collect();
            client.send((client.dialect.batch)(conversation, &events), Class::Ephemeral);
        }
        // The client can ask for them.
        Err(error) => tracing::debug!(%error, "receipts were not shown"),
    }
}

/// Tells a client that has begun to follow a user how things stand. What changes while that is read is told again, since it
/// may have come before.
async fn show_presence(node: &Node, client: &Client, conversation: &ConversationId, of: &str) {
    let Ok(user) = UserId::parse(of) else { return };
    let mut shown = None;
    for _ in 0..SNAPSHOTS_MAX {
        let snapshot = presence_snapshot(node, &user).await;
        if snapshot.is_none() || snapshot == shown {
            return;
        }
        shown = snapshot;
        let event = shown.clone().map(Event::Online);
        client.send((client.dialect.batch)(conversation, event.as_slice()), Class::Durable);
    }
}

/// A room that the server puts a client into.
pub type ServerRoom = (Subscribe, Arc<Subscription>);

/// Joins all the rooms that the server puts a client into at its start, and sends the greeting, which `seal` makes, before
/// anything that comes after it in any of them.
///
/// # Errors
/// When Redis or the store does not answer; the client is then in none of them.
pub async fn begin(
    node: &Node,
    client: &Arc<Client>,
    (personal, subscription): &ServerRoom,
    others: &[ServerRoom],
    seal: &(dyn Fn(Vec<(ConversationId, Subscribed)>) -> Bytes + Sync),
) -> Result<(), Refusal> {
    let id = client.info.client;
    let mut attempts = Vec::with_capacity(others.len());
    let mut begun: Vec<(ConversationId, Subscribed)> = Vec::with_capacity(others.len());
    for (request, subscription) in others {
        let conversation = &request.conversation;
        let attempt = Attempt { node, conversation, id, succeeded: false };
        node.feed.join(conversation, client, subscription).await.map_err(|_| Refusal::Unavailable)?;
        let (subscribed, up_to) = read(node, request).await?;
        begun.push((conversation.clone(), subscribed));
        attempts.push((attempt, up_to));
    }
    let greet = |subscribed: Subscribed| {
        let personal = (personal.conversation.clone(), subscribed);
        seal(std::iter::once(personal).chain(begun.iter().cloned()).collect())
    };
    join(node, client, personal, subscription, &greet).await?;
    for (attempt, up_to) in &mut attempts {
        match node.feed.open(attempt.conversation, id, *up_to, Bytes::new()).await {
            Opened::Open => attempt.succeeded = true,
            // What it was told it has is too old to go on from: it comes back and catches up.
            Opened::Behind | Opened::Gone => client.close(Disconnect::InsufficientState),
        }
    }
    Ok(())
}

/// Joins without asking whether the client may: it is the server that puts it there, or it was asked before.
///
/// # Errors
/// When Redis or the store does not answer; the client is then no member.
async fn join(
    node: &Node,
    client: &Arc<Client>,
    request: &Subscribe,
    subscription: &Arc<Subscription>,
    seal: &(dyn Fn(Subscribed) -> Bytes + Sync),
) -> Result<(), Refusal> {
    let (conversation, id) = (&request.conversation, client.info.client);
    let mut attempt = Attempt { node, conversation, id, succeeded: false };
    node.feed.join(conversation, client, subscription).await.map_err(|_| Refusal::Unavailable)?;
    for _ in 0..OPEN_ATTEMPTS_MAX {
        let (subscribed, up_to) = read(node, request).await?;
        match node.feed.open(conversation, id, up_to, seal(subscribed)).await {
            Opened::Open => {
                attempt.succeeded = true;
                return Ok(());
            }
            Opened::Behind => {}
            Opened::Gone => break,
        }
    }
    Err(Refusal::Unavailable)
}

/// Takes the client out again unless it came to be a member, even when nobody waits for the outcome any more.
struct Attempt<'a> {
    node: &'a Node,
    conversation: &'a ConversationId,
    id: ConnectionId,
    succeeded: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.succeeded {
            self.node.feed.leave(self.conversation, self.id);
        }
    }
}

/// Leaves the conversation.
pub fn unsubscribe(node: &Node, client: &Client, conversation: &ConversationId) {
    node.feed.leave(conversation, client.info.client);
    // Whoever was not entered there is not found there.
    node.roster.leave(conversation, &client.info);
}

/// What the answer says, and up to where it brings the client.
async fn read(node: &Node, request: &Subscribe) -> Result<(Subscribed, Seq), Refusal> {
    let conversation = &request.conversation;
    let epoch = node.installation.clone();
    let Some(Position { epoch: asked, seq: after }) = &request.recover else {
        let seq = top_of(node, conversation).await?;
        return Ok((Subscribed { epoch, seq, catchup: Catchup::NotAsked }, seq));
    };
    let _turn = node.limiter.turn_to_resume().await?;
    let limits = CatchUpLimits { messages: node.limits.catchup_messages, bytes: node.limits.catchup_bytes };
    let found = if asked.is_empty() || *asked == node.installation {
        let found = catch_up(&*node.broker, &*node.store, conversation, *after, limits).await;
        found.map_err(|error| {
            tracing::warn!(%conversation, %error, "a resume cannot be answered");
            Refusal::Unavailable
        })?
    } else {
        CatchUp::Limited { top: top_of(node, conversation).await? }
    };
    match found {
        CatchUp::Complete { mut messages, top } => {
            node.metrics.catchups_complete.increment(1);
            messages.retain(|message| message.kind != MessageKind::VOID);
            Ok((Subscribed { epoch, seq: *after, catchup: Catchup::Complete(messages) }, top))
        }
        CatchUp::Limited { .. } if request.refuse_unrecoverable => Err(Refusal::UnrecoverablePosition),
        CatchUp::Limited { top } => {
            node.metrics.catchups_limited.increment(1);
            Ok((Subscribed { epoch, seq: top, catchup: Catchup::Limited }, top))
        }
    }
}
