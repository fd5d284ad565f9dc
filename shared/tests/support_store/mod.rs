//! Both stores, each on its own: what the suites of the store run on.

use std::{path::PathBuf, sync::Arc};

use deploy::{PostgresOptions, PostgresServer};
use shared::{
    domain::{ConversationId, UserId},
    store::{Store, postgres::PostgresStore, sqlite::SqliteStore},
};
use tempfile::TempDir;

/// Where the suite gets its stores from: one name, one database.
pub enum Bed {
    Sqlite(TempDir),
    Postgres(Box<PostgresServer>),
}

impl Bed {
    pub async fn postgres() -> Self {
        // Without fsync: nothing here loses power.
        let options = PostgresOptions { fsync: false, extra: Vec::new() };
        Self::Postgres(Box::new(PostgresServer::start(options).await.unwrap()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let Self::Sqlite(dir) = self else { panic!("only SQLite has files") };
        dir.path().join(name)
    }

    /// A new database.
    pub async fn make(&self, name: &str) -> Arc<dyn Store> {
        if let Self::Postgres(server) = self {
            server.create_database(name).await.unwrap();
        }
        self.open(name).await
    }

    /// A database that exists.
    pub async fn open(&self, name: &str) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(_) => Arc::new(SqliteStore::open(&self.path(name)).unwrap()),
            Self::Postgres(server) => Arc::new(PostgresStore::connect(&server.url(name)).await.unwrap()),
        }
    }
}

/// Makes one test of the function `suite` for each store.
#[macro_export]
macro_rules! on_both_stores {
    () => {
        #[tokio::test(flavor = "multi_thread")]
        async fn sqlite() {
            suite(&Bed::Sqlite(tempfile::tempdir().unwrap())).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn postgres() {
            suite(&Bed::postgres().await).await;
        }
    };
}

pub fn room(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}
