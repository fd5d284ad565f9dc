//! What goes into one transaction, and how the one message that the store refuses is found in it.

use std::ops::Range;

use shared::{
    broker::LogPosition,
    domain::{Message, Partition},
    log::{LogBatch, LogEntry},
};

/// Bodies in one transaction, in bytes: Postgres takes no statement beyond 1 GiB, and must be done with one in time.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What one transaction commits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The messages, of each partition in the order of its log.
    pub messages: Vec<Message>,
    /// Where each of `messages` is in the log.
    pub places: Vec<(Partition, LogPosition)>,
    /// Entries that are no messages.
    pub unreadable: Vec<(Partition, LogEntry)>,
    /// Up to where each partition is done with this batch, unreadable entries included.
    pub cursors: Vec<(Partition, LogPosition)>,
    /// The bodies of all messages.
    bytes: usize,
}

impl Batch {
    fn entries(&self) -> usize {
        self.messages.len() + self.unreadable.len()
    }

    fn is_full(&self, entries_max: usize) -> bool {
        self.entries() >= entries_max || self.bytes >= BATCH_BYTES_MAX
    }

    fn push(&mut self, partition: Partition, entry: LogEntry) {
        let position = entry.position;
        match self.cursors.last_mut() {
            Some((last, cursor)) if *last == partition => *cursor = position,
            _ => self.cursors.push((partition, position)),
        }
        match entry.content {
            Ok(message) => {
                self.bytes += message.body.as_bytes().len();
                self.messages.push(message);
                self.places.push((partition, position));
            }
            Err(_) => self.unreadable.push((partition, entry)),
        }
    }

    /// The entry from which the message at `index` was read.
    pub fn entry(&self, index: usize) -> (Partition, LogEntry) {
        let (partition, position) = self.places[index];
        (partition, LogEntry { position, content: Ok(self.messages[index].clone()) })
    }

    /// When the oldest entry was appended, in milliseconds since 1970; `None` when there is none.
    pub fn oldest_ms(&self) -> Option<u64> {
        let unreadable = self.unreadable.iter().map(|(_, entry)| entry.position);
        self.places
            .iter()
            .map(|&(_, position)| position)
            .chain(unreadable)
            .map(|position| position.entry.ms)
            .min()
    }
}

/// Cuts what was read into batches of at most `entries_max` entries and about [`BATCH_BYTES_MAX`], in the order in which
/// they must be committed.
pub fn cut(read: Vec<LogBatch>, entries_max: usize) -> Vec<Batch> {
    let mut batches = vec![Batch::default()];
    for LogBatch { partition, entries } in read {
        for entry in entries {
            if batches.last().is_none_or(|batch| batch.is_full(entries_max)) {
                batches.push(Batch::default());
            }
            batches.last_mut().expect("one was just made").push(partition, entry);
        }
    }
    batches.retain(|batch| batch.entries() > 0);
    batches
}

/// Halves what was refused until what is refused is one message.
#[derive(Debug, Default)]
pub struct Bisection {
    /// What has to be tried, the next one last.
    rest: Vec<Range<usize>>,
}

impl Bisection {
    /// The messages to try next, in the order of the batch.
    pub fn next(&mut self) -> Option<Range<usize>> {
        self.rest.pop()
    }

    /// The store refuses these; the index is returned when it is one message, else its halves will be tried.
    pub fn refused(&mut self, range: Range<usize>) -> Option<usize> {
        if range.len() <= 1 {
            return range.into_iter().next();
        }
        let middle = range.start.midpoint(range.end);
        self.rest.push(middle..range.end);
        self.rest.push(range.start..middle);
        None
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        broker::EntryId,
        domain::{Body, ConversationId, Epoch, MessageId, MessageKind, Seq, UserId},
        log::UnreadableEntry,
    };

    use super::*;

    fn entry(n: u64) -> LogEntry {
        let message = Message {
            id: MessageId(uuid::Uuid::from_u128(n.into())),
            conversation: ConversationId::parse("general").unwrap(),
            seq: Seq(n),
            prev: Seq(n - 1),
            time: n,
            sender: UserId::parse("alice").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json(&b"1"[..]),
        };
        LogEntry { position: position(n), content: Ok(message) }
    }

    fn position(n: u64) -> LogPosition {
        LogPosition { epoch: Epoch(1), entry: EntryId { ms: n, n: 0 } }
    }

    fn unreadable(n: u64) -> LogEntry {
        let reason = "no field r".to_owned();
        LogEntry { position: position(n), content: Err(UnreadableEntry { reason, fields: Vec::new() }) }
    }

    #[test]
    fn a_read_is_cut_in_order_and_every_cut_moves_the_cursor() {
        let read = vec![
            LogBatch { partition: Partition(4), entries: vec![entry(1), entry(2), unreadable(3)] },
            LogBatch { partition: Partition(9), entries: vec![unreadable(4), entry(5)] },
        ];
        let batches = cut(read, 2);
        let seqs: Vec<Vec<u64>> = batches
            .iter()
            .map(|batch| batch.messages.iter().map(|message| message.seq.0).collect())
            .collect();
        assert_eq!(seqs, [vec![1, 2], vec![], vec![5]]);
        let (four, nine) = (Partition(4), Partition(9));
        assert_eq!(batches[0].cursors, [(four, position(2))]);
        assert_eq!(batches[1].cursors, [(four, position(3)), (nine, position(4))]);
        assert_eq!(batches[1].oldest_ms(), Some(3));
        assert_eq!(batches[2].cursors, [(nine, position(5))]);
        assert_eq!(batches[2].entry(0), (nine, entry(5)));
        assert_eq!(cut(Vec::new(), 2), []);
    }

    #[test]
    fn large_bodies_make_small_batches() {
        const BODY_BYTES: usize = 1 << 20;
        let large = |n| {
            let mut entry = entry(n);
            entry.content.as_mut().unwrap().body = Body::from_json(vec![b'1'; BODY_BYTES]);
            entry
        };
        let read = LogBatch { partition: Partition(0), entries: (1..=40).map(large).collect() };
        let sizes: Vec<usize> = cut(vec![read], 5_000).iter().map(|batch| batch.messages.len()).collect();
        assert_eq!(sizes, [16, 16, 8]);
    }

    #[test]
    fn exactly_the_poison_is_found_and_everything_else_is_stored_in_order() {
        for (count, poison) in
            [(1, vec![0]), (2, vec![1]), (9, vec![0, 4, 8]), (100, vec![41, 42]), (3, vec![0, 1, 2])]
        {
            let (mut stored, mut found) = (Vec::new(), Vec::new());
            let mut bisection = Bisection::default();
            found.extend(bisection.refused(0..count));
            while let Some(range) = bisection.next() {
                if range.clone().any(|index| poison.contains(&index)) {
                    found.extend(bisection.refused(range));
                } else {
                    stored.extend(range);
                }
            }
            assert_eq!(found, poison);
            assert_eq!(stored, (0..count).filter(|index| !poison.contains(index)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_empty_refusal_blames_nobody() {
        let mut bisection = Bisection::default();
        assert_eq!((bisection.refused(0..0), bisection.next()), (None, None));
    }
}
