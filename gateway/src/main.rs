//! The gateway's binary.

use clap::Parser;
use gateway::{app, config::Flags};

fn main() -> anyhow::Result<()> {
    let config = Flags::parse().resolve()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(app::run(config))
}
