//! How many of something are there now, by whose they are.

use std::{collections::HashMap, fmt::Debug, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// Counts up to a limit for each key; the memory is that of the keys which have something now.
#[derive(Debug)]
pub struct Counter<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    max: usize,
}

/// One of those that are counted; dropping it gives its place back.
#[derive(Debug)]
pub struct Seat<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counter<K> {
    /// At most `max` for each key.
    pub fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// Takes a place of `key`; `None` when there is none.
    pub fn take(&self, key: &K) -> Option<Seat<K>> {
        let mut counts = self.counts.lock();
        let count = counts.get(key).copied().unwrap_or_default();
        if count >= self.max {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        Some(Seat { counts: Arc::clone(&self.counts), key: key.clone() })
    }

    /// Whether nobody has a place.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.counts.lock().is_empty()
    }
}

impl<K: Hash + Eq> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_given_back_can_be_taken_again() {
        let counter = Counter::new(2);
        let (first, _second) = (counter.take(&'a').unwrap(), counter.take(&'a').unwrap());
        assert!(counter.take(&'a').is_none());
        let other = counter.take(&'b').unwrap();
        drop(first);
        let _third = counter.take(&'a').unwrap();
        assert!(counter.take(&'a').is_none());
        drop(other);
        assert_eq!(counter.counts.lock().len(), 1, "who has none is forgotten");
        assert!(Counter::new(0).take(&'a').is_none());
    }
}
