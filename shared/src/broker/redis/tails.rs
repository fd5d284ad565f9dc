//! The ends of conversations and their hot tails, as everybody needs them who comes back. Those who ask at the same moment ask
//! together, and what several of them ask is asked once.
//!
//! It has a connection of its own: long answers for those who come do not stand in front of the answers to publishes.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use redis::{RedisResult, Value, from_redis_value};

use super::{connection::Held, keys::Keys, route::Commands};
use crate::{
    broker::{BrokerError, EntryId, Recent},
    domain::{ConversationId, Message, Seq},
    gather::Gather,
    record::decode_payload,
};

/// How many go out together: while Redis reads that many tails, others wait.
const TOGETHER_MAX: usize = 32;

/// What is asked about one conversation: its end, and which part of its tail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    conversation: ConversationId,
    tail: Option<Part>,
}

/// Messages of a tail: those after a seq, and how many of them at most.
type Part = (Seq, usize);

/// An entry of a hot tail: its id, and its fields by turns.
type TailEntry = (String, Vec<Vec<u8>>);

/// Reads ends and tails.
pub(super) struct Tails(Arc<Gather<Asked, Recent>>);

/// Where they are.
struct Place {
    keys: Arc<Keys>,
    commands: Arc<Commands>,
}

impl Tails {
    pub fn new(keys: Arc<Keys>, commands: Arc<Commands>) -> Self {
        let place = Arc::new(Place { keys, commands });
        Self(Gather::new(&place, TOGETHER_MAX, |place, asked| async move { place.read(&asked).await }))
    }

    /// The end of a conversation; `None` where nothing is known of it.
    pub async fn end(&self, conversation: &ConversationId) -> Result<Option<Seq>, BrokerError> {
        Ok(self.0.ask(Asked { conversation: conversation.clone(), tail: None }).await?.top)
    }

    /// At most `limit` messages after `after`, the oldest of those that remain.
    pub async fn recent(
        &self,
        conversation: &ConversationId,
        after: Seq,
        limit: usize,
    ) -> Result<Recent, BrokerError> {
        let asked = Asked { conversation: conversation.clone(), tail: Some((after, limit)) };
        Ok(self.0.ask(asked).await?)
    }
}

impl Place {
    /// The answer to each; `None` where its server is away.
    async fn read(&self, asked: &[Asked]) -> Result<Vec<Option<Recent>>, BrokerError> {
        let mut places: HashMap<&Asked, usize> = HashMap::new();
        let mut different: Vec<&Asked> = Vec::new();
        for one in asked {
            places.entry(one).or_insert_with(|| {
                different.push(one);
                different.len() - 1
            });
        }
        let answers = self.commands.spread(
            &different,
            |one| self.keys.slot_of(&one.conversation),
            |held, some| async move { self.read_some(held, &some).await },
        );
        let answers = answers.await.some()?;
        Ok(asked.iter().map(|one| answers[places[one]].clone()).collect())
    }

    async fn read_some(&self, mut held: Held, asked: &[&&Asked]) -> RedisResult<Vec<Recent>> {
        let mut request = redis::pipe();
        for Asked { conversation, tail } in asked {
            // First the end: whatever came up to there, the tail has when it is read, or has no longer.
            request.cmd("HGET").arg(self.keys.position(conversation)).arg("s");
            if let Some((after, limit)) = tail {
                let after = format!("({after}-0");
                request.cmd("XRANGE").arg(self.keys.tail(conversation)).arg(after).arg("+");
                request.arg("COUNT").arg(limit);
            }
        }
        let values: Vec<Value> = request.query_async(&mut held.connection).await?;
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or(Value::Nil);
        let read = |Asked { conversation, tail }: &Asked| {
            let end: Option<u64> = from_redis_value(next())?;
            let end = end.map(Seq);
            let Some((after, _)) = tail else {
                return Ok(Recent { messages: Vec::new(), complete: false, top: end });
            };
            let entries: Vec<TailEntry> = from_redis_value(next())?;
            let messages: Vec<_> =
                entries.into_iter().map(|entry| parse_tail_entry(conversation, entry)).collect();
            // What came in between is a part of the tail.
            let newest = messages.iter().flatten().map(|message| message.seq).max();
            let end = end.map(|end| newest.map_or(end, |newest| end.max(newest)));
            Ok(Recent::join(messages.into_iter(), *after, end))
        };
        asked.iter().copied().copied().map(read).collect()
    }
}

/// Reads an entry of the hot tail; `None` when it is none of ours.
fn parse_tail_entry(conversation: &ConversationId, (id, mut fields): TailEntry) -> Option<Message> {
    let mut field = |name: &[u8]| {
        let at = fields.chunks_exact(2).position(|pair| pair[0] == name)?;
        Some(std::mem::take(&mut fields[2 * at + 1]))
    };
    let number = |text: Vec<u8>| std::str::from_utf8(&text).ok()?.parse().ok();
    let (prev, time) = (Seq(number(field(b"p")?)?), number(field(b"t")?)?);
    let payload = decode_payload(&Bytes::from(field(b"r")?)).ok()?;
    Some(payload.at(conversation.clone(), Seq(EntryId::parse(&id)?.ms), prev, time))
}
