//! A WebSocket echo server on the gateway's own sockets, frames and outboxes, for conformance suites such as Autobahn.
//!
//! `cargo run -p gateway --example ws_echo`, with `PORT` (default 9001) on 127.0.0.1.
//!
//! Limits are wider than a gateway's 64 KiB and 64 fragments: 16 MiB a message, because Autobahn's group 9 sends that
//! much, and 131,072 fragments, because its smallest pieces come to 65,537 (4 MiB in pieces of 64 bytes, and an empty end). There is no
//! compression, so groups 12 and 13 do not apply.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use gateway::frame::FrameLimits;
use gateway::socket::echo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PORT_DEFAULT: u16 = 9001;
const LIMITS: FrameLimits = FrameLimits {
    message_bytes_max: 16 * 1024 * 1024,
    fragments_max: 131_072,
    message_time_max: Duration::from_mins(2),
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = match std::env::var("PORT") {
        Ok(port) => port.parse().context("PORT must be a port number")?,
        Err(_) => PORT_DEFAULT,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                shutdown.cancel();
            }
        }
    });
    echo::serve(listener, LIMITS, shutdown).await;
    Ok(())
}
