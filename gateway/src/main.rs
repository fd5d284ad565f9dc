//! The gateway's binary.

use std::process::ExitCode;

use clap::Parser;
use gateway::{app, config::Flags};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A person reads this at a terminal: the causes in one line, and no backtrace.
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let config = Flags::parse().resolve()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(app::run(config))
}
