//! What is kept of users.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::{SqliteStore, sql};
use crate::{
    domain::{ConversationId, UserId},
    store::{
        StoreError, Users,
        row::{signed, unsigned},
    },
};

#[async_trait]
impl Users for SqliteStore {
    async fn note_seen(&self, seen: &[(UserId, u64)]) -> Result<(), StoreError> {
        let seen = seen
            .iter()
            .map(|(user, ms)| Ok((user.clone(), signed(*ms)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let note = move |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            for (user, ms) in seen {
                transaction.execute(sql::NOTE_SEEN, params![user.as_str(), ms])?;
            }
            Ok(transaction.commit()?)
        };
        self.0.writes.call(note).await
    }

    async fn last_seen(&self, users: &[UserId]) -> Result<Vec<(UserId, u64)>, StoreError> {
        let users = users.to_vec();
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::LAST_SEEN)?;
            let mut seen = Vec::with_capacity(users.len());
            for user in users {
                if let Some(ms) = statement.query_row([user.as_str()], |row| row.get(0)).optional()? {
                    seen.push((user, unsigned(ms)?));
                }
            }
            Ok(seen)
        };
        self.0.reads.call(read).await
    }

    async fn share_conversation(&self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        let direct = ConversationId::direct(one, other).ok();
        let (one, other) = (one.clone(), other.clone());
        let read = move |db: &mut rusqlite::Connection| {
            let direct = direct.as_ref().map(ConversationId::as_str);
            let mut statement = db.prepare_cached(sql::SHARE_CONVERSATION)?;
            Ok(statement.query_row(params![one.as_str(), other.as_str(), direct], |row| row.get(0))?)
        };
        self.0.reads.call(read).await
    }
}
