//! Reads one client's WebSocket messages.
//!
//! An idle reader holds no buffer and no frame parser: it waits for the bare socket to become readable. Only when bytes
//! have come does it build a `fastwebsockets` reader, over a stream that passes every byte by the
//! [`FrameGuard`], and it throws both away at the end of the frame.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fastwebsockets::{OpCode, Payload, Role, WebSocketError, after_handshake_split};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, timeout_at};

use super::stream::Rest;
use crate::frame::assembly::{Assembly, Kind};
use crate::frame::{FrameError, FrameGuard, FrameLimits, close};

/// Bytes read from the socket at once, unless the current frame is known to need more.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Bytes read from the socket at once, however large the frame.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Seconds over which control frames are counted.
const CONTROL_WINDOW_SECONDS: u64 = 10;
/// Payload bytes of the largest control frame, which must pass whatever the limit for messages.
const CONTROL_BYTES_MAX: usize = 125;
/// Seconds for which [`Reader::linger`] waits for the client to close.
pub const LINGER_SECONDS_MAX: u64 = 5;
/// Bytes that [`Reader::linger`] throws away at most.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message; it is UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping, at most 125 bytes; the owner answers with a pong.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// A valid close frame with its code, if it had one. Nothing follows.
    Close {
        /// The client's close code.
        code: Option<u16>,
    },
    /// The connection is over without a close frame.
    Eof,
}

/// Reads messages from the read half of a raw socket.
#[derive(Debug)]
pub struct Reader {
    stream: OwnedReadHalf,
    guard: FrameGuard,
    /// Bytes from the socket that the guard has not passed yet.
    pending: BytesMut,
    assembly: Option<Box<Assembly>>,
    /// When the message that has begun must be complete.
    deadline: Option<Instant>,
    window_opened: Instant,
    ended: bool,
}

impl Reader {
    /// A reader at the start of a WebSocket stream, whose first bytes may have been read already.
    pub fn new(stream: OwnedReadHalf, read_ahead: Bytes, limits: FrameLimits) -> Self {
        Self {
            stream,
            guard: FrameGuard::new(limits),
            pending: BytesMut::from(read_ahead),
            assembly: None,
            deadline: None,
            window_opened: Instant::now(),
            ended: false,
        }
    }

    /// Waits until something of the next message has come, or nothing more will; cancel-safe. This is where an idle
    /// connection waits: [`Reader::next`] needs room for a frame and for the time that it may take.
    pub async fn ready(&mut self) {
        // What has begun has a time in which to come.
        if !self.ended && self.deadline.is_none() {
            self.fill().await;
        }
    }

    /// Waits for the next message or control frame. After a close, an end or an error there is nothing but
    /// [`Incoming::Eof`].
    ///
    /// **Not cancel-safe**, since the frame reader inside is not: drive it from one task, and drop a `next` that has not
    /// finished only to end the connection.
    ///
    /// # Errors
    /// What was wrong; [`FrameError::close_code`] is the answer to give. Errors of the socket are [`Incoming::Eof`].
    pub async fn next(&mut self) -> Result<Incoming, FrameError> {
        let incoming = self.message().await;
        if matches!(incoming, Err(_) | Ok(Incoming::Close { .. } | Incoming::Eof)) {
            self.ended = true;
            self.pending = BytesMut::new();
            self.assembly = None;
        }
        incoming
    }

    /// Waits until the client closes, throwing away what it still sends. Call it after the last words: a socket closed
    /// with unread bytes is reset, and the client may never see why. Bounded by [`LINGER_SECONDS_MAX`] and
    /// [`LINGER_BYTES_MAX`].
    pub async fn linger(self) {
        Rest::new(self.stream, LINGER_BYTES_MAX).linger(Duration::from_secs(LINGER_SECONDS_MAX)).await;
    }

    /// Whether the client has sent more already, as far as the system knows at this moment. Takes in what there is.
    pub fn has_more(&mut self) -> bool {
        if self.ended {
            return false;
        }
        if self.pending.is_empty() {
            self.pending.reserve(READ_BYTES_MIN);
            if !matches!(self.stream.try_read_buf(&mut self.pending), Ok(1..)) {
                self.pending = BytesMut::new();
            }
        }
        !self.pending.is_empty()
    }

    async fn message(&mut self) -> Result<Incoming, FrameError> {
        while !self.ended && self.fill_in_time().await? {
            let Some(frame) = self.frame().await? else { break };
            if !self.guard.in_message() {
                self.deadline = None;
            }
            if let Some(incoming) = self.take(frame)? {
                return Ok(incoming);
            }
        }
        Ok(Incoming::Eof)
    }

    /// As [`Reader::fill`]; an open message limits the wait.
    async fn fill_in_time(&mut self) -> Result<bool, FrameError> {
        match self.deadline {
            None => Ok(self.fill().await),
            Some(deadline) => timeout_at(deadline, self.fill()).await.map_err(|_| FrameError::TooSlow),
        }
    }

    /// Waits until there is a byte; `false` when there will be none. Cancel-safe.
    async fn fill(&mut self) -> bool {
        while self.pending.is_empty() {
            if poll_fn(|context| self.stream.as_ref().poll_read_ready(context)).await.is_err() {
                return false;
            }
            self.pending.reserve(READ_BYTES_MIN);
            match self.stream.try_read_buf(&mut self.pending) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pending = BytesMut::new(),
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads the frame that has begun to come; `None` when the connection ends inside it.
    async fn frame(&mut self) -> Result<Option<Inbound>, FrameError> {
        let now = Instant::now();
        if now.duration_since(self.window_opened).as_secs() >= CONTROL_WINDOW_SECONDS {
            self.window_opened = now;
            self.guard.open_window();
        }
        let limits = self.guard.limits();
        let deadline = *self.deadline.get_or_insert(now + limits.message_time_max);
        let guarded = Guarded { stream: &self.stream, guard: &mut self.guard, pending: &mut self.pending };
        let (mut reader, _) = after_handshake_split(guarded, tokio::io::sink(), Role::Server);
        reader.set_auto_close(false);
        reader.set_auto_pong(false);
        // fastwebsockets refuses a length equal to its limit; the guard is the one that decides.
        reader.set_max_message_size(limits.message_bytes_max.max(CONTROL_BYTES_MAX) + 1);
        let mut unused = |_| std::future::ready(Ok::<(), Infallible>(()));
        let read = timeout_at(deadline, reader.read_frame(&mut unused)).await;
        let inbound = match read.map_err(|_| FrameError::TooSlow)? {
            Ok(frame) => Ok(Some(Inbound {
                fin: frame.fin,
                opcode: frame.opcode,
                payload: match frame.payload {
                    Payload::Bytes(bytes) => bytes,
                    other => BytesMut::from(&other[..]),
                },
            })),
            Err(error) => refusal(&error),
        };
        drop(reader);
        debug_assert!(
            !matches!(inbound, Ok(Some(_))) || self.guard.at_boundary(),
            "a frame read leaves the guard at a boundary"
        );
        if self.pending.is_empty() {
            self.pending = BytesMut::new();
        }
        inbound
    }

    fn take(&mut self, frame: Inbound) -> Result<Option<Incoming>, FrameError> {
        let Inbound { fin, opcode, payload } = frame;
        let kind = match opcode {
            OpCode::Text => Kind::Text,
            OpCode::Binary => Kind::Binary,
            OpCode::Continuation => return self.resume(fin, &payload),
            OpCode::Close => return Ok(Some(Incoming::Close { code: close::parse(&payload)? })),
            OpCode::Ping => return Ok(Some(Incoming::Ping(payload.freeze()))),
            OpCode::Pong => return Ok(Some(Incoming::Pong)),
        };
        if fin {
            // fastwebsockets has checked that a text frame which is a whole message is UTF-8.
            return Ok(Some(whole(kind, payload.freeze())));
        }
        self.assembly = Some(Box::new(Assembly::begin(kind, payload)?));
        Ok(None)
    }

    fn resume(&mut self, fin: bool, payload: &[u8]) -> Result<Option<Incoming>, FrameError> {
        let mut assembly = self.assembly.take().ok_or(FrameError::ContinuationUnexpected)?;
        if fin {
            let (kind, message) = assembly.finish(payload)?;
            return Ok(Some(whole(kind, message)));
        }
        assembly.push(payload)?;
        self.assembly = Some(assembly);
        Ok(None)
    }
}

fn whole(kind: Kind, message: Bytes) -> Incoming {
    match kind {
        Kind::Text => Incoming::Text(message),
        Kind::Binary => Incoming::Binary(message),
    }
}

/// What a failed read means: the guard's verdict, an end of the connection, or a fault that only the reader saw.
fn refusal(error: &WebSocketError) -> Result<Option<Inbound>, FrameError> {
    match error {
        WebSocketError::IoError(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(verdict) => Err(*verdict),
            None => Ok(None),
        },
        WebSocketError::UnexpectedEOF => Ok(None),
        WebSocketError::InvalidUTF8 => Err(FrameError::InvalidUtf8),
        _ => Err(FrameError::Protocol),
    }
}

/// One frame, unmasked.
struct Inbound {
    fin: bool,
    opcode: OpCode,
    payload: BytesMut,
}

/// The socket as the frame reader sees it: never a byte past the current frame, never one that the guard refuses.
struct Guarded<'a> {
    stream: &'a OwnedReadHalf,
    guard: &'a mut FrameGuard,
    pending: &'a mut BytesMut,
}

impl Guarded<'_> {
    /// Waits for bytes; `false` at the end of the stream.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.pending.is_empty() {
            let needed = usize::try_from(self.guard.frame_bytes_left()).unwrap_or(READ_BYTES_MAX);
            self.pending.reserve(needed.clamp(READ_BYTES_MIN, READ_BYTES_MAX));
            match self.stream.try_read_buf(self.pending) {
                Ok(0) => return Poll::Ready(Ok(false)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.as_ref().poll_read_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Guarded<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_fill(context))? {
            let this = &mut *self;
            let offered = this.pending.len().min(buffer.remaining());
            let admitted = this.guard.admit(&this.pending[..offered]).map_err(io::Error::other)?;
            buffer.put_slice(&this.pending[..admitted]);
            this.pending.advance(admitted);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
