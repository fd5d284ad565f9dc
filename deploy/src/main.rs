//! `cluster`: a whole Starling cluster on this machine, until Ctrl-C.

#![expect(clippy::print_stdout, reason = "it is a command line tool: what it prints is its result")]

use std::{collections::HashSet, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use deploy::{Cluster, ClusterOptions, RedisClusterOptions};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// How soon the death of a part is noticed.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Starts a Starling cluster on this machine: a private Redis (append-only file on) and Postgres, gateways, persisters, and HAProxy
/// in front of the gateways. Everything listens on 127.0.0.1 only. Ctrl-C stops everything and removes all data.
///
/// It runs the `gateway` and `persister` that lie beside it, or in `STARLING_BIN_DIR`; `make cluster` builds them first.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// Number of gateways.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    gateways: u16,
    /// Number of persisters. With 0 nothing is stored, and Redis keeps everything.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=64))]
    persisters: u16,
    /// What Redis is.
    #[arg(long, value_enum, default_value_t)]
    redis: Redis,
    /// Primaries of a Redis Cluster, which share the conversations; fewer than 3 cannot replace a dead one.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    redis_shards: u16,
    /// Replicas of each server of a Redis Cluster.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4))]
    redis_replicas: u16,
    /// Port of HAProxy. The gateways get the ports after it. With 0 all of them get free ones.
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u16).range(0..=65_000))]
    port: u16,
    /// Only gateways, no HAProxy in front. The first one listens on the port after `--port`.
    #[arg(long)]
    no_haproxy: bool,
    /// One more setting of each gateway, such as `STARLING_CONNECTIONS_PER_ADDRESS_MAX=100000`; several times for several.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    gateway_env: Vec<(String, String)>,
    /// Say where everything is as one line of JSON, for scripts.
    #[arg(long)]
    json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Redis {
    /// One server.
    #[default]
    Server,
    /// A Redis Cluster.
    Cluster,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut stopped = async || tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} };

    eprintln!(
        "Starting Redis, Postgres, {} gateways, {} persisters …",
        arguments.gateways, arguments.persisters
    );
    let redis_cluster = (arguments.redis == Redis::Cluster).then(|| RedisClusterOptions {
        primaries: arguments.redis_shards.into(),
        replicas: arguments.redis_replicas.into(),
        ..RedisClusterOptions::default()
    });
    let options = ClusterOptions {
        redis_cluster,
        gateways: arguments.gateways.into(),
        persisters: arguments.persisters.into(),
        haproxy: !arguments.no_haproxy,
        port: (arguments.port > 0).then_some(arguments.port),
        gateway_env: arguments.gateway_env.clone(),
        ..ClusterOptions::default()
    };
    let started = tokio::select! {
        started = Cluster::start(options) => Some(started?),
        () = stopped() => None,
    };
    let Some(mut cluster) = started else {
        eprintln!("Interrupted; what had been started is stopped.");
        return Ok(());
    };
    if arguments.json {
        println!("{}", as_json(&mut cluster));
    } else {
        println!("{}", describe(&cluster, arguments));
    }
    tokio::select! {
        () = watch(&mut cluster) => {}
        () = stopped() => {}
    }
    eprintln!("\nStopping …");
    cluster.stop().await?;
    eprintln!("Everything is stopped and its data are removed.");
    Ok(())
}

fn as_json(cluster: &mut Cluster) -> serde_json::Value {
    let processes: Vec<_> =
        cluster.processes().map(|process| json!({ "name": process.name(), "pid": process.pid() })).collect();
    json!({
        "gateway_urls": cluster.gateway_urls(),
        "balancer_url": cluster.balancer_url(),
        "redis_url": cluster.redis_url(),
        "database_url": cluster.database_url(),
        "log_dir": cluster.log_dir(),
        "processes": processes,
    })
}

fn describe(cluster: &Cluster, arguments: &Arguments) -> String {
    let mut lines = vec!["\nThe cluster is ready.\n".to_owned()];
    let entry = cluster.balancer_url().unwrap_or_else(|| cluster.gateway_url(0));
    if let Some(url) = cluster.balancer_url() {
        lines.push(format!("  HAProxy      {url}"));
    }
    for (index, url) in cluster.gateway_urls().into_iter().enumerate() {
        lines.push(format!(
            "  gateway-{index}    {url}   health {}/readyz",
            cluster.gateway_health_url(index)
        ));
    }
    for index in 0..usize::from(arguments.persisters) {
        lines.push(format!("  persister-{index}  health {}/readyz", cluster.persister_health_url(index)));
    }
    lines.push(format!("  Redis        {}", cluster.redis_url()));
    lines.push(format!("  Postgres     {}", cluster.database_url()));
    lines.push(format!("  logs         {}", cluster.log_dir().display()));
    lines.push(format!("\n  chat page    {entry}/"));
    lines.push(format!("  a token      curl '{entry}/dev/token?user=alice'"));
    lines.push("\nCtrl-C stops everything and removes all data.".to_owned());
    lines.join("\n")
}

/// Says so when a part has died. The others go on: seeing that they do is what some people start a cluster for.
async fn watch(cluster: &mut Cluster) {
    let mut dead = HashSet::new();
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        for process in cluster.processes() {
            if !process.is_running() && dead.insert(process.name().to_owned()) {
                eprintln!("\n{} has died; the others go on.\n{}", process.name(), process.log_tail());
            }
        }
    }
}
