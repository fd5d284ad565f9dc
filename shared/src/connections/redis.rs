//! The connections of cluster mode: a sorted set of expiry times and a hash for each user, and a sorted set of users for
//! each partition, so that whoever is gone is found without a look at everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use redis::{Pipeline, Script};

use super::{CONNECTION_TTL_SECONDS, Connections, Gone, RETURN_MS, TAKEN_MS, UserState};
use crate::{
    broker::{
        BrokerError,
        redis::{
            RedisConfig,
            keys::{Keys, Slot},
            route::{Pool, Spread},
        },
    },
    domain::{ConnectionId, ConnectionRecord, ConversationId, Partition, UserId},
    gather::Gather,
};

const SCRIPT: &str = include_str!("connections.lua");
/// How many calls go out at once.
const CALLS_PER_REQUEST_MAX: usize = 500;
/// How many of those who come or go one by one go out together: while Redis does that much, others wait.
const TOGETHER_MAX: usize = 64;
/// Most users that one call takes from a partition.
const TAKEN_PER_CALL_MAX: usize = 500;

/// Who is connected to all nodes.
pub struct RedisConnections {
    users: Arc<Users>,
    /// Those who come one by one, but thousands at a time when a node has died; whether each has come online.
    entering: Arc<Gather<Arc<ConnectionRecord>, bool>>,
    /// Those who leave.
    leaving: Arc<Gather<(UserId, ConnectionId), ()>>,
}

/// The users in Redis.
struct Users {
    keys: Keys,
    pool: Pool,
    script: Script,
    ttl_ms: u64,
}

impl RedisConnections {
    /// Prepares the connections to Redis; each is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: &RedisConfig) -> Result<Self, BrokerError> {
        Self::with_ttl_ms(config, CONNECTION_TTL_SECONDS * 1000)
    }

    /// One whose connections live this long, in milliseconds; the same on every node.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn with_ttl_ms(config: &RedisConfig, ttl_ms: u64) -> Result<Self, BrokerError> {
        let script = Script::new(SCRIPT);
        let users = Users { keys: Keys::new(config.partitions), pool: config.pool()?, script, ttl_ms };
        let users = Arc::new(users);
        let entering =
            Gather::new(
                &users,
                TOGETHER_MAX,
                |users, records| async move { users.enter_each(&records).await },
            );
        let leaving =
            Gather::new(&users, TOGETHER_MAX, |users, gone| async move { users.leave(&gone).await });
        Ok(Self { users, entering, leaving })
    }
}

impl Users {
    /// The personal room spreads users over the partitions, and has them where their own messages are.
    fn names(&self, user: &UserId) -> [String; 4] {
        let room = ConversationId::personal(user);
        let [online, seen] = self.partition_names(self.keys.partition(&room));
        [self.keys.presence(&room, "u:"), self.keys.presence(&room, "ur:"), online, seen]
    }

    fn partition_names(&self, partition: Partition) -> [String; 2] {
        [self.keys.online(partition), self.keys.seen(partition)]
    }

    /// Begins a request of several calls.
    fn request() -> Pipeline {
        let mut request = redis::pipe();
        request.cmd("SCRIPT").arg("LOAD").arg(SCRIPT).ignore();
        request
    }

    fn add<'a>(&self, request: &'a mut Pipeline, names: &[String]) -> &'a mut Pipeline {
        request.cmd("EVALSHA").arg(self.script.get_hash()).arg(names.len()).arg(names)
    }

    fn slot_of(&self, user: &UserId) -> Slot {
        self.keys.slot_of(&ConversationId::personal(user))
    }

    async fn ask<T: redis::FromRedisValue>(&self, slot: Slot, request: &Pipeline) -> Result<T, BrokerError> {
        self.pool.run(slot, |mut held| async move { request.query_async(&mut held).await }).await
    }

    /// Sends one call for each item, by what `call` adds to a request.
    async fn ask_each<I: Sync, T: redis::FromRedisValue>(
        &self,
        items: &[I],
        slot: impl Fn(&I) -> Slot,
        call: impl Fn(&mut Pipeline, &I) + Sync,
    ) -> Spread<T> {
        let call = &call;
        let ask = |mut held, items: Vec<_>| async move {
            let mut request = Self::request();
            for item in items {
                call(&mut request, item);
            }
            request.query_async(&mut held).await
        };
        self.pool.spread(items, slot, ask).await
    }

    /// The users who have come online; a server that is away hears of its users by the next refresh.
    async fn enter(&self, connections: &[Arc<ConnectionRecord>]) -> Result<Vec<UserId>, BrokerError> {
        let mut users: BTreeMap<&UserId, Vec<&ConnectionRecord>> = BTreeMap::new();
        for record in connections {
            users.entry(&record.user).or_default().push(record);
        }
        let users: Vec<(&UserId, Vec<&ConnectionRecord>)> = users.into_iter().collect();
        let mut came = Vec::new();
        for some in users.chunks(CALLS_PER_REQUEST_MAX) {
            let enter = |request: &mut Pipeline, (user, records): &(&UserId, Vec<&ConnectionRecord>)| {
                let call = self.add(request, &self.names(user));
                call.arg("enter").arg(self.ttl_ms).arg(user.as_str());
                for record in records {
                    let json = serde_json::to_string(record).expect("a connection is plain data");
                    call.arg(record.client.to_string()).arg(json);
                }
            };
            let answers: Vec<Option<bool>> =
                self.ask_each(some, |(user, _)| self.slot_of(user), enter).await.some()?;
            // A server that is away hears of its users by the next refresh.
            let news = some.iter().zip(answers).filter(|(_, is_new)| *is_new == Some(true));
            came.extend(news.map(|((user, _), _)| (*user).clone()));
        }
        Ok(came)
    }

    /// Whether by each of these its user has come online; only the first of several of one user says so.
    async fn enter_each(
        &self,
        connections: &[Arc<ConnectionRecord>],
    ) -> Result<Vec<Option<bool>>, BrokerError> {
        let mut came: BTreeSet<UserId> = self.enter(connections).await?.into_iter().collect();
        Ok(connections.iter().map(|record| Some(came.remove(&record.user))).collect())
    }

    async fn leave(&self, gone: &[(UserId, ConnectionId)]) -> Result<Vec<Option<()>>, BrokerError> {
        let leave = |request: &mut Pipeline, (user, client): &(UserId, ConnectionId)| {
            let call = self.add(request, &self.names(user));
            call.arg("leave").arg(RETURN_MS).arg(user.as_str()).arg(client.to_string());
        };
        let left: Vec<Option<u32>> =
            self.ask_each(gone, |(user, _)| self.slot_of(user), leave).await.some()?;
        Ok(left.into_iter().map(|left| left.map(drop)).collect())
    }
}

#[async_trait]
impl Connections for RedisConnections {
    async fn enter(&self, connections: &[Arc<ConnectionRecord>]) -> Result<Vec<UserId>, BrokerError> {
        if let [record] = connections {
            let is_new = self.entering.ask(Arc::clone(record)).await?;
            return Ok(is_new.then(|| record.user.clone()).into_iter().collect());
        }
        self.users.enter(connections).await
    }

    async fn leave(&self, user: &UserId, client: ConnectionId) -> Result<(), BrokerError> {
        Ok(self.leaving.ask((user.clone(), client)).await?)
    }

    async fn list(&self, user: &UserId, limit: usize) -> Result<Vec<ConnectionRecord>, BrokerError> {
        let mut request = Users::request();
        self.users.add(&mut request, &self.users.names(user)).arg("list").arg(limit);
        let (found,): (Vec<Option<String>>,) = self.users.ask(self.users.slot_of(user), &request).await?;
        // What another version wrote and this one cannot read is not shown.
        Ok(found.iter().flatten().filter_map(|json| serde_json::from_str(json).ok()).collect())
    }

    async fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, BrokerError> {
        let mut states = Vec::with_capacity(users.len());
        for some in users.chunks(CALLS_PER_REQUEST_MAX) {
            let state = |request: &mut Pipeline, user: &UserId| {
                self.users.add(request, &self.users.names(user)).arg("state").arg(user.as_str());
            };
            let answers: Vec<(u32, String)> =
                self.users.ask_each(some, |user| self.users.slot_of(user), state).await.all()?;
            states.extend(answers.into_iter().map(|(connections, seen)| UserState {
                connected: connections > 0,
                known: !seen.is_empty() && !seen.starts_with('-'),
                last_seen: seen.trim_start_matches('-').parse().ok(),
            }));
        }
        Ok(states)
    }

    async fn take_gone(&self, early_ms: u64) -> Result<Vec<Gone>, BrokerError> {
        let partitions: Vec<Partition> = Partition::all(self.users.keys.partitions()).collect();
        let mut gone = Vec::new();
        for some in partitions.chunks(CALLS_PER_REQUEST_MAX) {
            let take = |request: &mut Pipeline, partition: &Partition| {
                let call = self.users.add(request, &self.users.partition_names(*partition));
                call.arg("take").arg(TAKEN_PER_CALL_MAX).arg(early_ms).arg(TAKEN_MS);
            };
            // What a server that is away has is taken when it is back.
            let answers: Vec<Option<Vec<(String, u64)>>> =
                self.users.ask_each(some, |partition| self.users.keys.slot(*partition), take).await.some()?;
            let users = answers.into_iter().flatten().flatten();
            gone.extend(
                users.filter_map(|(user, last_seen)| {
                    Some(Gone { user: UserId::parse(&user).ok()?, last_seen })
                }),
            );
        }
        Ok(gone)
    }

    async fn confirm_gone(&self, users: &[UserId]) -> Result<Vec<UserId>, BrokerError> {
        let mut by_partition: BTreeMap<Partition, Vec<&UserId>> = BTreeMap::new();
        for user in users {
            let partition = self.users.keys.partition(&ConversationId::personal(user));
            by_partition.entry(partition).or_default().push(user);
        }
        let mut back = Vec::new();
        for (partition, users) in by_partition {
            let mut request = Users::request();
            let call = self.users.add(&mut request, &self.users.partition_names(partition)).arg("confirm");
            for user in &users {
                call.arg(user.as_str());
            }
            let (found,): (Vec<String>,) = self.users.ask(self.users.keys.slot(partition), &request).await?;
            back.extend(found.iter().filter_map(|user| UserId::parse(user).ok()));
        }
        Ok(back)
    }
}
