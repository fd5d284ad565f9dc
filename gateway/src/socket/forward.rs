//! Passes a request on to another node, and its answer back; also one that becomes a WebSocket, whose bytes then go through.

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header},
};
use hyper::{client::conn::http1, upgrade};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream, time::timeout};
use tokio_util::task::TaskTracker;

/// How long a node in the same network may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer that is not a WebSocket: what may wait for one client, rewritten, is less.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Says that a request was passed on once, so that it never goes in circles.
const FORWARDED: HeaderName = HeaderName::from_static("x-starling-forwarded");

/// Whether another node has passed this request on.
pub fn is_forwarded<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(FORWARDED)
}

/// Passes a request on and waits for the answer. Dropped before, the other node sees the client go.
///
/// # Errors
/// When the node cannot be reached, or breaks off.
pub async fn forward(
    to: SocketAddr,
    mut request: Request<Body>,
    tasks: &TaskTracker,
) -> io::Result<Response<Body>> {
    request.headers_mut().insert(FORWARDED, HeaderValue::from_static("1"));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
    let stream = timeout(CONNECT_TIME_MAX, TcpStream::connect(to)).await.map_err(io::Error::other)??;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    if request.headers().contains_key(header::UPGRADE) {
        return pass_through(request, sender, connection, tasks).await;
    }
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(Body::new(body), ANSWER_BYTES_MAX).await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, Body::from(body)))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The other node closes once it has answered.
        _ = &mut connection => exchange.await,
    }
}

/// A WebSocket: both connections are kept as long as both sides are there.
async fn pass_through(
    mut request: Request<Body>,
    mut sender: http1::SendRequest<Body>,
    connection: http1::Connection<TokioIo<TcpStream>, Body>,
    tasks: &TaskTracker,
) -> io::Result<Response<Body>> {
    tasks.spawn(connection.with_upgrades());
    let client = upgrade::on(&mut request);
    let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let node = upgrade::on(&mut answer);
        tasks.spawn(async move {
            if let Ok((client, node)) = tokio::try_join!(client, node) {
                // Whichever side ends, the other one is told by the end.
                let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(node)).await;
            }
        });
    }
    Ok(answer.map(Body::new))
}
