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

    async fn sharing(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let (user, mut others) = (user.clone(), others.to_vec());
        let read = move |db: &mut rusqlite::Connection| {
            let mut statement = db.prepare_cached(sql::IS_SHARING)?;
            let mut failure = None;
            others.retain(|other| {
                let direct = ConversationId::direct(&user, other).ok();
                let direct = direct.as_ref().map(ConversationId::as_str);
                let found =
                    statement.query_row(params![user.as_str(), other.as_str(), direct], |row| row.get(0));
                found.unwrap_or_else(|error| {
                    failure = Some(error);
                    false
                })
            });
            failure.map_or(Ok(others), |error| Err(error.into()))
        };
        self.0.reads.call(read).await
    }
}
