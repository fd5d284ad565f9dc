use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::socket::{Rest, StreamHandle, detach, upgrade};

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    accepting: JoinHandle<()>,
}

async fn start(router: Router, limits: AcceptLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let accepting =
        tokio::spawn(serve(listener, router, limits, Turns::default(), shutdown.clone(), tracker.clone()));
    Server { address, shutdown, tracker, accepting }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.accepting.await.unwrap();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn router() -> Router {
    Router::new()
        .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
}

async fn send(client: &mut TcpStream, request: &str) {
    client.write_all(request.as_bytes()).await.unwrap();
}

/// Everything until the server closes; a reset counts as a close.
async fn rest(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn requests_know_their_peer() {
    let server = start(router(), AcceptLimits::default()).await;
    let mut client = server.connect().await;
    send(&mut client, "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let answer = rest(&mut client).await;
    assert!(answer.ends_with(&client.local_addr().unwrap().to_string()), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_must_send_its_headers_in_time() {
    let limits = AcceptLimits { header_time_max: Duration::from_millis(50), ..AcceptLimits::default() };
    let server = start(router(), limits).await;
    for begun in ["", "GET /peer HTTP/1.1\r\nhost:"] {
        let mut client = server.connect().await;
        send(&mut client, begun).await;
        assert!(!rest(&mut client).await.contains("200"));
    }
    server.stop().await;
    // Time enough for a whole request, however busy the machine is; then the connection has the same time for the next one.
    let limits = AcceptLimits { header_time_max: Duration::from_secs(3), ..AcceptLimits::default() };
    let server = start(router(), limits).await;
    let mut idle = server.connect().await;
    send(&mut idle, "GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn headers_are_bounded() {
    let server = start(router(), AcceptLimits::default()).await;
    let mut client = server.connect().await;
    let long = "x".repeat(2 * HEADER_BYTES_MAX);
    let _ = client.write_all(format!("GET /peer HTTP/1.1\r\nhost: {long}\r\n\r\n").as_bytes()).await;
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 431"));
    server.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_upgraded_ones_do_not_count() {
    let (upgraded, keep) = (Arc::new(Notify::new()), TaskTracker::new());
    let router = {
        let (upgraded, keep) = (Arc::clone(&upgraded), keep.clone());
        router().fallback(move |mut request: Request| async move {
            let (response, handle) = upgrade(&mut request, None).unwrap();
            keep.spawn(async move {
                let socket = handle.raw().await.unwrap();
                upgraded.notify_one();
                std::future::pending::<()>().await;
                drop(socket);
            });
            response
        })
    };
    let limits = AcceptLimits { connections_max: 1, ..AcceptLimits::default() };
    let server = start(router, limits).await;
    let mut first = server.connect().await;
    send(&mut first, "GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut head = [0; 15];
    first.read_exact(&mut head).await.unwrap();
    let mut second = server.connect().await;
    let answer = rest(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: "), "{answer}");
    send(
        &mut first,
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    upgraded.notified().await;
    server.tracker.close();
    server.tracker.wait().await;
    let mut third = server.connect().await;
    send(&mut third, "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(rest(&mut third).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let limits = AcceptLimits { connections_per_address_max: 1, ..AcceptLimits::default() };
    let server = start(router(), limits).await;
    let mut first = server.connect().await;
    send(&mut first, "GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await;
    first.read_exact(&mut [0; 15]).await.unwrap();
    let mut second = server.connect().await;
    let answer = rest(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");
    // Another address of this machine.
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = elsewhere.connect(server.address).await.unwrap();
    send(&mut other, "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(rest(&mut other).await.starts_with("HTTP/1.1 200"));
    drop(first);
    server.stop().await;
}

#[tokio::test]
async fn a_request_in_progress_finishes_at_shutdown() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let router = Router::new().route("/slow", {
        let (begun, release) = (Arc::clone(&begun), Arc::clone(&release));
        get(move || async move {
            begun.notify_one();
            release.notified().await;
            "finished"
        })
    });
    let server = start(router, AcceptLimits::default()).await;
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    send(&mut busy, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    begun.notified().await;
    server.shutdown.cancel();
    assert_eq!(rest(&mut idle).await, "");
    release.notify_one();
    assert!(rest(&mut busy).await.ends_with("finished"));
    let address = server.address;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_takes_no_byte_of_a_response_is_dropped() {
    let begun = Arc::new(Notify::new());
    let router = Router::new().route("/endless", {
        let begun = Arc::clone(&begun);
        get(move || async move {
            begun.notify_one();
            let chunk = || Some((Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 4096])), ()));
            Body::from_stream(futures_util::stream::unfold((), move |()| async move { chunk() }))
                .into_response()
        })
    });
    let limits = AcceptLimits { write_time_max: Duration::from_millis(50), ..AcceptLimits::default() };
    let server = start(router, limits).await;
    let mut client = server.connect().await;
    send(&mut client, "GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
    begun.notified().await;
    server.tracker.close();
    server.tracker.wait().await;
    server.stop().await;
}

/// Answers `/events` with a response that lasts, and passes on what its handler gets.
fn streaming() -> (Router, mpsc::UnboundedReceiver<StreamHandle>) {
    let (handed, handles) = mpsc::unbounded_channel();
    let events = move || async move {
        let (response, handle) = detach([("x-kind", "events")]);
        handed.send(handle).unwrap();
        response
    };
    (Router::new().route("/events", get(events)), handles)
}

#[tokio::test]
async fn a_response_that_lasts_leaves_http() {
    let (router, mut handles) = streaming();
    let server = start(router, AcceptLimits { connections_max: 1, ..AcceptLimits::default() }).await;
    let mut clients = Vec::new();
    // One after the other, yet all there at the same time.
    for version in ["1.1", "1.0"] {
        let mut client = server.connect().await;
        send(&mut client, &format!("GET /events HTTP/{version}\r\nhost: x\r\n\r\nsent behind it")).await;
        let mut stream = handles.recv().await.unwrap().raw().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        clients.push((client, stream));
    }
    server.tracker.close();
    server.tracker.wait().await;
    for (mut client, stream) in clients {
        drop(stream.into_std().map(|stream| stream.shutdown(Shutdown::Write)));
        let mut said = vec![0; 1024];
        let mut read = 0;
        while let Ok(more @ 1..) = client.read(&mut said[read..]).await {
            read += more;
        }
        let said = String::from_utf8_lossy(&said[..read]).into_owned();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nhello"), "{said}");
        assert!(
            ["x-kind: events\r\n", "connection: close\r\n", "date: "].iter().all(|line| said.contains(line)),
            "{said}"
        );
        assert!(!said.contains("content-length") && !said.contains("transfer-encoding"), "{said}");
    }
    server.stop().await;
}

#[tokio::test]
async fn who_asks_for_the_head_of_a_stream_gets_no_stream() {
    let (router, mut handles) = streaming();
    let server = start(router, AcceptLimits::default()).await;
    let mut client = server.connect().await;
    send(&mut client, "HEAD /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let said = rest(&mut client).await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    assert!(handles.recv().await.unwrap().raw().await.is_err());
    server.stop().await;
}

/// More than the system takes of an answer that nobody reads.
const LARGE_BYTES: usize = 16 * 1024 * 1024;

#[tokio::test]
async fn a_stream_behind_an_answer_that_is_not_taken_does_not_begin() {
    let (router, mut handles) = streaming();
    let large = vec![b'x'; LARGE_BYTES];
    let router = router.route("/large", get(move || async move { large }));
    let server = start(router, AcceptLimits::default()).await;
    let mut client = server.connect().await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    send(&mut client, &(request("/large") + &request("/events"))).await;
    // Whatever of the large answer the system has room for, none of the stream may come into it.
    let handle = async { handles.recv().await.unwrap().raw().await };
    let reading = async {
        let mut bytes = Vec::new();
        let _ = client.read_to_end(&mut bytes).await;
        bytes
    };
    let (handed, said) = tokio::join!(async { handle.await.map(drop) }, reading);
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let body = &said[end..];
    let large = body.iter().take_while(|byte| **byte == b'x').count();
    assert_eq!(large, if handed.is_ok() { LARGE_BYTES } else { body.len() });
    server.stop().await;
}

#[tokio::test]
async fn who_has_nothing_more_to_say_is_heard_going() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for bytes in [0, 10, 100] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, _write) = listener.accept().await.unwrap().0.into_split();
        let mut end = Rest::new(read, 50);
        client.write_all(&vec![b'x'; bytes]).await.unwrap();
        if bytes < 50 {
            drop(client);
        }
        end.end().await;
    }
}
