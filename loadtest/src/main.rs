//! The command line of the load tester.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loadtest::{
    check::{Durability, Verdict},
    token::TokenSource,
    verify::{self, Options},
};

/// Drives Starling with real clients and judges what they receive.
#[derive(Debug, Parser)]
#[command(version)]
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

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Command::Verify(arguments) = Cli::parse().command;
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

#[expect(clippy::print_stdout, reason = "the verdict is what the tool is for")]
fn print(verdict: &Verdict, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}
