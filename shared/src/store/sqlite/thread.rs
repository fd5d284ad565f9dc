//! A connection to SQLite on a thread of its own, since every call blocks.

use std::thread::JoinHandle;

use rusqlite::{Connection, Error, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// How many calls may wait for a connection; further callers wait until there is room.
const CALLS_MAX: usize = 256;

type Call = Box<dyn FnOnce(&mut Connection) + Send>;

/// A connection and its thread. Dropping it waits until what was asked is done.
pub(super) struct Thread {
    calls: Option<mpsc::Sender<Call>>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Hands the connection to a new thread named `name`.
    pub fn start(name: &str, mut connection: Connection) -> Result<Self, StoreError> {
        let (calls, mut waiting) = mpsc::channel::<Call>(CALLS_MAX);
        let run = move || {
            while let Some(call) = waiting.blocking_recv() {
                call(&mut connection);
            }
        };
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|error| StoreError::Unavailable(format!("no thread for SQLite: {error}")))?;
        Ok(Self { calls: Some(calls), handle: Some(handle) })
    }

    /// Runs `call` with the connection. It is run to its end even if nobody waits for it any more.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            // Whoever asked may have gone away.
            drop(answer.send(call(connection)));
        });
        let ended = || StoreError::Unavailable("the thread of SQLite has ended".to_owned());
        let calls = self.calls.as_ref().ok_or_else(ended)?;
        calls.send(call).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The thread ends when nobody can ask it any more.
        self.calls = None;
        if let Some(handle) = self.handle.take() {
            // It has panicked, which the panic hook has reported.
            drop(handle.join());
        }
    }
}

/// Only what blames the data is for ever; a full disk or a broken file is for the operator, and losing messages over
/// it would be worse than waiting.
pub(super) fn store_error(error: &Error) -> StoreError {
    let blames_data = match error {
        Error::SqliteFailure(failure, _) => {
            matches!(
                failure.code,
                ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch
            )
        }
        Error::ToSqlConversionFailure(_) => true,
        _ => false,
    };
    if blames_data {
        StoreError::Rejected(error.to_string())
    } else {
        StoreError::Unavailable(error.to_string())
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        store_error(&error)
    }
}
