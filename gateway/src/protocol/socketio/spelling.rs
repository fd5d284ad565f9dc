//! What events are called. Apps differ, so every name can be changed.

use std::collections::HashMap;

/// What a client can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Says who it is, which the token says already.
    RegisterUser,
    /// Joins a conversation.
    JoinConversation,
    /// Leaves it.
    LeaveConversation,
    /// Sends a message.
    SendMessage,
    /// Types.
    Typing,
    /// Has stopped to type.
    StopTyping,
    /// Has read.
    MarkRead,
    /// Has received.
    MarkDelivered,
    /// Lets a message say something else.
    EditMessage,
    /// Takes a message back.
    DeleteMessage,
    /// Reacts to a message.
    AddReaction,
    /// Takes a reaction back.
    RemoveReaction,
}

impl Ask {
    const ALL: [(Self, &'static str); 12] = [
        (Self::RegisterUser, "register_user"),
        (Self::JoinConversation, "join_conversation"),
        (Self::LeaveConversation, "leave_conversation"),
        (Self::SendMessage, "send_message"),
        (Self::Typing, "typing"),
        (Self::StopTyping, "stop_typing"),
        (Self::MarkRead, "mark_read"),
        (Self::MarkDelivered, "mark_delivered"),
        (Self::EditMessage, "edit_message"),
        (Self::DeleteMessage, "delete_message"),
        (Self::AddReaction, "add_reaction"),
        (Self::RemoveReaction, "remove_reaction"),
    ];
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Say {
    /// Somebody has sent a message.
    NewMessage,
    /// A message now says something else.
    MessageEdited,
    /// A message is taken back.
    MessageDeleted,
    /// Somebody has reacted to a message.
    MessageReaction,
    /// Who is in a conversation, or what it is called, has changed.
    ConversationChanged,
    /// Somebody has read.
    MessageRead,
    /// Somebody types, or has stopped.
    UserTyping,
    /// A user has come.
    UserOnline,
    /// A user has gone.
    UserOffline,
    /// A connection has joined.
    UserJoined,
    /// A connection has left.
    UserLeft,
    /// How many are in a large conversation.
    Occupancy,
    /// How much is not read.
    Unread,
    /// Something for the user, from the server.
    Notification,
    /// What members tell each other past the log.
    Signal,
    /// One is in a conversation no longer.
    RemovedFromConversation,
    /// More was missed than is sent: the history has it.
    CatchUpLimited,
    /// What was asked without wanting an answer is refused.
    Error,
    /// The connection has begun; apps need not look.
    Session,
}

impl Say {
    const ALL: [(Self, &'static str); 19] = [
        (Self::NewMessage, "new_message"),
        (Self::MessageEdited, "message_edited"),
        (Self::MessageDeleted, "message_deleted"),
        (Self::MessageReaction, "message_reaction"),
        (Self::ConversationChanged, "conversation_changed"),
        (Self::MessageRead, "message_read"),
        (Self::UserTyping, "user_typing"),
        (Self::UserOnline, "user_online"),
        (Self::UserOffline, "user_offline"),
        (Self::UserJoined, "user_joined"),
        (Self::UserLeft, "user_left"),
        (Self::Occupancy, "occupancy"),
        (Self::Unread, "unread"),
        (Self::Notification, "notification"),
        (Self::Signal, "signal"),
        (Self::RemovedFromConversation, "removed_from_conversation"),
        (Self::CatchUpLimited, "catch_up_limited"),
        (Self::Error, "error"),
        (Self::Session, "session"),
    ];
}

/// A spelling makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpellingError {
    /// There is no such event.
    #[error("`{0}` is not `event=name` with an event that Socket.IO clients know")]
    NoEvent(String),
    /// Two events would have the same name.
    #[error("two events are called `{0}`")]
    Twice(String),
}

/// What events are called in one deployment.
#[derive(Debug, Clone)]
pub struct Spelling {
    asks: HashMap<String, Ask>,
    /// Each as JSON text.
    says: HashMap<Say, String>,
}

impl Default for Spelling {
    fn default() -> Self {
        let asks = Ask::ALL.map(|(ask, name)| (name.to_owned(), ask)).into();
        let says = Say::ALL.map(|(say, name)| (say, json(name))).into();
        Self { asks, says }
    }
}

impl Spelling {
    /// Changes names: each `event=name`, the event by the name that it has without a change.
    ///
    /// # Errors
    /// With the one that makes no sense.
    pub fn new(changes: &[String]) -> Result<Self, SpellingError> {
        let mut spelling = Self::default();
        for change in changes {
            let no_event = || SpellingError::NoEvent(change.clone());
            let (event, name) = change.trim().split_once('=').ok_or_else(no_event)?;
            if name.is_empty() {
                return Err(no_event());
            }
            if let Some((ask, _)) = Ask::ALL.iter().find(|(_, known)| *known == event) {
                spelling.asks.retain(|_, known| known != ask);
                if spelling.asks.insert(name.to_owned(), *ask).is_some() {
                    return Err(SpellingError::Twice(name.to_owned()));
                }
            } else if let Some((say, _)) = Say::ALL.iter().find(|(_, known)| *known == event) {
                if spelling.says.values().any(|known| *known == json(name)) {
                    return Err(SpellingError::Twice(name.to_owned()));
                }
                spelling.says.insert(*say, json(name));
            } else {
                return Err(no_event());
            }
        }
        Ok(spelling)
    }

    /// What a client means by the name of an event.
    pub fn ask(&self, name: &str) -> Option<Ask> {
        self.asks.get(name).copied()
    }

    /// The name of an event, as JSON text.
    pub fn say(&self, say: Say) -> &str {
        &self.says[&say]
    }

    /// Whether the server has an event of this name, given as JSON text.
    pub fn says(&self, json: &str) -> bool {
        self.says.values().any(|known| known == json)
    }
}

fn json(name: &str) -> String {
    serde_json::to_string(name).expect("text can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_can_be_changed() {
        let changes = ["new_message=receive_message", "send_message=message"].map(str::to_owned);
        let spelling = Spelling::new(&changes).unwrap();
        assert_eq!(spelling.say(Say::NewMessage), "\"receive_message\"");
        assert_eq!(spelling.ask("message"), Some(Ask::SendMessage));
        assert_eq!(spelling.ask("send_message"), None);
        assert_eq!(spelling.ask("typing"), Some(Ask::Typing));
        for (say, name) in Say::ALL {
            assert_eq!(Spelling::default().say(say), format!("\"{name}\""));
        }
    }

    #[test]
    fn names_are_of_one_event() {
        for bad in
            ["", "new_message", "new_message=", "nothing=x", "new_message=user_typing", "typing=mark_read"]
        {
            assert!(Spelling::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
