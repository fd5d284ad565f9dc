//! A map whose entries expire, without a timer: every look passes the present time.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Values by key, each until its own time.
#[derive(Debug, Clone)]
pub(super) struct Expiring<K, V> {
    values: HashMap<K, (u64, V)>,
    /// Every key at least once, with a time at which to look at it.
    queue: VecDeque<(u64, K)>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), queue: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Expiring<K, V> {
    pub fn get(&self, key: &K, now: u64) -> Option<&V> {
        self.values.get(key).filter(|(expiry, _)| *expiry > now).map(|(_, value)| value)
    }

    /// The value, which now lives until `expiry`.
    pub fn touch(&mut self, key: &K, now: u64, expiry: u64) -> Option<&V> {
        let (present, value) = self.values.get_mut(key).filter(|(present, _)| *present > now)?;
        *present = expiry;
        Some(value)
    }

    pub fn insert(&mut self, key: K, value: V, expiry: u64) {
        if self.values.insert(key.clone(), (expiry, value)).is_none() {
            self.queue.push_back((expiry, key));
        }
    }

    /// The value, which now lives until `expiry`; a new one where there was none.
    pub fn entry(&mut self, key: &K, now: u64, expiry: u64) -> &mut V
    where
        V: Default,
    {
        if self.touch(key, now, expiry).is_none() {
            self.insert(key.clone(), V::default(), expiry);
        }
        &mut self.values.get_mut(key).expect("it was just put there").1
    }

    /// Gives back the memory of what has expired.
    pub fn expire(&mut self, now: u64) {
        while let Some((_, key)) = self.queue.pop_front_if(|(expiry, _)| *expiry <= now) {
            match self.values.get(&key) {
                // It was touched since.
                Some(&(expiry, _)) if expiry > now => self.queue.push_back((expiry, key)),
                _ => drop(self.values.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lives_until_its_time_and_not_longer() {
        let mut map = Expiring::default();
        map.insert("a", 1, 10);
        map.insert("b", 2, 10);
        assert_eq!(map.touch(&"b", 9, 20), Some(&2));
        map.expire(10);
        assert_eq!((map.get(&"a", 10), map.get(&"b", 10)), (None, Some(&2)));
        assert_eq!((map.values.len(), map.queue.len()), (1, 1));
        assert_eq!(map.touch(&"b", 20, 30), None);
        map.expire(20);
        assert_eq!((map.values.len(), map.queue.len()), (0, 0));
    }
}
