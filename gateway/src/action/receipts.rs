//! How far members have read, and received.

use shared::{
    auth::Identity,
    clock,
    domain::{
        ConversationId, ConversationKind, Direct, Event, KIND_DIRECT, Receipt, Refusal, Role, Seq, UserId,
    },
    store::{Conversation, Marked},
};

use super::{Actor, Node, authorize, converse::unavailable, history::top_of};

/// Notes that `who` has read, or else received, everything up to `seq`, on all devices, and tells the members. It never
/// goes back, and not beyond the end of the conversation.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger; [`Refusal::Invalid`] where nobody is a member, as for those whom a token lets in
/// and in personal rooms; [`Refusal::Unavailable`] when Redis or the store does not answer.
pub async fn mark(
    node: &Node,
    who: &Identity,
    conversation: &ConversationId,
    seq: Seq,
    read: bool,
) -> Result<(), Refusal> {
    authorize(node, who, conversation).await?;
    let seq = seq.min(top_of(node, conversation).await?);
    let (read, delivered) = if read { (seq, seq) } else { (Seq(0), seq) };
    let mark = async || {
        let marked = node.store.mark(conversation, &who.user, read, delivered).await;
        marked.map_err(|error| unavailable(&error))
    };
    let marked = match (mark().await?, conversation.kind()) {
        // The first message of a direct conversation has come here before it came to the store.
        (Marked::Stranger, ConversationKind::Direct(pair)) if seq > Seq(0) => {
            make_direct(node, conversation, pair).await?;
            mark().await?
        }
        (marked, _) => marked,
    };
    match marked {
        Marked::Forward(receipt) => {
            // The other devices of the reader, which may not follow the conversation.
            node.unread.changed(conversation, Seq(0));
            node.ephemeral.tell(conversation, &Event::Receipt(receipt)).await;
            Ok(())
        }
        Marked::Unneeded => Ok(()),
        Marked::Stranger if seq == Seq(0) => Ok(()),
        Marked::Stranger => Err(Refusal::Invalid),
    }
}

/// Makes the rows that the persister would make with the first message.
async fn make_direct(node: &Node, id: &ConversationId, pair: Direct<'_>) -> Result<(), Refusal> {
    let user = |name: &str| UserId::parse(name).map_err(|_| Refusal::Invalid);
    let members = [user(pair.smaller)?, user(pair.larger)?].map(|user| (user, Role::MEMBER)).to_vec();
    let (kind, created_ms) = (KIND_DIRECT.to_owned(), clock::now_ms());
    let conversation = Conversation { id: id.clone(), kind, name: None, members, created_ms };
    node.store.create_conversation(&conversation).await.map(drop).map_err(|error| unavailable(&error))
}

/// How far the members have come; those who have read furthest, a bounded number.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, [`Refusal::Unavailable`] when the store does not answer.
pub async fn receipts(
    node: &Node,
    actor: &Actor,
    conversation: &ConversationId,
) -> Result<Vec<Receipt>, Refusal> {
    if let Actor::User(who) = actor {
        authorize(node, who, conversation).await?;
    }
    node.store.receipts(conversation).await.map_err(|error| unavailable(&error))
}
