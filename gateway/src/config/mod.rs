//! Configuration: flags over environment over file over defaults.
//!
//! May use: the types that other rooms have for their settings. Deliberately absent: opening or starting anything.

mod chat;
mod check;
mod socketio;

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use serde::Deserialize;
use shared::{
    auth::TokenRules,
    config::{over, read},
    domain::{Kinds, NodeId},
    telemetry::LogFormat,
};

use self::{chat::ChatSettings, socketio::SocketIoFlags};
use crate::{
    action::AckMode,
    api_key::{ApiKeys, Scope},
    connection::socketio::SocketIoSettings,
    limits::LimitSettings,
};

/// A Starling gateway: holds client connections and delivers messages to them.
///
/// Without any configuration it runs standalone: everything in this process, messages in one SQLite file. With
/// REDIS_URL and DATABASE_URL it is one node of a cluster, beside any number of other gateways and persisters.
#[derive(Parser, Debug, Clone, Default)]
#[command(name = "gateway", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[expect(clippy::doc_markdown, reason = "the comments are what --help prints")]
pub struct Flags {
    /// TOML file with any of the settings below, named as the flags with `_` for `-`. Those from trusted-proxies on are in
    /// its table `[limits]`, those that begin with socketio in its table `[socketio]`.
    #[arg(long, env = "STARLING_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Something else to do than to run.
    #[command(subcommand)]
    pub tool: Option<Tool>,
}

/// What the binary does beside running a gateway.
#[derive(clap::Subcommand, Debug, Clone)]
pub enum Tool {
    /// Make a key for an application server, and print it once, with the line that configures it.
    ApiKey {
        /// What the key is called: letters, digits, `-`, `_`, `.`.
        name: String,
        /// What it allows; may be given several times.
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<Scope>,
    },
}

const EXAMPLES: &str = "Examples:
  gateway                                     standalone, with a chat page and tokens for trying it out
  gateway --listen 0.0.0.0:8000 --token-hmac-secret \"$(cat secret)\"
  REDIS_URL=redis://… DATABASE_URL=postgres://… gateway --config starling.toml";

/// Every setting, each optional: a file and the flags both give some of them.
#[derive(clap::Args, Deserialize, Debug, Clone, Default)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::doc_markdown, rustdoc::bare_urls, reason = "the comments are what --help prints")]
struct Settings {
    /// Redis 7 or later of the cluster, such as `redis://127.0.0.1:6379`. If it is a Redis Cluster, several addresses may be
    /// given, separated by commas.
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Postgres 14 or later of the cluster, such as `postgres://user@host/starling`.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Address for clients [default: 127.0.0.1:8000].
    #[arg(long, env = "STARLING_LISTEN", value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Address for /healthz, /readyz and /metrics [default: 127.0.0.1:9100].
    #[arg(long, env = "STARLING_HEALTH_LISTEN", value_name = "HOST:PORT")]
    health_listen: Option<SocketAddr>,
    /// Address by which other nodes reach this one's clients' port [default: that of --listen].
    #[arg(long, env = "STARLING_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<SocketAddr>,
    /// Name of this process, unique in the cluster [default: random].
    #[arg(long, env = "STARLING_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Directory of the SQLite file and of the development key [default: data].
    #[arg(long, env = "STARLING_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Secret that signs clients' tokens (HS256), at least 32 bytes. Turns /dev/token off.
    #[arg(long, env = "STARLING_TOKEN_HMAC_SECRET", value_name = "SECRET", hide_env_values = true)]
    token_hmac_secret: Option<String>,
    /// More keys that sign clients' tokens, comma-separated: `ALGORITHM[:KID]=KEY`, where KEY is a public key in PEM, a secret
    /// for HS…, or `@FILE` with one. Turns /dev/token off.
    #[arg(
        long,
        env = "STARLING_TOKEN_KEYS",
        value_delimiter = ',',
        value_name = "KEYS",
        hide_env_values = true
    )]
    token_keys: Option<Vec<String>>,
    /// Issuers that publish their keys, comma-separated: `ISSUER URL`, the `iss` of their tokens and where the JWK set is.
    #[arg(long, env = "STARLING_TOKEN_JWKS", value_delimiter = ',', value_name = "ISSUERS")]
    token_jwks: Option<Vec<String>>,
    /// What `iss` must be in tokens that are signed with the secret or one of the keys [default: not looked at].
    #[arg(long, env = "STARLING_TOKEN_ISSUER", value_name = "ISSUER")]
    token_issuer: Option<String>,
    /// One of these must be in `aud` of every token, comma-separated [default: not looked at].
    #[arg(long, env = "STARLING_TOKEN_AUDIENCE", value_delimiter = ',', value_name = "NAMES")]
    token_audience: Option<Vec<String>>,
    /// How far ahead a token may expire; revocations are kept as long [default: 2592000, thirty days].
    #[arg(long, env = "STARLING_TOKEN_SECONDS_MAX", value_name = "SECONDS")]
    token_seconds_max: Option<u64>,
    /// Allows a cluster without a signing key: anyone who can reach it gets a token from /dev/token.
    #[arg(long, env = "STARLING_DEV", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    dev: Option<bool>,
    /// Which commit a publish is acknowledged after [default: accepted in a cluster, stored standalone].
    #[arg(long, env = "STARLING_ACK_MODE", value_name = "MODE")]
    ack_mode: Option<AckMode>,
    /// Replicas of Redis that must confirm a publish [default: 0].
    #[arg(long, env = "STARLING_ACK_WAIT_REPLICAS", value_name = "N")]
    ack_wait_replicas: Option<u32>,
    /// Origins of web pages that may connect beside this server's own, comma-separated.
    #[arg(long, env = "STARLING_ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGINS")]
    allowed_origins: Option<Vec<String>>,
    /// Keys of application servers, comma-separated, each `name:scope+scope:sha256hex` as `gateway api-key` prints it.
    #[arg(
        long,
        env = "STARLING_API_KEYS",
        value_delimiter = ',',
        value_name = "KEYS",
        hide_env_values = true
    )]
    api_keys: Option<Vec<String>>,
    /// Seconds for which browsers are told to come by HTTPS alone; 0 says nothing [default: 0].
    #[arg(long, env = "STARLING_HSTS_SECONDS", value_name = "SECONDS")]
    hsts_seconds: Option<u64>,
    /// Partitions of the log; fixed when the database is first used [default: 64].
    #[arg(long, env = "STARLING_PARTITIONS", value_name = "N")]
    partitions: Option<u16>,
    /// Entries that the log of one partition may hold before publishes are refused [default: 1000000].
    #[arg(long, env = "STARLING_BACKLOG_ENTRIES_MAX", value_name = "N")]
    backlog_entries_max: Option<u64>,
    /// Bytes of a message body [default: 32768].
    #[arg(long, env = "STARLING_BODY_BYTES_MAX", value_name = "BYTES")]
    body_bytes_max: Option<usize>,
    /// Bytes that may wait for one blocked client before it is closed as slow [default: 1048576].
    #[arg(long, env = "STARLING_OUTBOX_BYTES_MAX", value_name = "BYTES")]
    outbox_bytes_max: Option<usize>,
    /// Conversations that one connection may be in [default: 1000].
    #[arg(long, env = "STARLING_SUBSCRIPTIONS_MAX", value_name = "N")]
    subscriptions_max: Option<usize>,
    /// Messages that one resume returns before it says `limited` [default: 500].
    #[arg(long, env = "STARLING_CATCHUP_MESSAGES_MAX", value_name = "N")]
    catchup_messages_max: Option<usize>,
    /// Bytes of bodies that one resume returns before it says `limited` [default: 1048576].
    #[arg(long, env = "STARLING_CATCHUP_BYTES_MAX", value_name = "BYTES")]
    catchup_bytes_max: Option<usize>,
    /// Seconds that a conversation without members stays subscribed [default: 30].
    #[arg(long, env = "STARLING_LINGER_SECONDS", value_name = "SECONDS")]
    linger_seconds: Option<u64>,
    /// Seconds between two comparisons of positions with Redis [default: 15].
    #[arg(long, env = "STARLING_POSITION_CHECK_SECONDS", value_name = "SECONDS")]
    position_check_seconds: Option<u64>,
    /// Seconds that a connection counts as there after its node was last heard of; the same on all nodes [default: 60].
    #[arg(long, env = "STARLING_PRESENCE_SECONDS", value_name = "SECONDS")]
    presence_seconds: Option<u64>,
    /// Seconds of silence after which the subscriber connection is probed, and then again until it is given up [default: 5].
    #[arg(long, env = "STARLING_PROBE_SECONDS", value_name = "SECONDS")]
    probe_seconds: Option<u64>,
    /// Seconds over which clients are sent away at shutdown [default: 1 standalone, 10 in a cluster].
    #[arg(long, env = "STARLING_DRAIN_SECONDS", value_name = "SECONDS")]
    drain_seconds: Option<u64>,
    /// Seconds between being told to stop and sending clients away, for balancers to notice [default: 0 standalone, 5].
    #[arg(long, env = "STARLING_DRAIN_DELAY_SECONDS", value_name = "SECONDS")]
    drain_delay_seconds: Option<u64>,
    /// Kinds of conversations, with their roles: in the file alone, as its table `[chat]`.
    #[arg(skip)]
    chat: Option<ChatSettings>,
    #[command(flatten)]
    socketio: SocketIoFlags,
    /// Log as `text` or `json` [default: text]; RUST_LOG filters it.
    #[arg(long, env = "STARLING_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(flatten)]
    limits: LimitSettings,
}

/// Conversations that one connection may be in, when nobody says otherwise.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;

/// Where the state is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// In this process and one file.
    Standalone,
    /// In Redis and Postgres.
    Cluster {
        /// Redis.
        redis_url: String,
        /// Postgres.
        database_url: String,
    },
}

/// The configuration, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the state is.
    pub mode: Mode,
    /// Address for clients.
    pub listen: SocketAddr,
    /// Address for health and metrics.
    pub health_listen: SocketAddr,
    /// Where other nodes reach it, if not there.
    pub advertise: Option<SocketAddr>,
    /// Name of this process.
    pub node: NodeId,
    /// Directory of files.
    pub data_dir: PathBuf,
    /// The real signing key, if there is one.
    pub token_hmac_secret: Option<String>,
    /// More signing keys: `ALGORITHM[:KID]=KEY`.
    pub token_keys: Vec<String>,
    /// Issuers that publish their keys: `ISSUER URL`.
    pub token_jwks: Vec<String>,
    /// `iss` of tokens that are signed with the keys above.
    pub token_issuer: Option<String>,
    /// What is asked of every token.
    pub token_rules: TokenRules,
    /// See [`AckMode`].
    pub ack_mode: AckMode,
    /// Replicas that must confirm.
    pub ack_wait_replicas: u32,
    /// Origins beside the own.
    pub allowed_origins: Vec<String>,
    /// Keys of application servers.
    pub api_keys: ApiKeys,
    /// Seconds of HTTPS alone; 0 for none.
    pub hsts_seconds: u64,
    /// Partitions, if this process is the first of the installation.
    pub partitions: u16,
    /// Entries in one partition's log.
    pub backlog_entries_max: u64,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Bytes that may wait for one client.
    pub outbox_bytes_max: usize,
    /// Conversations of one connection.
    pub subscriptions_max: usize,
    /// Messages of one resume.
    pub catchup_messages_max: usize,
    /// Bytes of one resume.
    pub catchup_bytes_max: usize,
    /// Seconds of linger.
    pub linger_seconds: u64,
    /// Seconds between position checks.
    pub position_check_seconds: u64,
    /// Seconds that a connection counts as there without a sign of its node.
    pub presence_seconds: u64,
    /// Seconds of silence before a probe, and for its answer.
    pub probe_seconds: u64,
    /// Seconds between being told to stop and sending clients away.
    pub drain_delay_seconds: u64,
    /// Kinds of conversations.
    pub kinds: Kinds,
    /// How much everybody together may ask for.
    pub limits: crate::limits::Settings,
    /// Seconds of drain.
    pub drain_seconds: u64,
    /// How Socket.IO is spoken.
    pub socketio: SocketIoSettings,
    /// How to log.
    pub log_format: LogFormat,
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
            Settings,
            self,
            file;
            redis_url,
            database_url,
            listen,
            health_listen,
            advertise,
            node,
            data_dir,
            token_hmac_secret,
            token_keys,
            token_jwks,
            token_issuer,
            token_audience,
            token_seconds_max,
            dev,
            ack_mode,
            ack_wait_replicas,
            allowed_origins,
            api_keys,
            hsts_seconds,
            partitions,
            backlog_entries_max,
            body_bytes_max,
            outbox_bytes_max,
            subscriptions_max,
            catchup_messages_max,
            catchup_bytes_max,
            linger_seconds,
            position_check_seconds,
            presence_seconds,
            probe_seconds,
            drain_seconds,
            drain_delay_seconds,
            chat,
            socketio,
            log_format,
            limits,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_flag_goes_over_the_file() {
        let flags = settings("linger_seconds = 7");
        let config = flags.over(settings("linger_seconds = 9\ndrain_seconds = 3")).check().unwrap();
        assert_eq!((config.linger_seconds, config.drain_seconds), (7, 3));
        assert_eq!((config.mode, config.ack_mode), (Mode::Standalone, AckMode::Stored));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        for (toml, names) in [
            ("redis_url = 'redis://x'", "DATABASE_URL"),
            ("database_url = 'postgres://x'", "REDIS_URL"),
            ("redis_url = 'r'\ndatabase_url = 'd'", "STARLING_TOKEN_HMAC_SECRET"),
            ("token_hmac_secret = 'short'", "STARLING_TOKEN_HMAC_SECRET"),
            ("partitions = 0", "partitions"),
            ("token_seconds_max = 0", "token_seconds_max"),
            ("probe_seconds = 0", "probe_seconds"),
            ("[limits]\nconnections_max = 0", "connections_max"),
            ("[limits]\npublishes_per_user_burst = 0", "publishes_per_user_burst"),
        ] {
            let error = settings(toml).check().unwrap_err().to_string();
            assert!(error.contains(names), "{toml}: {error}");
        }
        assert!(toml::from_str::<Settings>("no_such_setting = 1").is_err());
        for zero in ["linger_seconds = 0", "drain_seconds = 0", "[limits]\ntrusted_proxies = 0"] {
            settings(zero).check().unwrap();
        }
    }
}
