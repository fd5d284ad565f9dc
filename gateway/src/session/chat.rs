//! Does what a client asks about conversations, members, and messages that were sent.

use std::sync::Arc;

use shared::domain::{ChatCommand, ChatReply, Refusal, Reply};

use crate::{
    action::{self, Acknowledgement, Actor, Node},
    hub::Client,
};

/// What became of a request.
pub(super) enum Done {
    /// It is answered by this.
    Reply(Reply),
    /// It is answered once the store has it.
    Accepted(Acknowledgement),
}

pub(super) async fn chat(node: &Node, client: &Arc<Client>, command: ChatCommand) -> Result<Done, Refusal> {
    let who = &client.claims().identity;
    let actor = Actor::User(who.clone());
    let reply = match command {
        ChatCommand::CreateConversation(wanted) => {
            let (made, _) = action::create_conversation(node, &actor, wanted).await?;
            let found = action::conversation(node, &actor, &made.id).await?;
            ChatReply::Conversation(Box::new(found))
        }
        ChatCommand::Conversations { after, limit } => {
            let (found, next) = action::conversations(node, &who.user, after.as_ref(), limit).await?;
            ChatReply::Conversations(found, next)
        }
        ChatCommand::Conversation(id) => {
            ChatReply::Conversation(Box::new(action::conversation(node, &actor, &id).await?))
        }
        ChatCommand::Members(id) => ChatReply::Members(action::members(node, &actor, &id).await?),
        ChatCommand::Receipts(id) => ChatReply::Receipts(action::receipts(node, &actor, &id).await?),
        ChatCommand::Manage { conversation, action } => {
            action::manage(node, &actor, &conversation, action).await?;
            return Ok(Done::Reply(Reply::Done));
        }
        ChatCommand::Mark { conversation, seq, read } => {
            action::mark(node, who, &conversation, seq, read).await?;
            return Ok(Done::Reply(Reply::Done));
        }
        ChatCommand::Change(wanted) => {
            return action::change(node, &actor, Some(client), wanted).await.map(Done::Accepted);
        }
    };
    Ok(Done::Reply(Reply::Chat(reply)))
}
