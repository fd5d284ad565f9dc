//! Random histories of failures over the seq rule: over the code of the memory broker, and over the script in a real Redis.
//!
//! What must hold, in every history:
//! - **unique**: no seq of a conversation is ever given to two messages, by any server, lost or not;
//! - **chained**: a message's `prev` is below its seq, and until a server loses data or starts again, each message follows the one before
//!   (or, where the old primary lives on, one that the store has of the other server);
//! - **honest**: a duplicate is told a seq that was given to that very message.
//!
//! And where a primary that was replaced is dead, and the store keeps to one claim at a time:
//! - **ordered**: a seq is above all that were given out before it in its conversation, even those that were lost.
//!
//! Where the old primary lives on, it goes on giving out numbers of its own epoch, so order cannot hold between the two;
//! uniqueness must.
//!
//! Without the fence all of this breaks, and the histories must find that out.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod support_ports;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shared::{
    broker::{
        Accepted, EntryId, LogPosition, Publication, Publish,
        sequence::{DEDUPE_MS, Limits, PartitionState},
    },
    domain::{Epoch, MessageId, Seq},
};
use support_ports::{OnRedis, named};

const HISTORIES: u64 = 20_000;
const HISTORIES_ON_REDIS: u64 = 300;
const STEPS: usize = 80;
const NODES: usize = 3;
const CONVERSATIONS: [&str; 2] = ["a", "b"];
/// How many stale copies are kept for a promotion.
const COPIES_MAX: usize = 4;

/// What one server holds of a partition.
trait Data: Sized {
    async fn publish(&mut self, run: &str, now: u64, publish: &Publish) -> Publication;
    async fn seed(&mut self, run: &str, epoch: Epoch, now: u64) -> bool;
    /// The run that the partition was opened for.
    async fn run(&mut self) -> Option<String>;
    async fn copy(&mut self) -> Self;
    async fn lose(&mut self);
    /// The oldest entries of the log: their places, conversations, seqs and messages.
    async fn log(&mut self, limit: usize) -> Vec<(EntryId, String, Seq, MessageId)>;
    async fn trim(&mut self, upto: EntryId);
}

impl Data for PartitionState {
    async fn publish(&mut self, run: &str, now: u64, publish: &Publish) -> Publication {
        self.publish(run, now, publish, Limits::default())
    }
    async fn seed(&mut self, run: &str, epoch: Epoch, now: u64) -> bool {
        self.seed(run, epoch, now)
    }
    async fn run(&mut self) -> Option<String> {
        PartitionState::run(self).map(str::to_owned)
    }
    async fn copy(&mut self) -> Self {
        self.clone()
    }
    async fn lose(&mut self) {
        *self = Self::default();
    }
    async fn log(&mut self, limit: usize) -> Vec<(EntryId, String, Seq, MessageId)> {
        let entries = self.entries(EntryId::default()).take(limit);
        entries.map(|(at, m)| (at.entry, m.conversation.to_string(), m.seq, m.id)).collect()
    }
    async fn trim(&mut self, upto: EntryId) {
        PartitionState::trim(self, upto);
    }
}

struct Server<D> {
    data: D,
    /// Counts its runs; with its place among the servers this is the run id.
    run: usize,
    alive: bool,
    /// By how much its clock differs.
    skew: u64,
    /// The last message of each conversation since it started or lost its data.
    last: BTreeMap<String, Seq>,
}

#[derive(Clone)]
struct Node {
    server: usize,
    /// The run that it asked for when it was attached.
    run: String,
    publishing: Option<Publish>,
    claim: Option<Epoch>,
}

/// What a history may do.
#[derive(Debug, Clone, Copy)]
struct Rules {
    is_fenced: bool,
    /// A primary that was replaced may live on.
    may_split: bool,
    /// Claims of an epoch exclude each other; if not, a node may be so slow that its claim is overtaken.
    is_guarded: bool,
}

#[derive(Default)]
struct Store {
    epochs: u32,
    rows: HashMap<(String, Seq), MessageId>,
    ids: HashSet<MessageId>,
}

impl Store {
    fn last_seq(&self, of: &str) -> Seq {
        self.rows
            .keys()
            .filter(|(conversation, _)| conversation == of)
            .map(|(_, seq)| *seq)
            .max()
            .unwrap_or_default()
    }
}

struct World<D> {
    rng: StdRng,
    rules: Rules,
    now: u64,
    servers: Vec<Server<D>>,
    copies: Vec<D>,
    nodes: Vec<Node>,
    store: Store,
    sent: Vec<Publish>,
    given: HashMap<(String, Seq), MessageId>,
    highest: HashMap<String, Seq>,
    accepted: usize,
}

const TWICE: &str = "was given out twice";

/// What went wrong.
type Broken = String;

impl<D: Data> World<D> {
    fn new(seed: u64, data: D, rules: Rules) -> Self {
        let server = Server { data, run: 0, alive: true, skew: 0, last: BTreeMap::new() };
        let node = Node { server: 0, run: run_id(0, 0), publishing: None, claim: None };
        Self {
            rng: StdRng::seed_from_u64(seed),
            rules,
            now: 1_790_000_000_000,
            servers: vec![server],
            copies: Vec::new(),
            nodes: vec![node; NODES],
            store: Store::default(),
            sent: Vec::new(),
            given: HashMap::new(),
            highest: HashMap::new(),
            accepted: 0,
        }
    }

    async fn step(&mut self) -> Result<(), Broken> {
        self.now += [0, 1, 1, 1, 50, DEDUPE_MS / 3][self.rng.random_range(0..6)];
        let node = self.rng.random_range(0..NODES);
        match self.rng.random_range(0..100) {
            0..70 => self.advance(node).await?,
            70..78 => self.persist().await?,
            78..84 => self.take_copy().await,
            84..88 => self.restart().await,
            88..90 => {
                self.current().data.lose().await;
                self.current().last.clear();
            }
            90..94 => self.promote().await,
            _ => self.attach(node, self.servers.len() - 1),
        }
        Ok(())
    }

    fn current(&mut self) -> &mut Server<D> {
        self.servers.last_mut().expect("there is always one")
    }

    /// The node makes its next request; what it was told by the store is as old as its last step.
    async fn advance(&mut self, node: usize) -> Result<(), Broken> {
        if !self.servers[self.nodes[node].server].alive {
            self.attach(node, self.servers.len() - 1);
        }
        let server = &mut self.servers[self.nodes[node].server];
        let now = self.now - server.skew;
        let Node { run, claim, .. } = &mut self.nodes[node];
        if let Some(epoch) = claim.take() {
            // Used once, whatever comes of it.
            server.data.seed(run, epoch, now).await;
            return Ok(());
        }
        let publish = match self.nodes[node].publishing.take() {
            Some(publish) => publish,
            None => self.next_publish(),
        };
        let server = &mut self.servers[self.nodes[node].server];
        let run = match (self.rules.is_fenced, server.data.run().await) {
            (false, Some(opened_for)) => opened_for,
            _ => self.nodes[node].run.clone(),
        };
        let publication = server.data.publish(&run, now, &publish).await;
        match publication {
            Publication::Accepted(accepted) => return self.judge(node, &publish, accepted),
            Publication::NeedsEpoch => {
                self.claim(node);
                self.nodes[node].publishing = Some(Publish { seed: None, checked: false, ..publish });
            }
            Publication::NeedsSeed => {
                let seed = Some(self.store.last_seq(publish.conversation.as_str()));
                self.nodes[node].publishing = Some(Publish { seed, ..publish });
            }
            Publication::NeedsCheck => {
                if !self.store.ids.contains(&publish.payload.id) {
                    self.nodes[node].publishing = Some(Publish { checked: true, ..publish });
                }
            }
            Publication::BacklogFull => return Err("the log is not full".to_owned()),
        }
        Ok(())
    }

    /// Mostly a new message, at times an old one again.
    fn next_publish(&mut self) -> Publish {
        if !self.sent.is_empty() && self.rng.random_range(0..6) == 0 {
            return self.sent[self.rng.random_range(0..self.sent.len())].clone();
        }
        let to = CONVERSATIONS[self.rng.random_range(0..CONVERSATIONS.len())];
        let publish = named(to, &self.sent.len().to_string());
        self.sent.push(publish.clone());
        publish
    }

    fn claim(&mut self, node: usize) {
        let is_taken = self.nodes.iter().any(|node| node.claim.is_some());
        if !(self.rules.is_guarded && is_taken) {
            self.nodes[node].claim = Some(Epoch(self.store.epochs));
            self.store.epochs += 1;
        }
    }

    fn judge(&mut self, node: usize, publish: &Publish, accepted: Accepted) -> Result<(), Broken> {
        let conversation = publish.conversation.to_string();
        let place = (conversation.clone(), accepted.seq);
        let holder = self.given.get(&place).copied();
        if accepted.duplicate {
            return (holder == Some(publish.payload.id))
                .then_some(())
                .ok_or("a duplicate was told a foreign seq".to_owned());
        }
        self.accepted += 1;
        if holder.is_some() {
            return Err(format!("{place:?} {TWICE}"));
        }
        self.given.insert(place, publish.payload.id);
        let last = self.servers[self.nodes[node].server].last.insert(conversation.clone(), accepted.seq);
        let follows = |last| accepted.prev == last || (self.rules.may_split && accepted.prev > last);
        if accepted.prev >= accepted.seq || !last.is_none_or(follows) {
            return Err(format!("{accepted:?} does not follow {last:?}"));
        }
        let highest = self.highest.entry(conversation).or_default();
        if accepted.seq <= *highest && !self.rules.may_split && self.rules.is_guarded {
            return Err(format!("{accepted:?} is not above {highest}"));
        }
        *highest = accepted.seq.max(*highest);
        Ok(())
    }

    /// Stores a part of the log; at times the trim does not come to pass.
    async fn persist(&mut self) -> Result<(), Broken> {
        let limit = self.rng.random_range(1..8);
        let is_trimmed = self.rng.random_range(0..4) > 0;
        let entries = self.current().data.log(limit).await;
        for (_, conversation, seq, id) in &entries {
            let row = self.store.rows.entry((conversation.clone(), *seq)).or_insert(*id);
            if row != id {
                return Err(format!("{conversation} {seq} is stored as another message"));
            }
            self.store.ids.insert(*id);
        }
        if let Some((newest, ..)) = entries.last()
            && is_trimmed
        {
            self.current().data.trim(*newest).await;
        }
        Ok(())
    }

    async fn take_copy(&mut self) {
        if self.copies.len() == COPIES_MAX {
            let oldest = self.rng.random_range(0..COPIES_MAX);
            self.copies.remove(oldest);
        }
        let copy = self.current().data.copy().await;
        self.copies.push(copy);
    }

    /// Any server starts again: with all its data, with what it had some time ago, or with none.
    async fn restart(&mut self) {
        let which = self.rng.random_range(0..self.servers.len());
        let skew = self.rng.random_range(0..2_000_000);
        let server = &mut self.servers[which];
        match (self.rng.random_range(0..4), self.copies.last_mut()) {
            (0, _) => server.data.lose().await,
            (1, Some(copy)) => server.data = copy.copy().await,
            _ => {}
        }
        server.run += 1;
        server.skew = skew;
        server.last.clear();
        // Its connections broke, so whoever was attached to it asks anew which run it is.
        for node in 0..NODES {
            if self.nodes[node].server == which {
                self.attach(node, which);
            }
        }
    }

    /// A stale copy takes the primary's place.
    async fn promote(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        let copy = self.rng.random_range(0..self.copies.len());
        let data = self.copies[copy].copy().await;
        let lives_on = self.rules.may_split && self.rng.random_range(0..2) == 0;
        self.current().alive = lives_on;
        self.servers.push(Server { data, run: 0, alive: true, skew: 0, last: BTreeMap::new() });
    }

    fn attach(&mut self, node: usize, server: usize) {
        self.nodes[node].server = server;
        self.nodes[node].run = run_id(server, self.servers[server].run);
    }
}

fn run_id(server: usize, run: usize) -> String {
    format!("{server}-{run}")
}

/// Plays one history; how many messages were accepted, or what broke.
async fn play<D: Data>(seed: u64, data: D, rules: Rules) -> Result<usize, Broken> {
    let mut world = World::new(seed, data, rules);
    for step in 0..STEPS {
        world.step().await.map_err(|broken| format!("history {seed}, step {step}, {rules:?}: {broken}"))?;
    }
    Ok(world.accepted)
}

/// The rules of the `n`-th history.
fn rules(n: u64) -> Rules {
    Rules { is_fenced: true, may_split: n % 2 == 1, is_guarded: n % 4 < 2 }
}

fn is_given_twice(result: &Result<usize, Broken>) -> bool {
    result.as_ref().is_err_and(|broken| broken.contains(TWICE))
}

#[tokio::test]
async fn no_history_of_failures_gives_a_number_twice() {
    let mut accepted = 0;
    for seed in 0..HISTORIES {
        accepted += play(seed, PartitionState::default(), rules(seed)).await.unwrap();
    }
    // Histories in which nothing is published would show nothing.
    assert!(accepted as u64 > HISTORIES * 5, "{accepted}");
}

#[tokio::test]
async fn without_the_fence_numbers_are_given_twice() {
    let mut broken = 0;
    for seed in 0..HISTORIES / 20 {
        let rules = Rules { is_fenced: false, ..rules(seed) };
        broken += u64::from(is_given_twice(&play(seed, PartitionState::default(), rules).await));
    }
    assert!(broken > HISTORIES / 100, "{broken}");
}

/// A database of a real Redis.
struct OnServer {
    redis: Arc<tokio::sync::Mutex<Connection>>,
    database: usize,
}

struct Connection {
    client: redis::aio::MultiplexedConnection,
    publish: redis::Script,
    seed: redis::Script,
    databases: usize,
}

const DATABASES_MAX: usize = 1_000;
const EPOCH_KEY: &str = "{0}ep";
const LOG_KEY: &str = "{0}log";

impl OnServer {
    async fn run_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut redis = self.redis.lock().await;
        let mut request = redis::pipe();
        request.cmd("SELECT").arg(self.database).ignore().cmd(words[0]).arg(&words[1..]);
        let (answer,): (T,) = request.query_async(&mut redis.client).await.unwrap();
        answer
    }

    async fn select(&self) -> tokio::sync::MutexGuard<'_, Connection> {
        let mut redis = self.redis.lock().await;
        let () = redis::cmd("SELECT").arg(self.database).query_async(&mut redis.client).await.unwrap();
        redis
    }
}

impl Data for OnServer {
    async fn publish(&mut self, run: &str, _: u64, publish: &Publish) -> Publication {
        let Publish { conversation, payload, seed, checked, .. } = publish;
        let mut redis = self.select().await;
        let Connection { client, publish: script, .. } = &mut *redis;
        let limits = Limits::default();
        let mut call = script.prepare_invoke();
        for key in [EPOCH_KEY.to_owned(), format!("{{0}}m:{conversation}"), format!("{{0}}d:{}", payload.id)]
        {
            call.key(key);
        }
        for key in [LOG_KEY.to_owned(), format!("{{0}}h:{conversation}"), format!("{{0}}c:{conversation}")] {
            call.key(key);
        }
        // The payload is only carried, so the message's id does for it.
        call.arg(run).arg(conversation.as_str()).arg(payload.id.to_string()).arg("1");
        call.arg(seed.map(|seed| seed.to_string()).unwrap_or_default()).arg(if *checked { "1" } else { "" });
        call.arg(limits.backlog_entries_max).arg(limits.hot_messages).arg(DEDUPE_MS).arg(DEDUPE_MS);
        let answer: String = call.invoke_async(client).await.unwrap();
        let words: Vec<&str> = answer.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "epoch" => Publication::NeedsEpoch,
            "seed" => Publication::NeedsSeed,
            "check" => Publication::NeedsCheck,
            "accepted" | "duplicate" => Publication::Accepted(Accepted {
                seq: Seq(number(1)),
                prev: Seq(number(2)),
                time: number(3),
                position: LogPosition {
                    epoch: Epoch(u32::try_from(number(4)).unwrap()),
                    entry: EntryId::parse(words[5]).unwrap(),
                },
                duplicate: words[0] == "duplicate",
            }),
            _ => panic!("{answer}"),
        }
    }

    async fn seed(&mut self, run: &str, epoch: Epoch, _: u64) -> bool {
        let mut redis = self.select().await;
        let Connection { client, seed, .. } = &mut *redis;
        seed.key(EPOCH_KEY).arg(epoch.0).arg(run).invoke_async(client).await.unwrap()
    }

    async fn run(&mut self) -> Option<String> {
        self.run_command(&["HGET", EPOCH_KEY, "run"]).await
    }

    async fn copy(&mut self) -> Self {
        let database = {
            let mut redis = self.redis.lock().await;
            redis.databases += 1;
            assert!(redis.databases < DATABASES_MAX);
            redis.databases
        };
        let keys: Vec<String> = self.run_command(&["KEYS", "*"]).await;
        for key in keys {
            let _: u32 = self.run_command(&["COPY", &key, &key, "DB", &database.to_string()]).await;
        }
        Self { redis: Arc::clone(&self.redis), database }
    }

    async fn lose(&mut self) {
        self.run_command::<()>(&["FLUSHDB"]).await;
    }

    async fn log(&mut self, limit: usize) -> Vec<(EntryId, String, Seq, MessageId)> {
        let entries: Vec<(String, Vec<String>)> =
            self.run_command(&["XRANGE", LOG_KEY, "-", "+", "COUNT", &limit.to_string()]).await;
        let read = |(id, fields): (String, Vec<String>)| {
            let field = |name| {
                let at = fields.iter().step_by(2).position(|field| field == name).unwrap();
                &fields[2 * at + 1]
            };
            let message = MessageId(field("r").parse().unwrap());
            (EntryId::parse(&id).unwrap(), field("c").clone(), Seq(field("s").parse().unwrap()), message)
        };
        entries.into_iter().map(read).collect()
    }

    async fn trim(&mut self, upto: EntryId) {
        let stays = EntryId { n: upto.n + 1, ..upto }.to_string();
        let _: u64 = self.run_command(&["XTRIM", LOG_KEY, "MINID", &stays]).await;
    }
}

async fn play_on_redis(histories: u64, is_fenced: bool) -> Vec<Result<usize, Broken>> {
    let environment =
        OnRedis::with_lines(Limits::default(), &[&format!("databases {DATABASES_MAX}"), "appendonly no"])
            .await;
    let connection = Connection {
        client: environment.raw().await,
        publish: redis::Script::new(include_str!("../src/broker/redis/publish.lua")),
        seed: redis::Script::new(include_str!("../src/broker/redis/seed.lua")),
        databases: 0,
    };
    let redis = Arc::new(tokio::sync::Mutex::new(connection));
    let mut results = Vec::new();
    for seed in 0..histories {
        redis.lock().await.databases = 0;
        let data = OnServer { redis: Arc::clone(&redis), database: 0 };
        let () = data.run_command(&["FLUSHALL"]).await;
        results.push(play(seed, data, Rules { is_fenced, ..rules(seed) }).await);
    }
    results
}

#[tokio::test]
async fn the_script_gives_no_number_twice_either() {
    let results = play_on_redis(HISTORIES_ON_REDIS, true).await;
    let accepted: usize = results.into_iter().map(Result::unwrap).sum();
    assert!(accepted as u64 > HISTORIES_ON_REDIS * 5, "{accepted}");
}

#[tokio::test]
async fn without_the_fence_the_script_gives_numbers_twice() {
    let results = play_on_redis(HISTORIES_ON_REDIS / 6, false).await;
    assert!(results.iter().any(is_given_twice));
}
