//! The echo programs for the official suites of Engine.IO and Socket.IO, on the code that production runs.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use shared::domain::NodeId;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    engineio::{answer, open_to_all},
    problem,
};
use crate::{
    connection::{
        echo::{EngineIoEcho, SocketIoEcho, farewell},
        engineio::{Engine, EngineConfig, Make},
        socketio::SocketIo,
    },
    limits::Turns,
    outbox::{Outbox, OutboxContext, OutboxLimits, OutboxMetrics},
    socket::{self, AcceptLimits},
};

/// What the suites expect of the server they test, so many times slower.
fn suite(pace: u32) -> EngineConfig {
    EngineConfig {
        ping_interval: Duration::from_millis(300) * pace,
        ping_timeout: Duration::from_millis(200) * pace,
        payload_bytes_max: 1_000_000,
        body_time_max: Duration::from_secs(30),
        connect_time_max: Duration::from_secs(1) * pace,
        farewell,
    }
}

/// Bytes that may wait for one client: several payloads of the largest size.
const OUTBOX_BYTES_MAX: usize = 8_000_000;

/// What is sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Messages of Engine.IO, at `/engine.io/`.
    EngineIo,
    /// Events of Socket.IO, at `/socket.io/`.
    SocketIo,
}

impl Echo {
    fn path(self) -> &'static str {
        match self {
            Self::EngineIo => "/engine.io/",
            Self::SocketIo => "/socket.io/",
        }
    }

    fn make(self) -> Make {
        match self {
            Self::EngineIo => Box::new(|outbox: &Arc<Outbox>| Box::new(EngineIoEcho::new(outbox))),
            Self::SocketIo => {
                Box::new(|outbox: &Arc<Outbox>| Box::new(SocketIo::new(SocketIoEcho::new(outbox))))
            }
        }
    }

    /// Serves until `shutdown`, with times that are `pace` times as long as the official suites have them.
    pub async fn serve(self, listener: TcpListener, pace: u32, shutdown: CancellationToken) {
        let tracker = TaskTracker::new();
        let limits = OutboxLimits { bytes_max: OUTBOX_BYTES_MAX, ..OutboxLimits::default() };
        let outboxes = OutboxContext::new(limits, OutboxMetrics::register(), tracker.clone());
        let node = NodeId::parse("echo").expect("it is an id");
        let engine = Engine::new(suite(pace), node, outboxes, tracker.clone());
        let (turning, stopping) = (Arc::clone(&engine), shutdown.clone());
        tracker.spawn(async move { turning.run(&stopping).await });
        let router = Router::new().fallback(move |request: Request| {
            let engine = Arc::clone(&engine);
            async move { open_to_all(request, async |request| self.answer(&engine, request).await).await }
        });
        socket::serve(listener, router, AcceptLimits::default(), Turns::default(), shutdown, tracker.clone())
            .await;
        tracker.close();
        tracker.wait().await;
    }

    async fn answer(self, engine: &Arc<Engine>, request: Request) -> Response {
        if request.uri().path() != self.path() {
            return problem::no_such_route().await.into_response();
        }
        answer(engine, request, &|_: &Parts| Ok(self.make())).await
    }
}
