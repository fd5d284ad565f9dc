//! Engine.IO on the gateway's own code, with the configuration and the handlers that the official conformance suite expects.
//!
//! `cargo run -p gateway --example engineio_echo`, with `PORT` (default 3000) on 127.0.0.1.

mod echo;

use gateway::http::Echo;

const PORT_DEFAULT: u16 = 3000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Echo::EngineIo.serve(echo::listen(PORT_DEFAULT).await?, echo::interrupted()).await;
    Ok(())
}
