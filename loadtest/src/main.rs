//! The command line of the load tester.

use std::{fmt::Display, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use loadtest::{
    check::Durability,
    load, report,
    scenario::{Scenario, at_least_one},
    token::TokenSource,
    verify::{self, Options},
};
use serde::Serialize;

/// The exit code when the tester itself was the limit.
const LIMITED: u8 = 2;

/// Drives Starling, or another server of its protocols, with real clients and judges what they receive.
///
/// Messages are sent at a pace that a slow server does not slow down, and delays count from when a message was due. Every
/// delivery is checked: lost, repeated, out of order, astray. Delays and rates that the tester itself may have limited are
/// not told. Exit code 0: all is well; 1: a delivery was wrong, an objective missed, or the server gone; 2: the tester itself
/// was the limit. Ctrl-C ends a run early, with a report of what was seen until then.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks that nothing acknowledged is lost, repeated or reordered.
    ///
    /// Writers send numbered messages, each after the one before was acknowledged, and go to another node when theirs
    /// is gone; readers resume where they were. Meanwhile you may kill whatever you like, as long as it comes back. At
    /// the end every node is asked for the whole history. Exit code 1 says that something is wrong.
    Verify(Verify),
    #[command(flatten)]
    Scenario(Box<Scenario>),
    /// Holds a share of the connections of another process of this program
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct Verify {
    /// Base URL of a node, such as `http://127.0.0.1:8000`; may be given several times
    #[arg(long = "url", required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Conversations
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    conversations: usize,
    /// Writers of each conversation
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    writers: usize,
    /// Readers of each conversation
    #[arg(long, default_value_t = 2)]
    readers: usize,
    /// Messages of each writer
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    messages: usize,
    /// The secret (HS256) with which the gateways check tokens
    #[arg(long, env = "TOKEN_SECRET", hide_env_values = true, required_unless_present = "dev")]
    token_secret: Option<String>,
    /// Get tokens from the gateways' dev endpoint instead
    #[arg(long, conflicts_with = "token_secret")]
    dev: bool,
    /// Demand only what was announced as stored: for when you destroy the log itself
    #[arg(long)]
    stored_only: bool,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  make run, and then, against http://127.0.0.1:8000 with tokens from /dev/token:
    loadtest fanout --members 1000 --rate 20 --pid $(pgrep -nx gateway)
    loadtest chat --conversations 500 --rate 200 --report chat.html
    loadtest storm --connections 2000 --max-resume-p99-ms 2000
    loadtest capacity --room 100 --pid $(pgrep -nx gateway) --max-p99-ms 50
  A room of 10,000, and bodies of 1 KiB:
    loadtest fanout --members 10000 --bytes 1024 --rate 2 --workers 2 --source 127.0.0.2 --source 127.0.0.3
  make cluster, and then, over two nodes:
    loadtest capacity --shape chat --url http://127.0.0.1:8001 --url http://127.0.0.1:8002 --workers 2
  Memory of an idle connection, by what carries it (a gateway lets one address have 10,000 connections unless told otherwise):
    loadtest idle --connections 9000 --pid $(pgrep -nx gateway)
    loadtest idle --connections 4000 --transport sse --pid $(pgrep -nx gateway)
  Another Socket.IO or Phoenix server, which knows no users:
    loadtest fanout --protocol socketio --plain --url http://127.0.0.1:3000 --outstanding 4
    loadtest storm --protocol phoenix --plain --url http://127.0.0.1:4000
  A night of chat:
    loadtest soak --minutes 480 --max-growth-percent 5 --json > soak.json";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // 2, which is usual for wrong flags, means something else here.
        Err(said) => {
            let is_error = said.use_stderr();
            return if said.print().is_ok() && !is_error { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    let done = match cli.command {
        // Each worker is one thread, whose CPU time it watches.
        Command::Worker => load::run_worker().map(|()| ExitCode::SUCCESS),
        Command::Verify(arguments) => verify(&arguments),
        Command::Scenario(scenario) => run(&scenario),
    };
    done.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        ExitCode::FAILURE
    })
}

#[tokio::main(flavor = "current_thread")]
async fn run(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let report = scenario.run().await?;
    let common = scenario.common();
    if let Some(path) = &common.report {
        std::fs::write(path, report::page(&report)).with_context(|| path.display().to_string())?;
    }
    print(&report, common.json)?;
    let is_testers = report.capacity.as_ref().is_some_and(|found| !found.is_servers);
    Ok(match report {
        report if !report.is_sound() => ExitCode::FAILURE,
        report if report.limited.is_some() || is_testers => ExitCode::from(LIMITED),
        report if report.is_good() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

#[tokio::main]
async fn verify(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let verdict =
        verify::run(arguments.options(), |acked, total| eprintln!("{acked} of {total} acknowledged")).await?;
    print(&verdict, arguments.json)?;
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Verify {
    fn options(&self) -> Options {
        Options {
            urls: self.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            tokens: self.token_secret.clone().map_or(TokenSource::Dev, TokenSource::Secret),
            conversations: self.conversations,
            writers: self.writers,
            readers: self.readers,
            messages: self.messages,
            durability: if self.stored_only { Durability::Stored } else { Durability::Accepted },
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result is what the tool is for")]
fn print(result: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        println!("{result}");
    }
    Ok(())
}
