//! What is kept of users.

use async_trait::async_trait;

use super::{PostgresStore, sql};
use crate::{
    domain::{ConversationId, UserId},
    store::{
        StoreError, Users,
        row::{signed, unreadable, unsigned},
    },
};

#[async_trait]
impl Users for PostgresStore {
    async fn note_seen(&self, seen: &[(UserId, u64)]) -> Result<(), StoreError> {
        let users: Vec<&str> = seen.iter().map(|(user, _)| user.as_str()).collect();
        let times = seen.iter().map(|(_, ms)| signed(*ms)).collect::<Result<Vec<i64>, _>>()?;
        self.query(sql::NOTE_SEEN, &[&users, &times]).await.map(drop)
    }

    async fn last_seen(&self, users: &[UserId]) -> Result<Vec<(UserId, u64)>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(sql::LAST_SEEN, &[&users]).await?;
        let read = |row: &tokio_postgres::Row| {
            let user = UserId::parse(row.get(0)).map_err(|_| unreadable("a user id"))?;
            Ok((user, unsigned(row.get(1))?))
        };
        rows.iter().map(read).collect()
    }

    async fn sharing(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let direct: Vec<Option<ConversationId>> =
            others.iter().map(|other| ConversationId::direct(user, other).ok()).collect();
        let direct: Vec<Option<&str>> =
            direct.iter().map(|id| id.as_ref().map(ConversationId::as_str)).collect();
        let others: Vec<&str> = others.iter().map(UserId::as_str).collect();
        let rows = self.query(sql::SHARING, &[&user.as_str(), &others, &direct]).await?;
        let read = |row: &tokio_postgres::Row| UserId::parse(row.get(0)).map_err(|_| unreadable("a user id"));
        rows.iter().map(read).collect()
    }
}
