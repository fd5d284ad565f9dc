//! What the echo programs share: a port on the loopback interface, and an end by Ctrl-C.

use std::net::Ipv4Addr;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Listens on `PORT`, or else on `port`, of 127.0.0.1.
///
/// # Errors
/// When that is no port, or not free.
pub async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let port = match std::env::var("PORT") {
        Ok(port) => port.parse().context("PORT must be a port number")?,
        Err(_) => port,
    };
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("the port is not free")
}

/// Cancelled by Ctrl-C.
pub fn interrupted() -> CancellationToken {
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                shutdown.cancel();
            }
        }
    });
    shutdown
}
