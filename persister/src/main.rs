//! The persister binary: see [`persister::app`].

use clap::Parser;
use persister::{app, config::Flags};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    app::run(Flags::parse().resolve()?).await
}
