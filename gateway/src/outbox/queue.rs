//! The chunks that wait for one client. Pure: no socket, no task.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::Waker;

use bytes::Bytes;
use metrics::Gauge;
use shared::domain::Disconnect;

use super::Class;

/// What a chunk costs beside its bytes, counted against the limit so that many tiny chunks are bounded too.
pub(super) const CHUNK_BYTES_OVERHEAD: usize = 64;

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    class: Class,
}

impl Chunk {
    fn cost(&self) -> usize {
        self.bytes.len() + CHUNK_BYTES_OVERHEAD
    }
}

/// What became of a pushed chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, or was ephemeral and dropped; `dropped` ephemeral chunks went, it included.
    Queued { dropped: u64 },
    /// It is durable, and there is no room even without the `dropped` ephemeral chunks.
    Full { dropped: u64 },
}

#[derive(Debug)]
pub(super) struct Queue {
    chunks: VecDeque<Chunk>,
    /// Cost of all chunks.
    bytes: usize,
    /// The first chunk is partly in the socket and must be finished.
    begun: bool,
    closing: Option<Disconnect>,
    waker: Option<Waker>,
    gauge: Gauge,
}

impl Queue {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, begun: false, closing: None, waker: None, gauge }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn closing(&self) -> Option<Disconnect> {
        self.closing
    }

    /// Adds a chunk within the limit. A closing queue ignores it.
    pub(super) fn push(&mut self, bytes: Bytes, class: Class, bytes_max: usize) -> Pushed {
        if self.closing.is_some() {
            return Pushed::Queued { dropped: 0 };
        }
        let chunk = Chunk { bytes, class };
        let mut dropped = 0;
        if self.bytes + chunk.cost() > bytes_max {
            if class == Class::Ephemeral {
                return Pushed::Queued { dropped: 1 };
            }
            dropped = self.drop_ephemeral();
            if self.bytes + chunk.cost() > bytes_max {
                return Pushed::Full { dropped };
            }
        }
        self.append(chunk);
        Pushed::Queued { dropped }
    }

    /// Begins an empty queue with the rest of a chunk that is partly written.
    pub(super) fn resume(&mut self, rest: Bytes) {
        debug_assert!(self.chunks.is_empty(), "only the first chunk is ever partly written");
        self.append(Chunk { bytes: rest, class: Class::Durable });
        self.begun = true;
    }

    /// Puts the farewell behind what waits; nothing is added after it. The farewell is not held to the limit.
    pub(super) fn close(&mut self, reason: Disconnect, farewell: Bytes) {
        if !farewell.is_empty() {
            self.append(Chunk { bytes: farewell, class: Class::Durable });
        }
        self.closing = Some(reason);
        self.wake();
    }

    /// Throws away what waits, except the rest of a partly written chunk.
    pub(super) fn discard(&mut self) {
        let keep = usize::from(self.begun);
        let gone = self.chunks.drain(keep..).map(|chunk| chunk.cost()).sum();
        self.forget(gone);
    }

    /// The first chunks, ready for one vectored write.
    pub(super) fn slices<'a, const N: usize>(&'a self, slices: &mut [IoSlice<'a>; N]) -> usize {
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&chunk.bytes);
            used += 1;
        }
        used
    }

    /// Takes `written` bytes off the front.
    pub(super) fn advance(&mut self, mut written: usize) {
        let mut gone = 0;
        while written > 0 {
            let first = self.chunks.front_mut().expect("no more is written than was queued");
            if written < first.bytes.len() {
                drop(first.bytes.split_to(written));
                gone += written;
                self.begun = true;
                break;
            }
            written -= first.bytes.len();
            gone += first.cost();
            self.chunks.pop_front();
            self.begun = false;
        }
        self.forget(gone);
        self.shrink();
    }

    /// Takes the first chunk.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.forget(chunk.cost());
        self.shrink();
        Some(chunk.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whom to wake when something is added: a request that fetches.
    pub(super) fn set_waker(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn append(&mut self, chunk: Chunk) {
        let cost = chunk.cost();
        self.bytes += cost;
        self.gauge.increment(gauge_value(cost));
        self.chunks.push_back(chunk);
        self.wake();
    }

    fn drop_ephemeral(&mut self) -> u64 {
        let mut first_begun = self.begun;
        let mut gone = 0;
        let mut dropped = 0;
        self.chunks.retain(|chunk| {
            let keep = std::mem::take(&mut first_begun) || chunk.class == Class::Durable;
            if !keep {
                gone += chunk.cost();
                dropped += 1;
            }
            keep
        });
        self.forget(gone);
        dropped
    }

    fn forget(&mut self, cost: usize) {
        self.bytes -= cost;
        self.gauge.decrement(gauge_value(cost));
    }

    /// A queue that was once long must not keep its room when it is empty.
    fn shrink(&mut self) {
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.gauge.decrement(gauge_value(self.bytes));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and queues are far below 2^52 bytes")]
fn gauge_value(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: usize = CHUNK_BYTES_OVERHEAD + 4;

    fn queue() -> Queue {
        Queue::new(Gauge::noop())
    }

    fn chunk(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn contents(queue: &mut Queue) -> Vec<Bytes> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn ephemeral_chunks_make_room_for_durable_ones() {
        let mut queue = queue();
        let limit = 3 * COST;
        assert_eq!(queue.push(chunk("dur1"), Class::Durable, limit), Pushed::Queued { dropped: 0 });
        assert_eq!(queue.push(chunk("eph1"), Class::Ephemeral, limit), Pushed::Queued { dropped: 0 });
        assert_eq!(queue.push(chunk("eph2"), Class::Ephemeral, limit), Pushed::Queued { dropped: 0 });
        assert_eq!(queue.push(chunk("eph3"), Class::Ephemeral, limit), Pushed::Queued { dropped: 1 });
        assert_eq!(queue.push(chunk("dur2"), Class::Durable, limit), Pushed::Queued { dropped: 2 });
        assert_eq!(queue.push(chunk("dur3"), Class::Durable, limit), Pushed::Queued { dropped: 0 });
        assert_eq!(queue.push(chunk("dur4"), Class::Durable, limit), Pushed::Full { dropped: 0 });
        assert_eq!(queue.bytes(), limit);
        assert_eq!(contents(&mut queue), ["dur1", "dur2", "dur3"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_partly_written_ephemeral_chunk_is_never_dropped() {
        let mut queue = queue();
        let limit = 2 * COST;
        queue.push(chunk("eph1"), Class::Ephemeral, limit);
        queue.push(chunk("eph2"), Class::Ephemeral, limit);
        queue.advance(1);
        assert_eq!(queue.push(chunk("dur1"), Class::Durable, limit), Pushed::Queued { dropped: 1 });
        assert_eq!(contents(&mut queue), ["ph1", "dur1"]);
    }

    #[test]
    fn discarding_keeps_the_rest_of_what_is_begun() {
        let mut queue = queue();
        queue.push(chunk("dur1"), Class::Durable, 1000);
        queue.push(chunk("dur2"), Class::Durable, 1000);
        queue.push(chunk("dur3"), Class::Durable, 1000);
        queue.advance(6);
        queue.discard();
        queue.close(Disconnect::Slow, chunk("bye"));
        queue.push(chunk("late"), Class::Durable, 1000);
        assert_eq!(contents(&mut queue), ["r2", "bye"]);
    }

    #[test]
    fn tiny_chunks_are_bounded_too() {
        let mut queue = queue();
        let limit = 10 * (CHUNK_BYTES_OVERHEAD + 1);
        for _ in 0..10 {
            assert_eq!(queue.push(chunk("x"), Class::Durable, limit), Pushed::Queued { dropped: 0 });
        }
        assert_eq!(queue.push(chunk("x"), Class::Durable, limit), Pushed::Full { dropped: 0 });
    }

    #[test]
    fn an_empty_queue_keeps_no_room() {
        let mut queue = queue();
        for _ in 0..1000 {
            queue.push(chunk("dur1"), Class::Durable, usize::MAX);
        }
        queue.advance(4000);
        assert_eq!((queue.chunks.capacity(), queue.bytes()), (0, 0));
    }
}
