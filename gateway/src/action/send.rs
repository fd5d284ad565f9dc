//! Sends a message.

use std::{sync::Arc, time::Duration};

use shared::{
    auth::Identity,
    domain::{
        ConversationKind, Message, MessageId, MessageKind, Partition, Permission, Refusal, Send, Sent, Seq,
        UserId,
    },
    publisher::PublishError,
    record::Payload,
};
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use super::{AckMode, Node, authorize_to};
use crate::{
    hub::Client,
    limits::{self, Limit},
    pending::Waiter,
};

/// Longest wait for the store where a request waits for its answer.
const STORED_PATIENCE: Duration = Duration::from_secs(30);

/// What a sender is told, and when.
#[derive(Debug)]
pub enum Acknowledgement {
    /// The log has it, and that is what was asked for.
    Now(Sent),
    /// The log has it; the answer is due once the store has it. A closed channel means that this node cannot tell.
    Once(Sent, oneshot::Receiver<()>),
}

impl Acknowledgement {
    /// Waits until the answer is due.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when that takes too long, or this node cannot tell: the outcome is unknown.
    pub async fn settled(self) -> Result<Sent, Refusal> {
        match self {
            Self::Now(sent) => Ok(sent),
            Self::Once(sent, stored) => match tokio::time::timeout(STORED_PATIENCE, stored).await {
                Ok(Ok(())) => Ok(sent),
                Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable),
            },
        }
    }
}

/// Sends a message as `who`. `client` is told by a notice of its own when the store has it.
///
/// # Errors
/// A definite refusal, or [`Refusal::Unavailable`] when it is unknown whether the message was accepted.
pub async fn send(
    node: &Node,
    who: &Identity,
    client: Option<&Arc<Client>>,
    send: Send,
) -> Result<Acknowledgement, Refusal> {
    node.limiter.publish_by(&who.user).await?;
    let permissions = authorize_to(node, who, &send.conversation, Permission::Send).await?;
    let is_of_the_house = send.kind == MessageKind::SYSTEM && !permissions.contains(Permission::DeleteAny);
    if send.kind.is_reserved() || send.kind == MessageKind::NOTIFICATION || is_of_the_house {
        return Err(Refusal::Invalid);
    }
    node.typists.sent(&send.conversation, &who.user).await;
    accept(node, &who.user, client, send).await
}

/// Sends a message as the application's server, whose key was checked. The conversation needs no row: who may read it
/// is decided when somebody does.
///
/// # Errors
/// As [`send`].
pub async fn publish(node: &Node, send: Send) -> Result<Acknowledgement, Refusal> {
    if send.kind.is_reserved() {
        return Err(Refusal::Invalid);
    }
    accept(node, &UserId::server(), None, send).await
}

/// Publishes what only Starling itself makes, as the application's server, and waits for the log alone.
pub(super) async fn record(node: &Node, send: Send) -> Result<Sent, Refusal> {
    record_by(node, &UserId::server(), send).await
}

/// The same in the name of a user, who was found to be allowed what it is about.
pub(super) async fn record_by(node: &Node, user: &UserId, send: Send) -> Result<Sent, Refusal> {
    match accept(node, user, None, send).await? {
        Acknowledgement::Now(sent) | Acknowledgement::Once(sent, _) => Ok(sent),
    }
}

/// Hands a message in, of a user who may, or of the application's server.
pub(super) async fn accept(
    node: &Node,
    user: &UserId,
    client: Option<&Arc<Client>>,
    send: Send,
) -> Result<Acknowledgement, Refusal> {
    if send.body.as_bytes().len() > node.limits.body_bytes {
        limits::refused(Limit::BodyBytes);
        return Err(Refusal::TooLarge);
    }
    // No store has such a place, and so none could keep the message.
    if send.reply_to.is_some_and(|seq| seq > Seq::MAX) {
        return Err(Refusal::Invalid);
    }
    node.limiter.publish_to(&send.conversation).await?;
    let id = match &send.client_id {
        Some(client_id) => MessageId::derived(&send.conversation, user, client_id),
        None => MessageId(Uuid::now_v7()),
    };
    let Send { conversation, client_id, reply_to, kind, body, retry } = send;
    let payload = Payload { id, sender: user.clone(), client_id, reply_to, kind, body };
    let began = Instant::now();
    let published = node.publisher.publish(&conversation, payload.clone(), retry).await;
    let accepted = published.map_err(|error| refusal(node, &error))?;
    node.metrics.accept_seconds.record(began.elapsed());
    let sent = Sent { id, seq: accepted.seq, time: accepted.time };
    if accepted.duplicate {
        node.metrics.publishes_repeated.increment(1);
    } else {
        node.metrics.publishes.increment(1);
    }
    let partition = Partition::of(&conversation, node.broker.partitions());
    let has_members = matches!(conversation.kind(), ConversationKind::Direct(_) | ConversationKind::Stored);
    if has_members && payload.kind.is_counted() && !accepted.duplicate {
        node.unread.changed(&conversation, accepted.seq);
    }
    let message = payload.at(conversation, accepted.seq, accepted.prev, accepted.time);
    Ok(await_stored(node, partition, accepted.position, message, client, sent))
}

fn await_stored(
    node: &Node,
    partition: Partition,
    position: shared::broker::LogPosition,
    message: Message,
    client: Option<&Arc<Client>>,
    sent: Sent,
) -> Acknowledgement {
    let notify = client.map(Arc::downgrade);
    match node.ack_mode {
        AckMode::Accepted => {
            node.pending.add(partition, position, message, Waiter { notify, acknowledge: None });
            Acknowledgement::Now(sent)
        }
        AckMode::Stored => {
            let (acknowledge, stored) = oneshot::channel();
            let waiter = Waiter { notify, acknowledge: Some(acknowledge) };
            node.pending.add(partition, position, message, waiter);
            Acknowledgement::Once(sent, stored)
        }
    }
}

fn refusal(node: &Node, error: &PublishError) -> Refusal {
    match error {
        PublishError::BacklogFull => {
            node.metrics.publishes_backlog_full.increment(1);
            Refusal::BacklogFull
        }
        PublishError::Unavailable(_) => {
            node.metrics.publishes_unavailable.increment(1);
            tracing::debug!(%error, "a publish has an unknown outcome");
            Refusal::Unavailable
        }
    }
}
