//! The task that empties the queue of a blocked socket, and lives only as long as that takes.

use std::io::{self, IoSlice};
use std::sync::Arc;

use shared::domain::Disconnect;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::{Outbox, State};

/// Chunks given to the kernel in one write.
const CHUNKS_PER_WRITE_MAX: usize = 32;

/// What one attempt to write came to.
enum Step {
    /// Some bytes went; there may be more.
    Wrote(OwnedWriteHalf),
    /// The socket takes nothing now.
    Blocked(OwnedWriteHalf),
    /// The outbox is direct again, or the connection is over; in either case the write half is gone from here.
    Done,
}

/// Writes what waits until nothing does, then gives the write half back. Ends the connection when the socket makes no
/// progress, or when it is closed and the last words take too long.
pub(super) async fn drain(outbox: Arc<Outbox>, mut half: OwnedWriteHalf) {
    let limits = outbox.context.limits;
    let mut closing = outbox.is_closed();
    let mut deadline =
        Instant::now() + if closing { limits.farewell_time_max } else { limits.write_time_max };
    loop {
        half = match outbox.write_queued(half) {
            Step::Wrote(half) => {
                if !closing {
                    deadline = Instant::now() + limits.write_time_max;
                }
                half
            }
            Step::Blocked(half) => half,
            Step::Done => return,
        };
        tokio::select! {
            biased;
            _ = outbox.closed(), if !closing => {
                closing = true;
                deadline = deadline.min(Instant::now() + limits.farewell_time_max);
            }
            // An error of the socket shows at the next write.
            _ = half.writable() => {}
            () = tokio::time::sleep_until(deadline) => {
                // What the client did not take must not stay in the kernel either. Where that fails, only memory is lost.
                let _ = half.as_ref().set_zero_linger();
                if !closing {
                    outbox.context.metrics.closed_slow.increment(1);
                }
                return outbox.end(&mut outbox.state.lock(), Disconnect::Slow);
            }
        }
    }
}

impl Outbox {
    /// One write under the lock, so that the half can be given back with no sender in between.
    fn write_queued(&self, half: OwnedWriteHalf) -> Step {
        let mut state = self.state.lock();
        let State::Queued(queue) = &mut *state else { return Step::Done };
        if queue.is_empty() {
            *state = match queue.closing() {
                Some(reason) => State::Ended(reason),
                None => State::Direct(half),
            };
            return Step::Done;
        }
        let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE_MAX];
        let used = queue.slices(&mut slices);
        match half.try_write_vectored(&slices[..used]) {
            Ok(written) if written > 0 => {
                queue.advance(written);
                Step::Wrote(half)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Blocked(half),
            Ok(_) | Err(_) => {
                self.end(&mut state, Disconnect::ConnectionClosed);
                Step::Done
            }
        }
    }
}
