//! Who owns which partitions: each writer decides for itself, from what it owns and how many writers there are.
//!
//! Nobody is told what to own. With `n` live writers each may own `⌈partitions / n⌉`, gives up what is more, and tries
//! the locks of others until it has so many. The shares add up to at least all partitions, so none stays without an
//! owner; a new writer finds free ones as soon as the others have counted it.

use std::collections::BTreeSet;

use shared::domain::Partition;

/// How many locks a writer tries in one round. Bounds how long a round keeps it from reading.
pub const LOCK_TRIES_MAX: usize = 1_024;

/// How many partitions a writer may own when there are `writers` live ones, itself counted.
pub fn fair_share(partitions: u16, writers: u32) -> usize {
    usize::from(partitions).div_ceil(usize::try_from(writers.max(1)).unwrap_or(usize::MAX))
}

/// What to give up: the highest of what is more than the share.
pub fn excess(owned: &BTreeSet<Partition>, share: usize) -> Vec<Partition> {
    owned.iter().skip(share).copied().collect()
}

/// What to try to own, in this order, until the share is reached: each partition not owned, from `start` on and round.
///
/// Writers that start at different places meet less often at the same lock.
pub fn candidates(partitions: u16, owned: &BTreeSet<Partition>, start: u16) -> Vec<Partition> {
    (0..partitions)
        .map(|n| (u32::from(start) + u32::from(n)) % u32::from(partitions))
        .map(|n| Partition(u16::try_from(n).expect("a remainder of a u16 fits a u16")))
        .filter(|partition| !owned.contains(partition))
        .take(LOCK_TRIES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs rounds in which each writer in turn gives up and takes, and returns what each owns in the end.
    fn settle(partitions: u16, mut writers: Vec<BTreeSet<Partition>>) -> Vec<BTreeSet<Partition>> {
        let count = u32::try_from(writers.len()).unwrap();
        for round in 0..3 {
            for n in 0..writers.len() {
                let share = fair_share(partitions, count);
                for partition in excess(&writers[n], share) {
                    writers[n].remove(&partition);
                }
                for partition in candidates(partitions, &writers[n], round * 7) {
                    let is_free = writers.iter().all(|owned| !owned.contains(&partition));
                    if is_free && writers[n].len() < share {
                        writers[n].insert(partition);
                    }
                }
            }
        }
        writers
    }

    #[test]
    fn every_partition_finds_one_owner_and_no_writer_has_more_than_its_share() {
        for (partitions, count) in [(64, 1), (64, 2), (64, 3), (64, 7), (5, 8), (1, 2), (1_000, 9)] {
            // The first owns everything when the others come.
            let mut writers = vec![BTreeSet::new(); count];
            writers[0] = Partition::all(partitions).collect();
            let writers = settle(partitions, writers);
            let all: BTreeSet<Partition> = writers.iter().flatten().copied().collect();
            assert_eq!(all.len(), usize::from(partitions), "{partitions} for {count}");
            assert_eq!(writers.iter().map(BTreeSet::len).sum::<usize>(), usize::from(partitions));
            let most = writers.iter().map(BTreeSet::len).max();
            assert_eq!(most, Some(fair_share(partitions, u32::try_from(count).unwrap())));
        }
    }

    #[test]
    fn what_a_dead_writer_owned_is_taken_over() {
        let writers = settle(64, vec![BTreeSet::new(), BTreeSet::new(), BTreeSet::new()]);
        let survivors = settle(64, writers[..2].to_vec());
        assert_eq!(survivors.iter().map(BTreeSet::len).collect::<Vec<_>>(), [32, 32]);
    }

    #[test]
    fn candidates_go_round_from_the_start() {
        let owned = BTreeSet::from([Partition(3)]);
        assert_eq!(candidates(5, &owned, 2), [2, 4, 0, 1].map(Partition));
        assert_eq!(candidates(5, &owned, 9), [4, 0, 1, 2].map(Partition));
    }
}
