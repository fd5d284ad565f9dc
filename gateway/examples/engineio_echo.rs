//! Engine.IO on the gateway's own code, with the configuration and the handlers that the official conformance suite expects.
//!
//! `cargo run -p gateway --example engineio_echo`, with `PORT` (default 3000) on 127.0.0.1, and `PACE` (how many
//! times slower, default 1).

mod echo;
#[path = "echo/suite.rs"]
mod suite;

use gateway::http::Echo;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    suite::serve(Echo::EngineIo).await
}
