//! Flags that scenarios share.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use crate::{
    dialect::{Dialect, Transport},
    token::TokenSource,
};

/// The server, the clients, and where the result goes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Base URL of a node, such as `http://127.0.0.1:8000`; several times for several nodes
    #[arg(long = "url", value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub urls: Vec<String>,
    /// The protocol to speak
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Dialect,
    /// What carries it: `sse` and `http_stream` for Centrifuge, `polling` for Socket.IO
    #[arg(long, value_enum, default_value_t)]
    pub transport: Transport,
    /// The secret (HS256) with which the gateways check tokens; without it, tokens come from `/dev/token`
    #[arg(long, env = "TOKEN_SECRET", hide_env_values = true)]
    pub token_secret: Option<String>,
    /// The server knows no users and no rooms: no tokens, and rooms are not made before they are joined
    #[arg(long)]
    pub plain: bool,
    /// Address to connect from, such as 127.0.0.2; several times for more than 28,000 connections to one node
    #[arg(long = "source", value_name = "ADDRESS")]
    pub sources: Vec<IpAddr>,
    /// Worker processes that hold the connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// New connections in a second
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    pub connect_rate: f64,
    /// Bytes of a message's body, at least about 50
    #[arg(long, default_value_t = 100)]
    pub bytes: usize,
    /// Seconds to measure [default: 10; soak: an hour]
    #[arg(long, value_parser = positive)]
    pub seconds: Option<f64>,
    /// Seconds of load before the measurement
    #[arg(long, default_value_t = 2)]
    pub warmup: u32,
    /// A process of the server, on this machine, whose CPU and memory are measured; several times for several
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Address of a server's Prometheus metrics; its CPU and memory come from there if no `--pid` is given
    #[arg(long = "metrics", value_name = "URL")]
    pub metrics: Vec<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the report as a page with charts
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// What must hold
    #[command(flatten)]
    pub objectives: Objectives,
}

/// Seconds that are measured where nothing else is said.
const SECONDS: f64 = 10.0;

impl Common {
    /// Seconds to measure.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(SECONDS)
    }

    /// What goes wrong before anything is tried.
    ///
    /// # Errors
    /// When flags contradict each other.
    pub fn check(&self) -> anyhow::Result<()> {
        let Self { protocol, transport, .. } = self;
        anyhow::ensure!(transport.carries(*protocol), "{protocol:?} is not carried by {transport:?}");
        Ok(())
    }

    /// Where tokens come from.
    pub fn tokens(&self) -> Option<TokenSource> {
        if self.plain {
            return None;
        }
        Some(self.token_secret.clone().map_or(TokenSource::Dev, TokenSource::Secret))
    }

    /// Base URLs without a slash at the end.
    pub fn urls(&self) -> Vec<String> {
        self.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect()
    }
}

/// What must hold, or the exit code is 1. A delivery that is lost, repeated, out of order or astray is never accepted.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Objectives (exit code 1 when one is missed)")]
pub struct Objectives {
    /// Half of all deliveries are at most this late
    #[arg(long, value_name = "MS")]
    pub max_p50_ms: Option<f64>,
    /// 99 of 100 deliveries are at most this late
    #[arg(long, value_name = "MS")]
    pub max_p99_ms: Option<f64>,
    /// 99 of 100 broken connections have everything again within this time
    #[arg(long, value_name = "MS")]
    pub max_resume_p99_ms: Option<f64>,
    /// Messages that are refused, or whose outcome is unknown, in 100
    #[arg(long, value_name = "PERCENT")]
    pub max_failed_percent: Option<f64>,
    /// CPU time of all watched processes for each delivery
    #[arg(long, value_name = "US")]
    pub max_cpu_us: Option<f64>,
    /// Memory of all watched processes for each connection
    #[arg(long, value_name = "KIB")]
    pub max_kib: Option<f64>,
    /// How far the persister may be behind (needs `--metrics` of a persister)
    #[arg(long, value_name = "SECONDS")]
    pub max_lag_seconds: Option<f64>,
    /// How much memory may grow from the first tenth of the run to the last (soak)
    #[arg(long, value_name = "PERCENT")]
    pub max_growth_percent: Option<f64>,
}

/// A number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

/// A number from 0 on.
pub fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number >= 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number from 0 on is needed".to_owned()),
    }
}

/// A whole number above 0.
///
/// # Errors
/// When it is none.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number from 1 on is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}
