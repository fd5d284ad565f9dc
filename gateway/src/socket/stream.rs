//! Responses that last: the head is sent, and from then on the socket is the handler's, as with a WebSocket.
//!
//! The HTTP server keeps its buffers for as long as a response lasts, far more than a client that hears something now and then
//! needs. So a handler marks such a response ([`detach`]), and the accept loop takes the connection away from the HTTP server.
//! The body ends with the connection, which HTTP/1.0 knows, too.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    body::Body,
    http::{Method, header},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use shared::clock;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::oneshot,
    time::timeout,
};

use super::progress::Progressing;

/// Bytes read at once of what has no meaning.
const SCRAP_BYTES: usize = 1024;

/// Whom the socket of a response belongs to; responses must be clonable.
#[derive(Debug, Clone)]
struct Detached(Arc<Mutex<Option<oneshot::Sender<TcpStream>>>>);

/// The socket of a response that lasts, once its head has been sent.
#[derive(Debug)]
pub struct StreamHandle(oneshot::Receiver<TcpStream>);

impl StreamHandle {
    /// Waits until the head is sent, and takes the stream. Await it in a task of its own: the head is sent only after the
    /// handler has returned.
    ///
    /// # Errors
    /// When the client is gone before that, asked for the head alone, or did not come through [`serve`](super::serve).
    pub async fn raw(self) -> io::Result<TcpStream> {
        self.0.await.map_err(io::Error::other)
    }
}

/// A response with this head, whose body the handler writes to the socket.
pub fn detach(head: impl IntoResponse) -> (Response, StreamHandle) {
    let (sender, receiver) = oneshot::channel();
    let mut response = head.into_response();
    response.extensions_mut().insert(Detached(Arc::new(Mutex::new(Some(sender)))));
    (response, StreamHandle(receiver))
}

/// A connection is no longer the HTTP server's.
#[derive(Debug, thiserror::Error)]
#[error("the connection has left HTTP")]
pub(super) struct Left;

/// A response with which its connection leaves HTTP.
#[derive(Debug)]
pub(super) struct Departure {
    response: Response,
    to: oneshot::Sender<TcpStream>,
}

impl Departure {
    /// The response itself when it is an ordinary one.
    pub(super) fn of(method: &Method, mut response: Response) -> Result<Self, Box<Response>> {
        let detached = response.extensions_mut().remove::<Detached>();
        match detached.and_then(|detached| detached.0.lock().take()) {
            // Of a request for the head alone, the handler hears that there is no socket.
            Some(to) if *method != Method::HEAD => Ok(Self { response, to }),
            _ => Err(Box::new(response)),
        }
    }

    /// Sends the head, and gives the socket to the handler. What the client sent behind its request has no meaning.
    pub(super) async fn leave(self, mut stream: Progressing) -> io::Result<()> {
        if stream.is_stalled() {
            // The client asks before it has taken the answer to what it asked for before, of which the rest is the HTTP server's.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        stream.write_all(&head(&self.response)).await?;
        // The handler may have gone.
        let _ = self.to.send(stream.into_inner());
        Ok(())
    }
}

fn head(response: &Response<Body>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", response.status()).into_bytes();
    let now = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(clock::now_ms()));
    head.extend(format!("date: {now}\r\n").bytes());
    let of_the_body = [header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING, header::DATE];
    for (name, value) in response.headers().iter().filter(|(name, _)| !of_the_body.contains(name)) {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// The read half of a connection on which the client has nothing more to say.
#[derive(Debug)]
pub struct Rest {
    stream: OwnedReadHalf,
    bytes_left: usize,
}

impl Rest {
    /// Takes so many bytes more, without looking at them.
    pub fn new(stream: OwnedReadHalf, bytes_max: usize) -> Self {
        Self { stream, bytes_left: bytes_max }
    }

    /// Waits until the client closes; one that sends too much counts as gone. Cancel-safe.
    pub async fn end(&mut self) {
        while self.bytes_left > 0
            && poll_fn(|context| self.stream.as_ref().poll_read_ready(context)).await.is_ok()
        {
            let mut scrap = [0; SCRAP_BYTES];
            match self.stream.try_read(&mut scrap) {
                Ok(0) => return,
                Ok(read) => self.bytes_left = self.bytes_left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// As [`Rest::end`], for no longer than `patience`. To be awaited after the last words: a socket closed with unread bytes
    /// is reset, and the client may never see why.
    pub async fn linger(mut self, patience: Duration) {
        // Running out of time is one of the two ways to be done.
        let _ = timeout(patience, self.end()).await;
    }
}
