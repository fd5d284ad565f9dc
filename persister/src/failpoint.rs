//! Places at which a process can be told to die, for fault tests only.
//!
//! `STARLING_FAILPOINT=after-commit:3` aborts the process, as a `kill -9` would, when it passes `after-commit` for the
//! third time with at least one message in the batch. Never set it on a server that is in use.

use std::str::FromStr;

/// The environment variable that sets a failpoint.
pub const VARIABLE: &str = "STARLING_FAILPOINT";

/// Where a process can die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The batch is in memory only.
    AfterRead,
    /// The batch is committed; nobody knows.
    AfterCommit,
    /// The gateways know; the log still has the batch.
    AfterNotify,
    /// The batch is done.
    AfterTrim,
}

impl Point {
    const ALL: [(Self, &str); 4] = [
        (Self::AfterRead, "after-read"),
        (Self::AfterCommit, "after-commit"),
        (Self::AfterNotify, "after-notify"),
        (Self::AfterTrim, "after-trim"),
    ];
}

/// Where to die, and at which passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint {
    point: Point,
    /// Passages that remain, the fatal one counted.
    remaining: u64,
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let remaining = count.parse().ok().filter(|&count| count > 0);
        match (Point::ALL.into_iter().find(|&(_, known)| known == name), remaining) {
            (Some((point, _)), Some(remaining)) => Ok(Self { point, remaining }),
            _ => Err(format!(
                "{VARIABLE}={text} is none of after-read, after-commit, after-notify and after-trim, each with an \
                 optional `:N` (N ≥ 1)"
            )),
        }
    }
}

impl Failpoint {
    /// Counts a passage; true at the fatal one.
    fn is_fatal(&mut self, point: Point) -> bool {
        if self.point == point {
            self.remaining = self.remaining.saturating_sub(1);
        }
        self.point == point && self.remaining == 0
    }

    /// Passes a point with a message in the batch. Does not return from the fatal passage.
    pub(crate) fn pass(&mut self, point: Point) {
        if self.is_fatal(point) {
            tracing::error!(?point, "dying at the failpoint that {VARIABLE} has set");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dies_at_the_nth_passage_of_its_point_only() {
        let mut failpoint: Failpoint = "after-commit:2".parse().unwrap();
        let passages = [Point::AfterCommit, Point::AfterRead, Point::AfterTrim, Point::AfterCommit];
        assert_eq!(passages.map(|point| failpoint.is_fatal(point)), [false, false, false, true]);
        let mut first: Failpoint = "after-read".parse().unwrap();
        assert!(first.is_fatal(Point::AfterRead));
    }

    #[test]
    fn every_point_has_a_name_and_nonsense_is_refused() {
        for (point, name) in Point::ALL {
            assert_eq!(name.parse(), Ok(Failpoint { point, remaining: 1 }));
        }
        for bad in ["", "after", "after-read:0", "after-read:x", "before-read"] {
            assert!(bad.parse::<Failpoint>().is_err(), "{bad}");
        }
    }
}
