//! The names of everything in Redis.
//!
//! All keys of a partition carry its tag in braces, so that they lie in one slot of a Redis Cluster and one script may
//! touch them. Tags are chosen so that the slots of `P` partitions lie evenly over all slots: the `i`-th partition's tag
//! is the first number, in base 36, that falls into the `i`-th of `P` equal ranges. That never changes for a given `P`.

use std::collections::HashMap;

use crate::domain::{ConversationId, MessageId, NodeId, Partition};

/// How many slots a Redis Cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// One of the [`SLOTS`] that the keys of a Redis Cluster are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub u16);

impl Slot {
    /// Where the key lies: what stands between its first braces decides, if anything does.
    pub fn of(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        Self(slot(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()))
    }
}

/// The names of one deployment.
#[derive(Debug)]
pub(crate) struct Keys {
    tags: Vec<String>,
    slots: Vec<Slot>,
    by_tag: HashMap<String, Partition>,
}

/// What a channel name says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Channel<'a> {
    Conversation(&'a str),
    Stored(Partition),
    Everyone,
    Node,
}

impl Keys {
    pub fn new(partitions: u16) -> Self {
        let tags = tags(partitions);
        let by_tag = tags.iter().cloned().zip(Partition::all(partitions)).collect();
        let slots = tags.iter().map(|tag| Slot(slot(tag.as_bytes()))).collect();
        Self { tags, slots, by_tag }
    }

    pub fn partitions(&self) -> u16 {
        u16::try_from(self.tags.len()).expect("it was made from a u16")
    }

    pub fn partition(&self, conversation: &ConversationId) -> Partition {
        Partition::of(conversation, self.partitions())
    }

    /// The slot of all of the partition's keys.
    pub fn slot(&self, partition: Partition) -> Slot {
        self.slots[usize::from(partition.0)]
    }

    /// The slot of all of the conversation's keys.
    pub fn slot_of(&self, conversation: &ConversationId) -> Slot {
        self.slot(self.partition(conversation))
    }

    /// The partition's epoch (`e`), the run id it was issued for (`run`), and since when (`at`): a hash.
    pub fn epoch(&self, partition: Partition) -> String {
        self.of(partition, "ep")
    }

    /// The partition's log: a stream.
    pub fn log(&self, partition: Partition) -> String {
        self.of(partition, "log")
    }

    /// Entries of the log that can never be stored: a stream.
    pub fn dead_letters(&self, partition: Partition) -> String {
        self.of(partition, "dlq")
    }

    /// Messages that nodes have handed in since Redis may have lost them: a list.
    pub fn salvage(&self, partition: Partition) -> String {
        self.of(partition, "salvage")
    }

    /// The sharded channel of the partition's `stored` notices.
    pub fn stored(&self, partition: Partition) -> String {
        self.of(partition, "stored")
    }

    /// One of the sharded channels of announcements for every node; each partition has one, and any of them will do.
    pub fn everyone(&self, partition: Partition) -> String {
        self.of(partition, "all")
    }

    /// The same for one node. By what is empty, the node proves to itself that what is published reaches it.
    pub fn node(&self, partition: Partition, node: &NodeId) -> String {
        format!("{{{}}}n:{node}", self.tag(partition))
    }

    /// The conversation's epoch (`e`), last seq (`s`) and its time (`t`): a hash.
    pub fn position(&self, conversation: &ConversationId) -> String {
        self.named(conversation, "m:")
    }

    /// The hot tail: a stream whose ids are seqs.
    pub fn tail(&self, conversation: &ConversationId) -> String {
        self.named(conversation, "h:")
    }

    /// The sharded channel of what happens in the conversation.
    pub fn channel(&self, conversation: &ConversationId) -> String {
        self.named(conversation, "c:")
    }

    /// Who is in the conversation: `kind` tells apart the three keys that this takes.
    pub fn presence(&self, conversation: &ConversationId, kind: &str) -> String {
        self.named(conversation, kind)
    }

    /// The partition's users who are known to be online, and when each may be taken: a sorted set.
    pub fn online(&self, partition: Partition) -> String {
        self.of(partition, "online")
    }

    /// When each of those was last seen: a hash.
    pub fn seen(&self, partition: Partition) -> String {
        self.of(partition, "seen")
    }

    /// Up to when a subject has used its rate: a string. `kind` tells users and conversations apart.
    pub fn rate(&self, conversation: &ConversationId, kind: &str) -> String {
        self.named(conversation, kind)
    }

    /// A session that can be taken up again, by its secret: a string.
    pub fn session(&self, personal: &ConversationId, secret: &str) -> String {
        self.named(personal, &format!("rs:{secret}:"))
    }

    /// The place that a message was given: a string.
    pub fn accepted(&self, partition: Partition, id: MessageId) -> String {
        format!("{{{}}}d:{}", self.tag(partition), id.0.simple())
    }

    /// Reads the name of a sharded channel.
    pub fn parse_channel<'a>(&self, name: &'a str) -> Option<Channel<'a>> {
        let (tag, rest) = name.strip_prefix('{')?.split_once('}')?;
        match rest.strip_prefix("c:") {
            Some(conversation) => Some(Channel::Conversation(conversation)),
            None if rest == "stored" => self.by_tag.get(tag).copied().map(Channel::Stored),
            None if rest == "all" => Some(Channel::Everyone),
            None => rest.starts_with("n:").then_some(Channel::Node),
        }
    }

    pub fn tag(&self, partition: Partition) -> &str {
        &self.tags[usize::from(partition.0)]
    }

    fn of(&self, partition: Partition, name: &str) -> String {
        format!("{{{}}}{name}", self.tag(partition))
    }

    fn named(&self, conversation: &ConversationId, kind: &str) -> String {
        format!("{{{}}}{kind}{conversation}", self.tag(self.partition(conversation)))
    }
}

fn tags(partitions: u16) -> Vec<String> {
    let mut tags = vec![String::new(); usize::from(partitions)];
    let mut missing = tags.len();
    // Ends: the numbers fall everywhere, so every range is met.
    for number in 0_u32.. {
        if missing == 0 {
            break;
        }
        let tag = base36(number);
        let range = u32::from(slot(tag.as_bytes())) * u32::from(partitions) / u32::from(SLOTS);
        let place = &mut tags[usize::try_from(range).expect("fewer ranges than slots")];
        if place.is_empty() {
            *place = tag;
            missing -= 1;
        }
    }
    tags
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).expect("a remainder of 36 is a digit"));
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.into_iter().rev().collect()
}

/// The slot of a tag: CRC-16/XMODEM, as the cluster specification says.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc & 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"user1000"), 3_443);
        assert_eq!(Slot::of("{user1000}.following"), Slot(3_443));
        assert_eq!(Slot::of("foo"), Slot(12_182));
        assert_eq!(Slot::of("foo{}{bar}"), Slot(slot(b"foo{}{bar}")));
        assert_eq!(Slot::of("foo{{bar}}zap"), Slot(slot(b"{bar")));
    }

    #[test]
    fn partitions_spread_evenly_over_nodes() {
        let tags = tags(64);
        for nodes in [3_u32, 6, 10] {
            let mut counts = vec![0_u32; nodes as usize];
            for tag in &tags {
                counts[(u32::from(slot(tag.as_bytes())) * nodes / u32::from(SLOTS)) as usize] += 1;
            }
            let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
            assert!(most - least <= 2, "{nodes} nodes: {counts:?}");
        }
    }

    #[test]
    fn every_number_of_partitions_has_its_tags() {
        for partitions in [1, 2, 64, 1000, 16_384] {
            let tags = tags(partitions);
            let slots: std::collections::HashSet<u16> = tags.iter().map(|tag| slot(tag.as_bytes())).collect();
            assert_eq!(slots.len(), usize::from(partitions));
        }
    }

    #[test]
    fn names_never_change() {
        let keys = Keys::new(64);
        let conversation = ConversationId::parse("general").unwrap();
        assert_eq!(keys.channel(&conversation), "{k}c:general");
        assert_eq!(keys.log(Partition(0)), "{10}log");
        assert_eq!(keys.stored(Partition(63)), "{x}stored");
    }

    #[test]
    fn channels_are_read_back() {
        let keys = Keys::new(64);
        let conversation = ConversationId::parse("c:stored").unwrap();
        let name = keys.channel(&conversation);
        assert_eq!(keys.parse_channel(&name), Some(Channel::Conversation("c:stored")));
        let name = keys.stored(Partition(5));
        assert_eq!(keys.parse_channel(&name), Some(Channel::Stored(Partition(5))));
        assert_eq!(keys.parse_channel("{nothing}stored"), None);
        assert_eq!(keys.parse_channel(&keys.everyone(Partition(7))), Some(Channel::Everyone));
        let node = NodeId::parse("one").unwrap();
        assert_eq!(keys.parse_channel(&keys.node(Partition(7), &node)), Some(Channel::Node));
        assert_eq!(keys.parse_channel("starling:revocations"), None);
    }
}
