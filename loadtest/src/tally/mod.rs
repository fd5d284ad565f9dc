//! What was counted: delays as histograms that can be merged, and every delivery held against what was due.
//!
//! Deliberately absent: percentiles of percentiles (raw histograms are merged), and anything that waits.

mod delays;
mod ledger;

pub use delays::{DELAY_US_MAX, Delays, Percentiles};
pub use ledger::{Delivered, Entered, Ledger, Note, leading_number};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one worker counted, from its start on or between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that are open and in all their rooms now.
    pub connected: u64,
    /// Connections that ended without being asked to.
    pub disconnected: u64,
    /// Tries to connect that were refused or failed.
    pub connect_failed: u64,
    /// Messages that were sent.
    pub publishes: u64,
    /// … of which the server accepted.
    pub accepted: u64,
    /// … of which it refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Deliveries that the accepted messages ask for: one for each member of their room.
    pub due: u64,
    /// Deliveries that came, each counted once.
    pub delivered: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Deliveries that came after a later one.
    pub reordered: u64,
    /// Deliveries to somebody else than a member.
    pub misdelivered: u64,
    /// Subscriptions that the server ended.
    pub unsubscribed: u64,
    /// Resumes whose answer was not complete, so that the client paged through the history.
    pub limited: u64,
    /// Returns to a room after which the server brings nothing of what was missed, since it keeps nothing.
    pub unrecoverable: u64,
    /// Deliveries that were missed that way: lost to the client, and no fault of the server.
    pub not_recovered: u64,
    /// Deliveries that a recovery brought again, as the protocol allows; clients drop them by their id.
    pub resent: u64,
    /// Bodies that came otherwise than they were sent; their deliveries count as lost.
    pub damaged: u64,
    /// Typing and receipts that were sent.
    pub signals: u64,
    /// Events beside messages that came: typing, receipts, joins.
    pub events: u64,
    /// CPU time of the workers, in microseconds.
    pub cpu_us: u64,
    /// Time for which the workers were ready to run and had no CPU, in microseconds.
    pub waited_us: u64,
}

impl Counts {
    /// Applies `join` to each pair of numbers.
    fn zip(&mut self, other: &Self, join: fn(u64, u64) -> u64) {
        let Self { refused, .. } = self;
        for (code, theirs) in &other.refused {
            let ours = refused.entry(code.clone()).or_default();
            *ours = join(*ours, *theirs);
        }
        refused.retain(|_, count| *count > 0);
        for (ours, theirs) in [
            (&mut self.connected, other.connected),
            (&mut self.disconnected, other.disconnected),
            (&mut self.connect_failed, other.connect_failed),
            (&mut self.publishes, other.publishes),
            (&mut self.accepted, other.accepted),
            (&mut self.due, other.due),
            (&mut self.delivered, other.delivered),
            (&mut self.repeated, other.repeated),
            (&mut self.reordered, other.reordered),
            (&mut self.misdelivered, other.misdelivered),
            (&mut self.unsubscribed, other.unsubscribed),
            (&mut self.limited, other.limited),
            (&mut self.unrecoverable, other.unrecoverable),
            (&mut self.not_recovered, other.not_recovered),
            (&mut self.resent, other.resent),
            (&mut self.damaged, other.damaged),
            (&mut self.signals, other.signals),
            (&mut self.events, other.events),
            (&mut self.cpu_us, other.cpu_us),
            (&mut self.waited_us, other.waited_us),
        ] {
            *ours = join(*ours, theirs);
        }
    }

    /// Adds what another worker counted.
    pub fn add(&mut self, other: &Self) {
        self.zip(other, u64::saturating_add);
    }

    /// What was counted since `before`; `connected` stays what it is now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut difference = self.clone();
        difference.zip(before, u64::saturating_sub);
        difference.connected = self.connected;
        difference
    }

    /// Deliveries that should have come and did not, apart from those that a server without recovery may leave out.
    pub fn lost(&self) -> u64 {
        self.due.saturating_sub(self.delivered + self.not_recovered)
    }

    /// Messages whose outcome nobody knows.
    pub fn unknown(&self) -> u64 {
        self.publishes - (self.accepted + self.refused()).min(self.publishes)
    }

    /// Messages that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Whether every delivery came once, in order, to the right one.
    pub fn is_clean(&self) -> bool {
        self.lost() + self.repeated + self.reordered + self.misdelivered + self.damaged == 0
    }
}

/// Delays of a second or of a whole run, in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Timings {
    /// From when a message was to be sent until it was delivered.
    pub delivery: Delays,
    /// From when a message was to be sent until it was accepted.
    pub accept: Delays,
    /// From when a message was to be sent until it was sent: how late the tester itself was.
    pub late: Delays,
    /// From the loss of a connection until it has everything again.
    pub resume: Delays,
    /// From the first byte of a connection until it is in all its rooms.
    pub connect: Delays,
}

impl Timings {
    /// Adds what another worker measured.
    pub fn add(&mut self, other: &Self) {
        self.delivery.add(&other.delivery);
        self.accept.add(&other.accept);
        self.late.add(&other.late);
        self.resume.add(&other.resume);
        self.connect.add(&other.connect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_subtract() {
        let one = Counts { publishes: 5, accepted: 3, due: 6, delivered: 5, ..Counts::default() };
        let refused = Counts { refused: [("111".to_owned(), 2)].into(), ..Counts::default() };
        let mut all = one.clone();
        all.add(&refused);
        assert_eq!((all.lost(), all.unknown(), all.refused()), (1, 0, 2));
        assert_eq!(all.since(&refused), one);
        assert!(!all.is_clean());
    }
}
