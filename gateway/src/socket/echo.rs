//! A WebSocket server that sends back what it is sent, on the code that production runs.
//!
//! It exists so that the RFC's conformance suites and hostile bytes can be tried on this room without anything of Starling
//! in between: `examples/ws_echo.rs` serves it to the Autobahn suite, `tests/frame_guard.rs` attacks it.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use shared::domain::Disconnect;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AcceptLimits, Incoming, RawSocket, upgrade};
use crate::frame::{FrameError, FrameLimits, encode};
use crate::limits::Turns;
use crate::outbox::{Class, OUTBOX_BYTES_MAX, Outbox, OutboxContext, OutboxLimits, OutboxMetrics};

/// Messages of the largest size whose echo may wait for a client.
const ECHOES_WAITING_MAX: usize = 4;

/// Serves until `shutdown`, then closes all connections and waits for their last words.
pub async fn serve(listener: TcpListener, limits: FrameLimits, shutdown: CancellationToken) {
    let tracker = TaskTracker::new();
    let outbox_limits = OutboxLimits {
        bytes_max: OUTBOX_BYTES_MAX.max(ECHOES_WAITING_MAX * limits.message_bytes_max),
        ..OutboxLimits::default()
    };
    let echo = Echo {
        limits,
        outboxes: OutboxContext::new(outbox_limits, OutboxMetrics::register(), tracker.clone()),
        shutdown: shutdown.clone(),
        tracker: tracker.clone(),
    };
    let router = Router::new().fallback(move |request: Request| {
        let echo = echo.clone();
        async move { echo.accept(request) }
    });
    super::serve(listener, router, AcceptLimits::default(), Turns::default(), shutdown, tracker.clone())
        .await;
    tracker.close();
    tracker.wait().await;
}

#[derive(Clone)]
struct Echo {
    limits: FrameLimits,
    outboxes: Arc<OutboxContext>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Echo {
    fn accept(self, mut request: Request) -> Response {
        match upgrade(&mut request, None) {
            Ok((response, handle)) => {
                let tracker = self.tracker.clone();
                tracker.spawn(async move {
                    if let Ok(socket) = handle.raw().await {
                        self.converse(socket).await;
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn converse(self, socket: RawSocket) {
        let (mut reader, write) = socket.split(self.limits);
        let outbox = Outbox::socket(&self.outboxes, write, farewell);
        while !outbox.is_closed() {
            // Whichever other branch wins ends the connection, so the read it drops is not missed.
            tokio::select! {
                incoming = reader.next() => answer(&outbox, incoming),
                _ = outbox.closed() => {}
                () = self.shutdown.cancelled() => outbox.close(Disconnect::Shutdown),
            }
        }
        reader.linger().await;
    }
}

fn answer(outbox: &Arc<Outbox>, incoming: Result<Incoming, FrameError>) {
    match incoming {
        Ok(Incoming::Text(text)) => outbox.send(encode::text(&text), Class::Durable),
        Ok(Incoming::Binary(bytes)) => outbox.send(encode::binary(&bytes), Class::Durable),
        Ok(Incoming::Ping(payload)) => outbox.send(encode::pong(&payload), Class::Ephemeral),
        Ok(Incoming::Pong) => {}
        Ok(Incoming::Close { code }) => {
            outbox.close_with(Disconnect::ConnectionClosed, encode::close_answer(code));
        }
        Ok(Incoming::Eof) => outbox.close(Disconnect::ConnectionClosed),
        Err(error) => {
            let last_words = encode::close(error.close_code(), &error.to_string());
            outbox.close_with(Disconnect::BadRequest, last_words);
        }
    }
}

fn farewell(reason: Disconnect) -> Bytes {
    encode::close(reason.code(), reason.reason())
}
