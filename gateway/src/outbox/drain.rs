//! The outbox of a response body, seen from the HTTP server that writes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use shared::domain::Disconnect;

use super::{Outbox, State};

/// The data of a response body: what the outbox is sent, then its farewell, then the end. Dropping it closes the outbox.
#[derive(Debug)]
pub struct Drain {
    outbox: Arc<Outbox>,
}

impl Drain {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }
}

impl Stream for Drain {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.outbox.state.lock();
        let State::Queued(queue) = &mut *state else { return Poll::Ready(None) };
        if let Some(bytes) = queue.pop() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        if let Some(reason) = queue.closing() {
            *state = State::Ended(reason);
            return Poll::Ready(None);
        }
        queue.set_waker(context.waker());
        Poll::Pending
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.outbox.end(&mut self.outbox.state.lock(), Disconnect::ConnectionClosed);
    }
}
