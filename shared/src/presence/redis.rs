//! The presence of cluster mode: a sorted set of expiry times and two hashes for each conversation.
//!
//! Counting costs the same in a room of ten and of a hundred thousand. Up to a thousand connections that have expired
//! are cleared away by each call; while more than that remain, the number of users is too high by theirs.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use redis::{Pipeline, Script};

use super::{PRESENCE_TTL_SECONDS, Presence, PresenceEntry, PresenceStats};
use crate::{
    broker::{
        BrokerError,
        redis::{RedisConfig, keys::Keys, route::Pool},
    },
    domain::{ClientInfo, ConnectionId, ConversationId},
    gather::Gather,
};

const SCRIPT: &str = include_str!("presence.lua");
/// How many calls go out at once.
const CALLS_PER_REQUEST_MAX: usize = 500;
/// How many of those who come or go one by one go out together: while Redis does that much, others wait.
const TOGETHER_MAX: usize = 64;
/// How many connections one call enters, lest a script keep others waiting.
const ENTRIES_PER_CALL_MAX: usize = 200;

/// Who is where on all nodes.
pub struct RedisPresence {
    rooms: Arc<Rooms>,
    /// Those who come one by one, but thousands at a time when a node has died.
    entering: Arc<Gather<PresenceEntry, u32>>,
    /// Those who leave.
    leaving: Arc<Gather<(ConversationId, ConnectionId), u32>>,
}

/// The rooms in Redis.
struct Rooms {
    keys: Keys,
    pool: Pool,
    script: Script,
    ttl_ms: u64,
}

impl RedisPresence {
    /// Prepares the connections; each is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &RedisConfig) -> Result<Self, BrokerError> {
        Self::with_ttl_ms(config, PRESENCE_TTL_SECONDS * 1000)
    }

    /// One whose entries live this long, in milliseconds; the same on every node.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn with_ttl_ms(config: &RedisConfig, ttl_ms: u64) -> Result<Self, BrokerError> {
        let script = Script::new(SCRIPT);
        let rooms = Rooms { keys: Keys::new(config.partitions), pool: config.pool()?, script, ttl_ms };
        let rooms = Arc::new(rooms);
        let entering =
            Gather::new(&rooms, TOGETHER_MAX, |rooms, entries| async move { rooms.enter(&entries).await });
        let leaving =
            Gather::new(&rooms, TOGETHER_MAX, |rooms, gone| async move { rooms.leave(&gone).await });
        Ok(Self { rooms, entering, leaving })
    }
}

impl Rooms {
    fn names(&self, conversation: &ConversationId) -> [String; 3] {
        ["p:", "pi:", "pu:"].map(|kind| self.keys.presence(conversation, kind))
    }

    fn add<'a>(&self, request: &'a mut Pipeline, conversation: &ConversationId) -> &'a mut Pipeline {
        let names = self.names(conversation);
        request.cmd("EVALSHA").arg(self.script.get_hash()).arg(names.len()).arg(&names)
    }

    fn add_enter(&self, request: &mut Pipeline, conversation: &ConversationId, clients: &[&ClientInfo]) {
        let call = self.add(request, conversation).arg("enter").arg(self.ttl_ms);
        for who in clients {
            let json = serde_json::to_string(who).expect("who a client is is plain data");
            call.arg(who.client.to_string()).arg(who.user.as_str()).arg(json);
        }
    }

    /// Begins a request of several calls.
    fn request() -> Pipeline {
        let mut request = redis::pipe();
        request.cmd("SCRIPT").arg("LOAD").arg(SCRIPT).ignore();
        request
    }

    async fn call<T: redis::FromRedisValue>(
        &self,
        conversation: &ConversationId,
        arguments: &[String],
    ) -> Result<T, BrokerError> {
        let mut call = self.script.prepare_invoke();
        call.key(&self.names(conversation)).arg(arguments);
        let slot = self.keys.slot_of(conversation);
        let call = &call;
        self.pool.run(slot, |mut held| async move { call.invoke_async(&mut held).await }).await
    }

    /// How many each conversation has afterwards, in the order of the entries; `None` where its server is away, which hears
    /// of its rooms by the next refresh.
    async fn enter(&self, entries: &[PresenceEntry]) -> Result<Vec<Option<u32>>, BrokerError> {
        let mut rooms: HashMap<&ConversationId, Vec<&ClientInfo>> = HashMap::new();
        for (conversation, who) in entries {
            rooms.entry(conversation).or_default().push(who);
        }
        let calls: Vec<(&ConversationId, &[&ClientInfo])> = rooms
            .iter()
            .flat_map(|(&room, clients)| clients.chunks(ENTRIES_PER_CALL_MAX).map(move |some| (room, some)))
            .collect();
        let mut counts: HashMap<&ConversationId, Option<u32>> = HashMap::new();
        for calls in calls.chunks(CALLS_PER_REQUEST_MAX) {
            let asked = self.pool.spread(
                calls,
                |(conversation, _)| self.keys.slot_of(conversation),
                |mut held, calls| async move {
                    let mut request = Self::request();
                    for (conversation, clients) in calls {
                        self.add_enter(&mut request, conversation, clients);
                    }
                    request.query_async(&mut held).await
                },
            );
            let answers: Vec<Option<u32>> = asked.await.some()?;
            counts.extend(calls.iter().map(|(conversation, _)| *conversation).zip(answers));
        }
        Ok(entries.iter().map(|(conversation, _)| counts[conversation]).collect())
    }

    /// How many each conversation has afterwards, in the order given.
    async fn leave(&self, gone: &[(ConversationId, ConnectionId)]) -> Result<Vec<Option<u32>>, BrokerError> {
        let asked = self.pool.spread(
            gone,
            |(conversation, _)| self.keys.slot_of(conversation),
            |mut held, gone| async move {
                let mut request = Self::request();
                for (conversation, client) in gone {
                    self.add(&mut request, conversation).arg("leave").arg(client.to_string());
                }
                request.query_async(&mut held).await
            },
        );
        asked.await.some()
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn enter(&self, entries: &[PresenceEntry]) -> Result<Vec<u32>, BrokerError> {
        if let [entry] = entries {
            return Ok(vec![self.entering.ask(entry.clone()).await?]);
        }
        let counts = self.rooms.enter(entries).await?;
        Ok(counts.into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn leave(&self, conversation: &ConversationId, client: ConnectionId) -> Result<u32, BrokerError> {
        Ok(self.leaving.ask((conversation.clone(), client)).await?)
    }

    async fn list(
        &self,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<ClientInfo>, BrokerError> {
        let found: Vec<String> =
            self.rooms.call(conversation, &["list".to_owned(), limit.to_string()]).await?;
        // What another version wrote and this one cannot read is not shown.
        Ok(found.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
    }

    async fn stats(&self, conversation: &ConversationId) -> Result<PresenceStats, BrokerError> {
        let (clients, users) = self.rooms.call(conversation, &["stats".to_owned()]).await?;
        Ok(PresenceStats { clients, users })
    }
}
