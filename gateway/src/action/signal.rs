//! Tells members something past the log: a call offer and the like.

use shared::{
    auth::Identity,
    domain::{ConversationId, Event, Permission, Refusal, SendSignal, Signal, UserId},
};

use super::{Actor, Node, authorize, authorize_to};
use crate::limits::{self, Limit};

/// Tells a signal to everybody in the conversation, or to one of its members alone, in all of the member's devices: at most
/// once, and to those who are connected now.
///
/// # Errors
/// [`Refusal::RateLimited`], [`Refusal::TooLarge`]; [`Refusal::Forbidden`] for who may not send there;
/// [`Refusal::NotFound`] when the one whom it is for is no member; [`Refusal::Unavailable`] when Redis or the store does
/// not answer.
pub async fn signal(node: &Node, actor: &Actor, signal: SendSignal) -> Result<(), Refusal> {
    let SendSignal { conversation, name, data, to } = signal;
    if data.as_ref().is_some_and(|data| data.as_bytes().len() > node.limits.body_bytes) {
        limits::refused(Limit::BodyBytes);
        return Err(Refusal::TooLarge);
    }
    let user = match actor {
        Actor::Server => UserId::server(),
        Actor::User(who) => {
            node.limiter.signal_by(&who.user)?;
            authorize_to(node, who, &conversation, Permission::Signal).await?;
            who.user.clone()
        }
    };
    let (room, conversation) = match to {
        None => (conversation, None),
        Some(to) => {
            let member = authorize(node, &Identity::from(to.clone()), &conversation).await;
            member.map_err(|refusal| match refusal {
                Refusal::Forbidden => Refusal::NotFound,
                other => other,
            })?;
            (ConversationId::personal(&to), Some(conversation))
        }
    };
    let event = Event::Signal(Signal { conversation, user, name, data });
    node.ephemeral.try_tell(&room, &event).await.map_err(|error| {
        tracing::debug!(%error, "a signal was not told");
        Refusal::Unavailable
    })
}
