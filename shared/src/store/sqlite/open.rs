//! Opens the file: one process, one connection that writes, one that reads.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, params};

use super::{StoreError, sql};
use crate::store::{
    migration::{Migration, pending},
    row::new_installation,
};

const MIGRATIONS: [Migration; 4] = [
    Migration { version: 1, sql: include_str!("../../../migrations/sqlite/0001_spine.sql") },
    Migration { version: 2, sql: include_str!("../../../migrations/sqlite/0002_members_by_user.sql") },
    Migration { version: 3, sql: include_str!("../../../migrations/sqlite/0003_chat.sql") },
    Migration { version: 4, sql: include_str!("../../../migrations/sqlite/0004_users.sql") },
];

/// Keeps every other process from the file until it is dropped.
pub(super) struct FileLock(File);

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing would not do: a child that is being started has this file too until it runs its own program, and the
        // lock would stay for as long. Of an error there is nobody to tell; then closing has to do.
        drop(self.0.unlock());
    }
}

/// Takes the lock of the file at `path`, without waiting.
pub(super) fn lock(path: &Path) -> Result<FileLock, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", name.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock(file)),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::Unavailable(format!("{} is in use by another process", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The connection that writes. What it has committed survives the loss of power.
pub(super) fn for_writing(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// The connection that reads; it sees what is committed, and never waits for the one that writes.
pub(super) fn for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    connection.execute(sql::MIGRATION_TABLE, [])?;
    let applied: Vec<(i64, String)> = connection
        .prepare(sql::MIGRATIONS)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for migration in pending(&MIGRATIONS, &applied)? {
        tracing::info!(version = migration.version, "migrating the store");
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration.sql)?;
        transaction.execute(sql::MIGRATION_INSERT, params![migration.version, migration.checksum()])?;
        transaction.commit()?;
    }
    connection.execute(sql::INSTALLATION_INSERT, [new_installation()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::lock;

    /// A child has what its parent had open, between its start and the start of its program.
    #[test]
    fn what_a_child_still_has_open_keeps_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locked.db");
        let held = lock(&path).unwrap();
        let of_child = held.0.try_clone().unwrap();
        assert!(lock(&path).is_err());
        drop(held);
        drop(lock(&path).unwrap());
        drop(of_child);
    }
}
