//! Which errors of Postgres mean that the data are at fault.

use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::SqlState};

use super::StoreError;

/// SQLSTATE classes that blame the data: data exception, integrity constraint violation, program limit exceeded.
/// Everything else may pass without the data being changed: a lost connection, a failover, a lock that was not given,
/// and also a missing table or right, which an operator repairs. To take those for a bad message would lose it.
const DATA_CLASSES: [&str; 3] = ["22", "23", "54"];

/// The error without what Postgres says in its detail: that quotes the row, and bodies never reach a log.
pub(super) fn store_error(error: &Error) -> StoreError {
    let Some(answer) = error.as_db_error() else { return StoreError::Unavailable(error.to_string()) };
    let code = answer.code().code();
    let text = format!("{} ({code})", answer.message());
    if DATA_CLASSES.iter().any(|class| code.starts_with(class)) {
        StoreError::Rejected(text)
    } else {
        StoreError::Unavailable(text)
    }
}

/// Whether a row was there already.
pub(super) fn is_duplicate(error: &Error) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

pub(super) fn pool_error(error: &PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) => store_error(error),
        other => StoreError::Unavailable(other.to_string()),
    }
}
