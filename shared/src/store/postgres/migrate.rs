//! Brings a Postgres database up to this program's schema.

use tokio_postgres::Config;

use super::{
    StoreError,
    error::store_error,
    session::{LockClass, NO_PARTITION, Session, answer},
    sql,
};
use crate::store::{
    migration::{Migration, pending},
    row::new_installation,
};

const MIGRATIONS: [Migration; 4] = [
    Migration { version: 1, sql: include_str!("../../../migrations/postgres/0001_spine.sql") },
    Migration { version: 2, sql: include_str!("../../../migrations/postgres/0002_members_by_user.sql") },
    Migration { version: 3, sql: include_str!("../../../migrations/postgres/0003_chat.sql") },
    Migration { version: 4, sql: include_str!("../../../migrations/postgres/0004_users.sql") },
];

/// Runs what is missing. Processes that start at once wait for each other; the lock ends with the session.
pub(super) async fn migrate(config: &Config) -> Result<(), StoreError> {
    let mut session = Session::open(config, sql::MIGRATION_SETTINGS).await?;
    // Not bounded by the time that an answer may take, nor is the migration: it may have to rewrite a large table.
    let wait = session.client.query_one(sql::LOCK, &[&(LockClass::Migration as i32), &NO_PARTITION]);
    wait.await.map_err(|error| store_error(&error))?;
    // Looked for first: a role that may use the tables but not make any is refused even `IF NOT EXISTS`.
    if !answer(session.client.query_one(sql::HAS_MIGRATIONS, &[])).await?.get::<_, bool>(0) {
        answer(session.client.batch_execute(sql::MIGRATION_TABLE)).await?;
    }
    let rows = answer(session.client.query(sql::MIGRATIONS, &[])).await?;
    let applied: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for migration in pending(&MIGRATIONS, &applied)? {
        tracing::info!(version = migration.version, "migrating the store");
        let run = async {
            let transaction = session.client.transaction().await?;
            transaction.batch_execute(migration.sql).await?;
            transaction.execute(sql::MIGRATION_INSERT, &[&migration.version, &migration.checksum()]).await?;
            transaction.commit().await
        };
        run.await.map_err(|error| store_error(&error))?;
    }
    answer(session.client.execute(sql::INSTALLATION_INSERT, &[&new_installation()])).await?;
    Ok(())
}
