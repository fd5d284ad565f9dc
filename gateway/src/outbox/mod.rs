//! The only way to one client.
//!
//! The fan-out writes: [`Outbox::send`] takes bytes that are already encoded and framed and gives them to the socket at
//! once, without blocking. Only a socket that cannot take them gets a queue and a writer task; the task drains the queue
//! and ends, and the outbox is direct again. An idle outbox therefore owns no queue and no task.
//!
//! A client that polls fetches what waits ([`Outbox::poll_fetch`]) until it brings a socket of its own ([`Outbox::attach`]).
//!
//! The queue is bounded in bytes. Over the limit, ephemeral chunks are dropped first; if durable ones alone are too many,
//! the client is disconnected as slow and comes back to resume.
//!
//! May use: bytes, tokio, metrics, the domain's `Disconnect`. Deliberately absent: protocols (the bytes are opaque, and
//! the farewell is a function given from outside), the hub, and reading.

mod context;
mod fetch;
mod queue;
mod writer;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shared::domain::Disconnect;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::limits::{self, Limit};

pub use context::{
    FAREWELL_SECONDS_MAX, OUTBOX_BYTES_MAX, OutboxContext, OutboxLimits, OutboxMetrics, WRITE_SECONDS_MAX,
};
pub use fetch::Fetched;
use queue::{CHUNK_BYTES_OVERHEAD, Pushed, Queue};

/// The bytes that tell a client why it is disconnected, framed for its wire: a close frame, a last event.
pub type Farewell = fn(Disconnect) -> Bytes;

/// What may happen to a chunk when the client does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Delivered in order, or the client is disconnected and resumes.
    Durable,
    /// Dropped when there is no room: typing, presence, pongs.
    Ephemeral,
}

/// The way to one client. Shared by everything that has something to say to it.
#[derive(Debug)]
pub struct Outbox {
    context: Arc<OutboxContext>,
    farewell: Farewell,
    state: Mutex<State>,
    /// Told once, when the outbox is closed.
    closed: Notify,
}

#[derive(Debug)]
enum State {
    /// Nothing waits: whoever sends, writes.
    Direct(OwnedWriteHalf),
    /// Something waits, or there is no socket. The writer task or [`Outbox::poll_fetch`] takes it.
    Queued(Box<Queue>),
    /// Nothing more is sent. Dropping the write half has shut the socket down.
    Ended(Disconnect),
}

/// What becomes of the chunks that wait when an outbox is closed.
#[derive(Debug, Clone)]
enum Ending {
    /// They are sent, then the farewell.
    After(Bytes),
    /// They are thrown away, except the rest of one partly written; then the farewell.
    Instead(Bytes),
    /// They are thrown away, and nothing is said: nobody listens.
    Silent,
}

impl Outbox {
    /// The outbox of a socket whose write half it now owns.
    pub fn socket(context: &Arc<OutboxContext>, half: OwnedWriteHalf, farewell: Farewell) -> Arc<Self> {
        Arc::new(Self::new(context, farewell, State::Direct(half)))
    }

    fn new(context: &Arc<OutboxContext>, farewell: Farewell, state: State) -> Self {
        Self { context: Arc::clone(context), farewell, state: Mutex::new(state), closed: Notify::new() }
    }

    /// Sends one chunk: whole frames, which no other sender's bytes will divide. Never blocks and never fails; a closed
    /// outbox drops it. A chunk over the byte limit reaches only a socket that takes it at once.
    pub fn send(self: &Arc<Self>, bytes: Bytes, class: Class) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        match &mut *state {
            State::Direct(half) => match write_now(half, &bytes) {
                Ok(written) if written == bytes.len() => {}
                Ok(written) => self.block(&mut state, bytes, written, class),
                Err(_) => self.end(&mut state, Disconnect::ConnectionClosed),
            },
            State::Queued(_) => self.push(&mut state, bytes, class),
            State::Ended(_) => {}
        }
    }

    /// Closes the outbox for this reason: what waits is sent, then the farewell, then the socket is shut down. For
    /// [`Disconnect::Slow`] what waits is thrown away first; for [`Disconnect::ConnectionClosed`] nothing is sent at all.
    /// Only the first close counts. A blocked socket gets the limits' `farewell_time_max`.
    pub fn close(self: &Arc<Self>, reason: Disconnect) {
        let ending = match reason {
            Disconnect::ConnectionClosed => Ending::Silent,
            Disconnect::Slow => Ending::Instead((self.farewell)(reason)),
            _ => Ending::After((self.farewell)(reason)),
        };
        self.close_as(&mut self.state.lock(), reason, ending);
    }

    /// As [`Outbox::close`], with other last words than the usual farewell: a close frame's echo, or one that names what
    /// was wrong with a frame.
    pub fn close_with(self: &Arc<Self>, reason: Disconnect, farewell: Bytes) {
        self.close_as(&mut self.state.lock(), reason, Ending::After(farewell));
    }

    /// Whether the outbox is closed, though last words may still be on their way.
    pub fn is_closed(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits until the outbox is closed and says why. Any number of tasks may wait; cancel-safe.
    pub async fn closed(&self) -> Disconnect {
        let mut told = std::pin::pin!(self.closed.notified());
        told.as_mut().enable();
        loop {
            if let Some(reason) = self.reason() {
                return reason;
            }
            told.as_mut().await;
            told.set(self.closed.notified());
        }
    }

    /// Bytes that wait, each chunk counted with what it costs to keep.
    pub fn queued_bytes(&self) -> usize {
        match &*self.state.lock() {
            State::Queued(queue) => queue.bytes(),
            State::Direct(_) | State::Ended(_) => 0,
        }
    }

    fn reason(&self) -> Option<Disconnect> {
        match &*self.state.lock() {
            State::Direct(_) => None,
            State::Queued(queue) => queue.closing(),
            State::Ended(reason) => Some(*reason),
        }
    }

    /// Direct becomes queued, behind a chunk of which `written` bytes are in the socket.
    fn block(self: &Arc<Self>, state: &mut State, mut bytes: Bytes, written: usize, class: Class) {
        let queue = Box::new(Queue::new(self.context.metrics.bytes.clone()));
        let State::Direct(half) = std::mem::replace(state, State::Queued(queue)) else {
            unreachable!("only a direct outbox becomes blocked");
        };
        if written == 0 {
            self.push(state, bytes, class);
        } else if let State::Queued(queue) = state {
            drop(bytes.split_to(written));
            let over = bytes.len() + CHUNK_BYTES_OVERHEAD > self.context.limits.bytes_max;
            queue.resume(bytes);
            if over {
                self.close_slow(state);
            }
        }
        self.context.tracker.spawn_on(writer::drain(Arc::clone(self), half), &self.context.runtime);
    }

    fn push(self: &Arc<Self>, state: &mut State, bytes: Bytes, class: Class) {
        let State::Queued(queue) = state else { unreachable!("only a queued outbox has a queue") };
        match queue.push(bytes, class, self.context.limits.bytes_max) {
            Pushed::Queued { dropped } => self.context.metrics.ephemeral_dropped.increment(dropped),
            Pushed::Full { dropped } => {
                self.context.metrics.ephemeral_dropped.increment(dropped);
                self.close_slow(state);
            }
        }
    }

    fn close_slow(self: &Arc<Self>, state: &mut State) {
        let farewell = (self.farewell)(Disconnect::Slow);
        self.close_as(state, Disconnect::Slow, Ending::Instead(farewell));
    }

    fn close_as(self: &Arc<Self>, state: &mut State, reason: Disconnect, ending: Ending) {
        match (&mut *state, ending) {
            (State::Ended(_), _) => return,
            (State::Queued(queue), _) if queue.closing().is_some() => return,
            (_, Ending::Silent) => {
                let previous = std::mem::replace(state, State::Ended(reason));
                if let State::Queued(mut queue) = previous {
                    queue.wake();
                }
            }
            (State::Queued(queue), Ending::After(farewell)) => queue.close(reason, farewell),
            (State::Queued(queue), Ending::Instead(farewell)) => {
                queue.discard();
                queue.close(reason, farewell);
            }
            (State::Direct(half), Ending::After(farewell) | Ending::Instead(farewell)) => {
                match write_now(half, &farewell) {
                    Ok(written) if written < farewell.len() => {
                        self.block_closing(state, reason, farewell.slice(written..));
                    }
                    Ok(_) | Err(_) => *state = State::Ended(reason),
                }
            }
        }
        if reason == Disconnect::Slow {
            self.context.metrics.closed_slow.increment(1);
            limits::refused(Limit::OutboxBytes);
        }
        self.closed.notify_waiters();
    }

    /// Direct becomes queued, with nothing but the rest of the farewell in the queue.
    fn block_closing(self: &Arc<Self>, state: &mut State, reason: Disconnect, rest: Bytes) {
        let mut queue = Box::new(Queue::new(self.context.metrics.bytes.clone()));
        queue.close(reason, rest);
        if let State::Direct(half) = std::mem::replace(state, State::Queued(queue)) {
            self.context.tracker.spawn_on(writer::drain(Arc::clone(self), half), &self.context.runtime);
        }
    }

    /// The connection is over, and nothing more can be said.
    fn end(&self, state: &mut State, reason: Disconnect) {
        let reason = match state {
            State::Queued(queue) => queue.closing().unwrap_or(reason),
            State::Ended(first) => *first,
            State::Direct(_) => reason,
        };
        *state = State::Ended(reason);
        self.closed.notify_waiters();
    }
}

/// Bytes that the socket took just now; 0 when it would block.
fn write_now(half: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match half.try_write(bytes) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests;
