//! Polling: requests that fetch and requests that bring.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use shared::domain::Disconnect;
use tokio::time::{Instant, timeout};

use super::{
    Engine, Make, Socket,
    socket::{Carrier, Heard},
};
use crate::{
    frame::encode,
    outbox::Fetched,
    protocol::engineio::{EngineError, NOOP, Transport, packets_of, payload_of},
};

/// How long a request waits that comes to fetch while a WebSocket is about to take over.
const PROBE_HOLD: Duration = Duration::from_millis(100);

impl Engine {
    /// Begins a connection that polls; returns the body of the answer.
    pub fn open_polling(self: &Arc<Self>, make: Make) -> Vec<u8> {
        let socket = self.open(Transport::Polling, make);
        waiting(&socket)
    }

    /// Waits for something to say; returns the body of the answer. Dropped before it is done, the connection ends.
    ///
    /// # Errors
    /// When there is no such connection, or it does not poll, or polls already.
    pub async fn fetch(self: &Arc<Self>, sid: &str) -> Result<Vec<u8>, EngineError> {
        let socket = self.find(sid)?;
        if socket.carrier() == Carrier::WebSocket {
            return Err(EngineError::BadRequest);
        }
        if socket.ended().is_none() && socket.is_overdue(&self.config, Instant::now()) {
            self.end(&socket, Disconnect::NoPong);
            return Err(EngineError::SessionUnknown);
        }
        if !socket.begin_fetch() {
            self.end(&socket, Disconnect::BadRequest);
            return Err(EngineError::BadRequest);
        }
        let mut fetching = Fetching { engine: self, socket: &socket, is_done: false };
        let fetched = wait(&socket).await;
        fetching.is_done = true;
        fetched.inspect_err(|_| self.forget(&socket))
    }

    /// Begins to bring packets, before they are read.
    ///
    /// # Errors
    /// When there is no such connection, or it does not poll, or somebody brings already.
    pub fn post(self: &Arc<Self>, sid: &str) -> Result<Posting, EngineError> {
        let socket = self.find(sid)?;
        if socket.carrier() == Carrier::WebSocket {
            return Err(EngineError::BadRequest);
        }
        if socket.ended().is_some() {
            return Err(EngineError::SessionUnknown);
        }
        if !socket.begin_post() {
            self.end(&socket, Disconnect::BadRequest);
            return Err(EngineError::BadRequest);
        }
        Ok(Posting { engine: Arc::clone(self), socket })
    }
}

/// What came, and was rewritten.
async fn wait(socket: &Arc<Socket>) -> Result<Vec<u8>, EngineError> {
    if let Carrier::Probing { answered: true } = socket.carrier() {
        // It is about to be told that there is nothing here any more; if not, it should come again soon.
        let _ = timeout(PROBE_HOLD, changed(socket)).await;
        match socket.carrier() {
            Carrier::WebSocket => return Err(EngineError::BadRequest),
            // The WebSocket may never come to it, so what waits is not held back.
            Carrier::Probing { .. } => return Ok(waiting(socket)),
            Carrier::Polling => {}
        }
    }
    loop {
        let mut changed = std::pin::pin!(socket.changed.notified());
        changed.as_mut().enable();
        if matches!(socket.carrier(), Carrier::WebSocket | Carrier::Probing { answered: true }) {
            return Ok(NOOP.to_vec());
        }
        let fetched = tokio::select! {
            biased;
            () = changed => continue,
            fetched = poll_fn(|context| socket.outbox.poll_fetch(context)) => fetched,
        };
        match fetched {
            Fetched::Chunks(chunks) => {
                let payload = payload_of(&chunks);
                if !payload.is_empty() {
                    return Ok(payload);
                }
            }
            Fetched::Attached => return Ok(NOOP.to_vec()),
            Fetched::Ended => return Err(EngineError::SessionUnknown),
        }
    }
}

/// What waits now, or something that says nothing.
fn waiting(socket: &Socket) -> Vec<u8> {
    let mut context = Context::from_waker(Waker::noop());
    let payload = match socket.outbox.poll_fetch(&mut context) {
        Poll::Ready(Fetched::Chunks(chunks)) => payload_of(&chunks),
        _ => Vec::new(),
    };
    if payload.is_empty() { NOOP.to_vec() } else { payload }
}

/// Waits until the carrier is another one than now.
async fn changed(socket: &Socket) {
    let before = socket.carrier();
    loop {
        let mut changed = std::pin::pin!(socket.changed.notified());
        changed.as_mut().enable();
        if socket.carrier() != before {
            return;
        }
        changed.await;
    }
}

/// A request that fetches.
struct Fetching<'a> {
    engine: &'a Arc<Engine>,
    socket: &'a Arc<Socket>,
    is_done: bool,
}

impl Drop for Fetching<'_> {
    /// A client that does not wait for the answer is gone. One that has read the last words is, too.
    fn drop(&mut self) {
        self.socket.end_fetch();
        if !self.is_done {
            self.engine.end(self.socket, Disconnect::ConnectionClosed);
        } else if self.socket.outbox.is_closed() {
            self.engine.forget(self.socket);
            self.socket.end();
        }
    }
}

/// A request that brings packets; dropping it lets the next one come.
pub struct Posting {
    engine: Arc<Engine>,
    socket: Arc<Socket>,
}

impl Posting {
    /// Does what the body asks.
    ///
    /// # Errors
    /// When it breaks the protocol; the connection has ended.
    pub async fn bring(self, body: &Bytes) -> Result<(), EngineError> {
        let (mut is_violation, mut is_early) = (false, false);
        for packet in packets_of(body) {
            let hear = |packet| self.socket.hear(packet, is_early, &self.engine.config);
            match packet.map_or(Heard::Violation, hear) {
                Heard::Message => is_early = true,
                Heard::Nothing => {}
                Heard::Close => {
                    self.close();
                    break;
                }
                Heard::Violation => is_violation = true,
            }
        }
        // In a task of its own, so that it is done to its end even when the client does not wait for the answer.
        let (engine, socket) = (Arc::clone(&self.engine), Arc::clone(&self.socket));
        let work = self.engine.tracker.spawn(async move {
            if let Err(reason) = Box::pin(socket.work()).await {
                engine.end(&socket, reason);
            }
        });
        let _ = work.await;
        if is_violation {
            self.engine.end(&self.socket, Disconnect::BadRequest);
            return Err(EngineError::BadRequest);
        }
        Ok(())
    }

    /// The client goes. The request that fetches, or one that is on its way, gets something to end with.
    fn close(&self) {
        self.socket.outbox.close_with(Disconnect::ConnectionClosed, encode::text(NOOP));
        if self.socket.is_fetching() {
            self.engine.forget(&self.socket);
        }
        self.socket.end();
        self.engine.wheel.put(&self.socket, Instant::now() + super::LAST_WORDS);
    }
}

impl Drop for Posting {
    fn drop(&mut self) {
        self.socket.end_post();
    }
}
