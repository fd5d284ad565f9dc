//! Partitions: the unit by which conversations are spread over Redis slots and persisters.

use super::ids::ConversationId;

/// How many partitions a deployment has unless it was installed with another number.
pub const PARTITIONS_DEFAULT: u16 = 64;
/// The largest number of partitions: one for each Redis Cluster slot.
pub const PARTITIONS_MAX: u16 = 16_384;

/// One partition, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of a conversation among `count` of them.
    ///
    /// FNV-1a over the id's bytes: fixed for ever, since a conversation that changed its partition would lose its log.
    pub fn of(conversation: &ConversationId, count: u16) -> Self {
        let hash = conversation.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // The low bits of FNV-1a mix less than the high ones.
        let folded = (hash >> 32) ^ hash;
        Self(u16::try_from(folded % u64::from(count)).expect("a remainder of a u16 fits a u16"))
    }

    /// All partitions of a deployment with `count` of them.
    pub fn all(count: u16) -> impl Iterator<Item = Self> + Clone {
        (0..count).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_never_changes_its_partition() {
        let of = |text| Partition::of(&ConversationId::parse(text).unwrap(), PARTITIONS_DEFAULT).0;
        assert_eq!([of("general"), of("conv_1_2"), of("user:42")], [29, 50, 38]);
    }

    #[test]
    fn conversations_spread_evenly() {
        let mut counts = [0_u32; PARTITIONS_DEFAULT as usize];
        for n in 0..64_000 {
            let id = ConversationId::parse(&format!("conv_{n}_{}", n + 1)).unwrap();
            counts[usize::from(Partition::of(&id, PARTITIONS_DEFAULT).0)] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }
}
