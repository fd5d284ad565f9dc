//! Engine.IO on the gateway's own code, with the configuration and the handlers that the official conformance suite expects.
//!
//! `cargo run -p gateway --example engineio_echo`, with `PORT` (default 3000) on localhost.

use anyhow::Context;
use gateway::http::Echo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PORT_DEFAULT: u16 = 3000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = match std::env::var("PORT") {
        Ok(port) => port.parse().context("PORT must be a port number")?,
        Err(_) => PORT_DEFAULT,
    };
    // The suites say `localhost`, which may be an address of either version.
    let listener = TcpListener::bind(("::", port)).await;
    let listener = match listener {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("127.0.0.1", port)).await?,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                shutdown.cancel();
            }
        }
    });
    Echo::EngineIo.serve(listener, shutdown).await;
    Ok(())
}
