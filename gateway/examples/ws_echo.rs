//! A WebSocket echo server on the gateway's own sockets, frames and outboxes, for conformance suites such as Autobahn.
//!
//! `cargo run -p gateway --example ws_echo`, with `PORT` (default 9001) on 127.0.0.1.
//!
//! Limits are wider than a gateway's 64 KiB and 64 fragments: 16 MiB a message, because Autobahn's group 9 sends that
//! much, and 131,072 fragments, because its smallest pieces come to 65,537 (4 MiB in pieces of 64 bytes, and an empty end). There is no
//! compression, so groups 12 and 13 do not apply.

mod echo;

use std::time::Duration;

use gateway::{frame::FrameLimits, socket};

const PORT_DEFAULT: u16 = 9001;
const LIMITS: FrameLimits = FrameLimits {
    message_bytes_max: 16 * 1024 * 1024,
    fragments_max: 131_072,
    message_time_max: Duration::from_mins(2),
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    socket::echo::serve(echo::listen(PORT_DEFAULT).await?, LIMITS, echo::interrupted()).await;
    Ok(())
}
