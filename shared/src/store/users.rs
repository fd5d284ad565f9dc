//! What is kept of users beside their conversations.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::UserId;

/// What is kept of users.
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// Notes when users were last seen, in milliseconds since 1970; an earlier time than the one that is known changes
    /// nothing. No user may stand in it twice.
    async fn note_seen(&self, seen: &[(UserId, u64)]) -> Result<(), StoreError>;

    /// When users were last seen; one of whom nothing was ever noted is not in it.
    async fn last_seen(&self, users: &[UserId]) -> Result<Vec<(UserId, u64)>, StoreError>;

    /// Those of `others` who are members of a conversation with `user`, or have a direct conversation with `user` in which
    /// something was said.
    async fn sharing(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError>;
}
