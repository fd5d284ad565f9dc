//! Configuration of the binary: flags over environment over file over defaults.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::bail;
use clap::Parser;
use serde::Deserialize;
use shared::{
    config::{over, read},
    domain::{PARTITIONS_DEFAULT, PARTITIONS_MAX},
    telemetry::LogFormat,
};

use crate::{
    consumer::{BATCH_ENTRIES_DEFAULT, PersisterConfig},
    failpoint::{self, Failpoint},
};

/// Most entries in one transaction: beyond it a transaction only takes longer.
pub const BATCH_ENTRIES_MAX: usize = 50_000;
/// Sessions of a persister. While Postgres writes what the one sends it, the other reads and decodes.
const SESSIONS_DEFAULT: usize = 2;
/// Most sessions of a persister: each is a process of Postgres.
const SESSIONS_MAX: usize = 16;

/// A Starling persister: drains the log in Redis into Postgres.
///
/// Run as many as you like: they share the partitions of the log evenly, and take over from one that dies within ten
/// seconds. Killing one at any point neither loses a message nor stores one twice.
#[derive(Parser, Debug, Clone, Default)]
#[command(name = "persister", version, after_help = EXAMPLES)]
pub struct Flags {
    /// TOML file with any of the settings below, named as the flags with `_` for `-`.
    #[arg(long, env = "STARLING_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "Examples:
  REDIS_URL=redis://127.0.0.1:6379 DATABASE_URL=postgres://starling@127.0.0.1/starling persister
  persister --config starling.toml --health-listen 0.0.0.0:9101 --log-format json
  curl http://127.0.0.1:9101/readyz";

/// Every setting, each optional: a file and the flags both give some of them.
#[derive(clap::Args, Deserialize, Debug, Clone, Default)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Redis 7 or later of the cluster, such as `redis://127.0.0.1:6379`. Required. If it is a Redis Cluster, several addresses
    /// may be given, separated by commas.
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Postgres 14 or later of the cluster, such as `postgres://user@host/starling`. Required.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Address for /healthz, /readyz and /metrics [default: 127.0.0.1:9101].
    #[arg(long, env = "STARLING_HEALTH_LISTEN", value_name = "HOST:PORT")]
    health_listen: Option<SocketAddr>,
    /// Name of this process, unique in the cluster [default: random].
    #[arg(long, env = "STARLING_PERSISTER", value_name = "NAME")]
    persister: Option<String>,
    /// Partitions of the log; fixed when the database is first used [default: 64].
    #[arg(long, env = "STARLING_PARTITIONS", value_name = "N")]
    partitions: Option<u16>,
    /// Log entries in one transaction, at most [default: 5000].
    #[arg(long, env = "STARLING_BATCH_ENTRIES", value_name = "N")]
    batch_entries: Option<usize>,
    /// Sessions with Postgres and Redis, each with partitions of its own [default: 2].
    #[arg(long, env = "STARLING_SESSIONS", value_name = "N")]
    sessions: Option<usize>,
    /// Log as `text` or `json` [default: text]; `RUST_LOG` filters it.
    #[arg(long, env = "STARLING_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// For fault tests only: abort at after-read, after-commit, after-notify or after-trim, with `:N` at the N-th passage.
    #[arg(long, env = failpoint::VARIABLE, value_name = "POINT[:N]", hide = true)]
    #[serde(skip)]
    failpoint: Option<Failpoint>,
}

/// The configuration, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Redis.
    pub redis_url: String,
    /// Postgres.
    pub database_url: String,
    /// Address for health and metrics.
    pub health_listen: SocketAddr,
    /// Partitions, if this process is the first of the installation.
    pub partitions: u16,
    /// How to log.
    pub log_format: LogFormat,
    /// What the loop needs to know.
    pub persister: PersisterConfig,
}

impl Flags {
    /// Reads the file, puts environment and flags over it, and checks the whole.
    ///
    /// # Errors
    /// With the setting at fault, and what it should be.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let file = read(self.config.as_deref())?;
        self.settings.over(file).check()
    }
}

impl Settings {
    fn over(self, file: Self) -> Self {
        over!(
            Settings, self, file;
            redis_url, database_url, health_listen, persister, partitions, batch_entries, sessions, log_format;
            // No file may set it.
            failpoint: self.failpoint
        )
    }

    fn check(self) -> anyhow::Result<Config> {
        let Some(redis_url) = self.redis_url else {
            bail!(
                "REDIS_URL is not set: a persister drains the log in Redis (a standalone gateway needs no persister)"
            )
        };
        let Some(database_url) = self.database_url else {
            bail!("DATABASE_URL is not set: a persister stores messages in Postgres")
        };
        let partitions = self.partitions.unwrap_or(PARTITIONS_DEFAULT);
        if partitions == 0 || partitions > PARTITIONS_MAX {
            bail!("partitions must be 1 to {PARTITIONS_MAX}");
        }
        let batch_entries = self.batch_entries.unwrap_or(BATCH_ENTRIES_DEFAULT);
        if batch_entries == 0 || batch_entries > BATCH_ENTRIES_MAX {
            bail!("batch_entries must be 1 to {BATCH_ENTRIES_MAX}");
        }
        let sessions = self.sessions.unwrap_or(SESSIONS_DEFAULT);
        if sessions == 0 || sessions > SESSIONS_MAX {
            bail!("sessions must be 1 to {SESSIONS_MAX}");
        }
        let name = self.persister.unwrap_or_else(|| format!("persister-{}", uuid::Uuid::new_v4().simple()));
        let persister = PersisterConfig {
            batch_entries,
            sessions,
            failpoint: self.failpoint,
            ..PersisterConfig::new(name)
        };
        Ok(Config {
            redis_url,
            database_url,
            health_listen: self.health_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9101))),
            partitions,
            log_format: self.log_format.unwrap_or_default(),
            persister,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: &str = "redis_url = 'redis://r'\ndatabase_url = 'postgres://d'\n";

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_flag_goes_over_the_file() {
        let flags = settings("batch_entries = 7\nlog_format = 'json'");
        let config =
            flags.over(settings(&format!("{URLS}batch_entries = 9\npartitions = 3"))).check().unwrap();
        assert_eq!((config.persister.batch_entries, config.partitions), (7, 3));
        assert_eq!((config.redis_url.as_str(), config.log_format), ("redis://r", LogFormat::Json));
        assert!(config.persister.name.starts_with("persister-"));
    }

    #[test]
    fn what_is_missing_or_out_of_bounds_is_refused_by_name() {
        for (toml, names) in [
            ("database_url = 'd'", "REDIS_URL"),
            ("redis_url = 'r'", "DATABASE_URL"),
            ("redis_url = 'r'\ndatabase_url = 'd'\npartitions = 0", "partitions"),
            ("redis_url = 'r'\ndatabase_url = 'd'\nbatch_entries = 0", "batch_entries"),
            ("redis_url = 'r'\ndatabase_url = 'd'\nsessions = 17", "sessions"),
        ] {
            let error = settings(toml).check().unwrap_err().to_string();
            assert!(error.contains(names), "{toml}: {error}");
        }
        assert!(
            toml::from_str::<Settings>("failpoint = 'after-read'").is_err(),
            "no file may set a failpoint"
        );
    }

    #[test]
    fn the_flags_are_well_formed() {
        use clap::CommandFactory;
        Flags::command().debug_assert();
    }
}
