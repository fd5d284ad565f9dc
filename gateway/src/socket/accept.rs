//! The accept loop of a public HTTP port.
//!
//! Written out rather than left to `axum::serve` because that has no limit on headers, on the time a client takes to send
//! them, or on the number of connections.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::progress::Progressing;
use super::stream::{Departure, Left};
use crate::limits::{self, Address, Answer, Counter, Limit, Seat, Turns};

/// Connections that are still HTTP: requests and long polls. Those that became a WebSocket or a stream are not counted.
pub const HTTP_CONNECTIONS_MAX: usize = 10_000;
/// The same of one address (IPv6: one /64).
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = 5_000;
/// Bytes of a request's line and headers.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Seconds from the opening of a connection, or from the last response, to the end of a request's headers.
pub const HEADER_SECONDS_MAX: u64 = 5;
/// Seconds for which a client may take no byte of a response.
pub const WRITE_SECONDS_MAX: u64 = 10;
/// Seconds that requests get to finish when the server shuts down.
pub const DRAIN_SECONDS_MAX: u64 = 30;
/// Connections that the system keeps until they are accepted; it may have a lower limit of its own (`net.core.somaxconn`).
const BACKLOG: u32 = 8_192;
/// How many connections are accepted before everything else that is ready has its turn.
const ACCEPTS_AT_ONCE: u32 = 16;
/// Milliseconds without accepting after the system has refused a socket, for want of descriptors or memory.
const ACCEPT_PAUSE_MILLIS: u64 = 100;

/// What an HTTP connection may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Connections that are still HTTP; one more is answered with 503, unheard.
    pub connections_max: usize,
    /// The same of one address; one more is answered with 429, unheard.
    pub connections_per_address_max: usize,
    /// Bytes of a request's line and headers; at least 8,192. More is answered with 431.
    pub header_bytes_max: usize,
    /// Time for a request's headers, counted also while nothing at all comes.
    pub header_time_max: Duration,
    /// Time for which a client may take no byte of a response.
    pub write_time_max: Duration,
    /// Time that requests get to finish when the server shuts down.
    pub drain_time_max: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            connections_max: HTTP_CONNECTIONS_MAX,
            connections_per_address_max: HTTP_CONNECTIONS_PER_ADDRESS_MAX,
            header_bytes_max: HEADER_BYTES_MAX,
            header_time_max: Duration::from_secs(HEADER_SECONDS_MAX),
            write_time_max: Duration::from_secs(WRITE_SECONDS_MAX),
            drain_time_max: Duration::from_secs(DRAIN_SECONDS_MAX),
        }
    }
}

/// Listens, with room for all who come back at once when another node has died: whom the system has no room for asks again
/// only after a second, and then after two.
///
/// # Errors
/// When the address is taken, or none of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until `shutdown`, each served by `router` in a task that `tracker` counts. Then nothing more is
/// accepted, idle connections close, and requests in progress finish within the limit. Until its first request is handed on,
/// a connection needs one of `turns` for what it does. Requests carry
/// `ConnectInfo<SocketAddr>`. Upgraded connections and streams leave the count and are their handler's.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    allowed: AcceptLimits,
    turns: Turns,
    shutdown: CancellationToken,
    tracker: TaskTracker,
) {
    let (room, places) = (
        Arc::new(Semaphore::new(allowed.connections_max)),
        Counter::new(allowed.connections_per_address_max),
    );
    let mut accepts: u32 = 0;
    loop {
        accepts = accepts.wrapping_add(1);
        if accepts.is_multiple_of(ACCEPTS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(seat) = places.take(&Address::of(peer.ip())) else {
                    turn_away(stream, Limit::HttpConnectionsPerAddress);
                    continue;
                };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                    turn_away(stream, Limit::HttpConnections);
                    continue;
                };
                let turns = turns.clone();
                let connection = Connection { stream, peer, allowed, turns, held: (permit, seat) };
                tracker.spawn(connection.serve(router.clone(), shutdown.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)) => {}
                }
            }
        }
    }
}

/// Answers without having heard the request. What the system's buffer does not take at once is not said.
fn turn_away(stream: TcpStream, limit: Limit) {
    limits::refused(limit);
    let status = match limit.answer() {
        Answer::Http(429) => "429 Too Many Requests",
        _ => "503 Service Unavailable",
    };
    let answer =
        format!("HTTP/1.1 {status}\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    }
}

/// Whether an error of `accept` concerns only a connection that went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    allowed: AcceptLimits,
    turns: Turns,
    /// Its places in the counts of connections.
    held: (OwnedSemaphorePermit, Seat<Address>),
}

impl Connection {
    async fn serve(self, router: Router, shutdown: CancellationToken) {
        let Self { stream, peer, allowed, turns, held } = self;
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%peer, %error, "connection lost before its first byte");
        }
        let router = TowerToHyperService::new(router);
        // Until its first request is handed on, a connection is one of those who come.
        let is_coming = Arc::new(AtomicBool::new(true));
        let coming = Arc::clone(&is_coming);
        let departure = Arc::new(Mutex::new(None));
        let departing = Arc::clone(&departure);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            coming.store(false, Ordering::Relaxed);
            request.extensions_mut().insert(ConnectInfo(peer));
            let (method, departing) = (request.method().clone(), Arc::clone(&departing));
            let response = router.call(request);
            async move {
                let response = response.await.unwrap_or_else(|never| match never {});
                let departure = match Departure::of(&method, response) {
                    Ok(departure) => departure,
                    Err(ordinary) => return Ok(*ordinary),
                };
                *departing.lock() = Some(departure);
                // The HTTP server then lets go of the connection.
                Err(Left)
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(allowed.header_time_max)
            .max_buf_size(allowed.header_bytes_max)
            .serve_connection(TokioIo::new(Progressing::new(stream, allowed.write_time_max)), service)
            .with_upgrades();
        let served = tokio::select! {
            served = turns.of_coming(|| is_coming.load(Ordering::Relaxed), &mut connection) => served,
            () = shutdown.cancelled() => {
                Pin::new(&mut connection).graceful_shutdown();
                match tokio::time::timeout(allowed.drain_time_max, &mut connection).await {
                    Ok(served) => served,
                    Err(_) => return tracing::warn!(%peer, "request not finished at shutdown"),
                }
            }
        };
        drop(held);
        let departure = departure.lock().take();
        if let Some((departure, parts)) = departure.zip(connection.into_parts()) {
            if let Err(error) = departure.leave(parts.io.into_inner()).await {
                tracing::debug!(%peer, %error, "a client was gone before its stream began");
            }
            return;
        }
        if let Err(error) = served {
            if error.is_timeout() {
                limits::refused(Limit::HandshakeSeconds);
            } else if error.is_parse_too_large() {
                limits::refused(Limit::HeaderBytes);
            }
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
