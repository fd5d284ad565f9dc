//! The parts of a path that several endpoints name.

use shared::domain::{ConversationId, Refusal, UserId};

use super::problem::Problem;

/// Reads the id of a conversation. What is no id names no conversation, which a stranger is told like a foreign one.
pub fn conversation_id(text: &str) -> Result<ConversationId, Refusal> {
    ConversationId::parse(text).map_err(|_| Refusal::Forbidden)
}

/// Reads the id of a user.
pub fn user_id(text: &str) -> Result<UserId, Problem> {
    UserId::parse(text).map_err(|error| Problem::invalid(error.to_string()))
}
