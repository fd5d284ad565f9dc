//! The gateway's binary.

use std::process::ExitCode;

use clap::Parser;
use gateway::{
    api_key::{ApiKey, Scope},
    app,
    config::{Flags, Tool},
};

/// Memory that a storm has needed is given back, and who comes costs less than with that of libc: see loadtest/results.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let flags = Flags::parse();
    if let Some(Tool::ApiKey { name, scopes }) = &flags.tool {
        return print_new_key(name, scopes);
    }
    let config = flags.resolve()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(app::run(config))
}

#[expect(clippy::print_stdout, reason = "this is what the person who asks for a key is waiting for")]
fn print_new_key(name: &str, scopes: &[Scope]) -> anyhow::Result<()> {
    let (key, secret) = ApiKey::generate(name, scopes)?;
    println!("key, shown this once:        {secret}");
    println!("line for STARLING_API_KEYS:  {key}");
    Ok(())
}
