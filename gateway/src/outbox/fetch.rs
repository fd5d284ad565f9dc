//! The outbox of a client that comes to fetch what waits, one HTTP request after another, until it brings a socket.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;

use super::{Farewell, Outbox, OutboxContext, Queue, State, writer};

/// What a client that came to fetch gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// What waited, in order.
    Chunks(Vec<Bytes>),
    /// Nothing: from now on everything goes to a socket.
    Attached,
    /// Nothing: the outbox is closed, and its last words are gone.
    Ended,
}

impl Outbox {
    /// The outbox of a client that has no socket yet: everything waits until it is fetched.
    pub fn fetched(context: &Arc<OutboxContext>, farewell: Farewell) -> Arc<Self> {
        let queue = Box::new(Queue::new(context.metrics.bytes.clone()));
        Arc::new(Self::new(context, farewell, State::Queued(queue)))
    }

    /// Takes all that waits. Only the last task that asked is woken; it takes one chunk at least. A closed outbox hands out
    /// its farewell as the last chunk.
    pub fn poll_fetch(&self, context: &mut Context<'_>) -> Poll<Fetched> {
        let mut state = self.state.lock();
        let queue = match &mut *state {
            State::Queued(queue) => queue,
            State::Direct(_) => return Poll::Ready(Fetched::Attached),
            State::Ended(_) => return Poll::Ready(Fetched::Ended),
        };
        let chunks: Vec<Bytes> = std::iter::from_fn(|| queue.pop()).collect();
        let closing = queue.closing();
        if chunks.is_empty() && closing.is_none() {
            queue.set_waker(context.waker());
            return Poll::Pending;
        }
        if let Some(reason) = closing {
            *state = State::Ended(reason);
        }
        Poll::Ready(if chunks.is_empty() { Fetched::Ended } else { Fetched::Chunks(chunks) })
    }

    /// Gives the outbox the socket that its client has brought: what waits goes there now, and everything after it.
    pub fn attach(self: &Arc<Self>, half: OwnedWriteHalf) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Queued(queue) if queue.is_empty() && queue.closing().is_none() => {
                queue.wake();
                *state = State::Direct(half);
            }
            State::Queued(queue) => {
                queue.wake();
                self.context.tracker.spawn_on(writer::drain(Arc::clone(self), half), &self.context.runtime);
            }
            State::Direct(_) | State::Ended(_) => {}
        }
    }
}
