//! Socket.IO on the gateway's own code, with the configuration and the handlers that the official conformance suite expects.
//!
//! `cargo run -p gateway --example socketio_echo`, with `PORT` (default 3000) on 127.0.0.1.

mod echo;

use gateway::http::Echo;

const PORT_DEFAULT: u16 = 3000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Echo::SocketIo.serve(echo::listen(PORT_DEFAULT).await?, echo::interrupted()).await;
    Ok(())
}
