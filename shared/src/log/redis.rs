//! The log of cluster mode: one Redis stream for each partition.
//!
//! On a single server one blocking `XREAD` waits for all of them. In a Redis Cluster one command reads streams of one slot
//! only, so every server is asked for each of its streams at once, without blocking, and again after a pause that is short
//! while there is something to read. A server that is away does not keep the others' partitions from being read.
//!
//! What is trimmed is gone, so a trim must never meet entries that were not read. The ids of a stream come from the
//! server's clock and start over where the data is lost, so they alone do not tell one log from the next; the
//! partition's epoch does, since a log that has lost anything is not appended to before a new epoch was set. A reader
//! therefore learns a partition's epoch (the stamp) before it reads the first entry, `trim.lua` compares it, and
//! every [`STAMP_INTERVAL`] the reader looks again, lest it wait for ids that a clock set back will not reach for long.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{
    ErrorKind, FromRedisValue, Pipeline, RedisResult, Script, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::time::Instant;

use super::{Backlog, DEAD_LETTERS_MAX, Log, LogBatch, LogEntry, LogReader, Trimmed, UnreadableEntry};
use crate::{
    broker::{
        BrokerError, EntryId, LogPosition,
        redis::{
            RedisConfig,
            keys::Keys,
            line::notice,
            route::{Pool, Private, Router},
        },
    },
    domain::{ConversationId, Epoch, Message, Partition, Seq},
    record::{Payload, decode_payload, encode_payload},
};

/// How often a reader makes sure that the logs are still those that it reads.
const STAMP_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses of a reader of a Redis Cluster between two looks that bring nothing; each is twice the one before.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(32);

/// The log over one Redis server, or a Redis Cluster.
pub struct RedisLog {
    config: RedisConfig,
    keys: Arc<Keys>,
    pool: Pool,
}

impl RedisLog {
    /// Prepares the connections; each is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(config: RedisConfig) -> Result<Self, BrokerError> {
        let pool = config.pool()?;
        Ok(Self { keys: Arc::new(Keys::new(config.partitions)), config, pool })
    }
}

#[async_trait]
impl Log for RedisLog {
    fn partitions(&self) -> u16 {
        self.config.partitions
    }

    async fn reader(&self) -> Result<Box<dyn LogReader>, BrokerError> {
        let router = Router::new(&self.config)?;
        let is_cluster = router.routes().await?.is_cluster();
        Ok(Box::new(RedisReader {
            router,
            is_cluster,
            response_timeout: self.config.response_timeout,
            keys: Arc::clone(&self.keys),
            trim: Script::new(include_str!("trim.lua")),
            places: BTreeMap::new(),
            looked: None,
            pause: LOOK_PAUSE_MIN,
        }))
    }

    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError> {
        let told = self.pool.spread(
            notices,
            |&(partition, _)| self.keys.slot(partition),
            |mut held, notices| async move {
                let mut request = redis::pipe();
                for &(partition, position) in notices {
                    request.cmd("SPUBLISH").arg(self.keys.stored(partition)).arg(notice(position));
                }
                request.query_async::<Vec<u64>>(&mut held).await
            },
        );
        told.await.all().map(drop)
    }

    async fn dead_letter(
        &self,
        partition: Partition,
        entry: &LogEntry,
        reason: &str,
    ) -> Result<(), BrokerError> {
        let mut command = redis::cmd("XADD");
        command.arg(self.keys.dead_letters(partition)).arg("MAXLEN").arg("~").arg(DEAD_LETTERS_MAX).arg("*");
        command.arg("reason").arg(reason).arg("entry").arg(entry.position.entry.to_string());
        match &entry.content {
            Ok(message) => {
                for (name, value) in fields(message, entry.position.epoch) {
                    command.arg(name).arg(value);
                }
            }
            Err(unreadable) => {
                for (name, value) in &unreadable.fields {
                    command.arg(name).arg(&value[..]);
                }
            }
        }
        let slot = self.keys.slot(partition);
        let command = &command;
        let _: String =
            self.pool.run(slot, |mut held| async move { command.query_async(&mut held).await }).await?;
        Ok(())
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError> {
        let partitions: Vec<Partition> = Partition::all(self.config.partitions).collect();
        let asked = self.pool.spread(
            &partitions,
            |&partition| self.keys.slot(partition),
            |mut held, partitions| async move {
                let mut request = redis::pipe();
                for &partition in partitions {
                    let log = self.keys.log(partition);
                    request.cmd("XLEN").arg(&log);
                    request.cmd("XRANGE").arg(&log).arg("-").arg("+").arg("COUNT").arg(1);
                }
                let answers: Vec<Value> = request.query_async(&mut held).await?;
                Ok(answers.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
            },
        );
        let backlogs = partitions.iter().zip(asked.await.some()?);
        Ok(backlogs
            .filter_map(|(&partition, answer)| {
                let (entries, oldest) = answer?;
                let entries = redis::from_redis_value_ref(&entries).unwrap_or(0);
                let oldest: Vec<(String, Value)> = redis::from_redis_value_ref(&oldest).unwrap_or_default();
                let oldest_ms = oldest.first().and_then(|(id, _)| Some(EntryId::parse(id)?.ms));
                Some(Backlog { partition, entries, oldest_ms })
            })
            .collect())
    }
}

/// The fields of an entry, as `publish.lua` writes them.
fn fields(message: &Message, epoch: Epoch) -> [(&'static str, Vec<u8>); 6] {
    let payload = encode_payload(&Payload::from(message));
    [
        ("c", message.conversation.as_str().into()),
        ("s", message.seq.to_string().into()),
        ("p", message.prev.to_string().into()),
        ("t", message.time.to_string().into()),
        ("e", epoch.0.to_string().into()),
        ("r", payload.into()),
    ]
}

/// Where the reader is in one partition.
#[derive(Debug, Default)]
struct Place {
    stamp: Option<Epoch>,
    last: EntryId,
    /// Has entries and no epoch: not read until it has one.
    is_blind: bool,
}

struct RedisReader {
    /// A blocking read keeps its connections busy, so nobody else uses them.
    router: Router<Private>,
    is_cluster: bool,
    response_timeout: Duration,
    keys: Arc<Keys>,
    trim: Script,
    places: BTreeMap<Partition, Place>,
    /// When the stamps were last compared; `None` when there is something that was not looked at.
    looked: Option<Instant>,
    /// The next pause, in a Redis Cluster.
    pause: Duration,
}

/// What one `XREAD` returns: the entries by key, as they came. A large part of a persister's own time would go into another
/// copy of each field.
type Streams = Vec<(Value, Vec<Value>)>;

impl RedisReader {
    /// Sends one command for each partition; what is `None` was not answered.
    async fn ask_each<T: FromRedisValue + Send>(
        &self,
        partitions: &[Partition],
        command: impl Fn(&mut Pipeline, Partition),
    ) -> Result<Vec<Option<T>>, BrokerError> {
        let command = &command;
        let asked = self.router.spread(
            partitions,
            |&partition| self.keys.slot(partition),
            |mut held, partitions| async move {
                let mut request = redis::pipe();
                request.ignore_errors();
                for &partition in partitions {
                    command(&mut request, partition);
                }
                request.query_async::<Vec<RedisResult<T>>>(&mut held).await
            },
        );
        let answers = asked.await.some()?;
        let has_moved = |answer: &Option<RedisResult<T>>| {
            let error = answer.as_ref().and_then(|answer| answer.as_ref().err());
            error.is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::Moved))
        };
        if answers.iter().any(has_moved) {
            self.router.refresh(&self.router.routes().await?).await;
        }
        Ok(answers.into_iter().map(|answer| answer?.ok()).collect())
    }

    /// Compares the stamps of all partitions, and forgets the places in those that have changed.
    async fn look(&mut self) -> Result<(), BrokerError> {
        self.looked = Some(Instant::now());
        let partitions: Vec<Partition> = self.places.keys().copied().collect();
        let get = |request: &mut Pipeline, partition| {
            request.cmd("HGET").arg(self.keys.epoch(partition)).arg("e");
        };
        let stamps = self.ask_each::<Option<u32>>(&partitions, get).await?;
        for (place, stamp) in self.places.values_mut().zip(stamps) {
            // What could not be asked for is as it was.
            let Some(stamp) = stamp.map(|stamp| stamp.map(Epoch)) else { continue };
            if place.stamp != stamp {
                *place = Place { stamp, ..Place::default() };
            }
        }
        Ok(())
    }

    async fn read_once(&mut self, limit: usize, wait: Duration) -> Result<Streams, BrokerError> {
        let seen: Vec<Partition> = self
            .places
            .iter()
            .filter(|(_, place)| !place.is_blind)
            .map(|(&partition, _)| partition)
            .collect();
        let Some(&first) = seen.first() else {
            tokio::time::sleep(wait).await;
            return Ok(Streams::new());
        };
        if self.is_cluster {
            return self.read_each(&seen, limit, wait).await;
        }
        let mut command = redis::cmd("XREAD");
        // Zero would mean for ever.
        let block = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg("COUNT").arg(limit).arg("BLOCK").arg(block).arg("STREAMS");
        let logs: Vec<String> = seen.iter().map(|&partition| self.keys.log(partition)).collect();
        let last: Vec<String> =
            seen.iter().map(|partition| self.places[partition].last.to_string()).collect();
        command.arg(logs).arg(last);
        let (command, timeout) = (&command, wait + self.response_timeout);
        let read = |mut held: MultiplexedConnection| async move {
            held.set_response_timeout(timeout);
            // `query_async` would look for an error in each field of each entry.
            match held.req_packed_command(command).await? {
                Value::ServerError(error) => Err(error.into()),
                answer => Ok(answer),
            }
        };
        Ok(streams(self.router.run(self.keys.slot(first), read).await?))
    }

    /// Reads what is there. If that is nothing, waits for a while, no longer than `wait`.
    async fn read_each(
        &mut self,
        partitions: &[Partition],
        limit: usize,
        wait: Duration,
    ) -> Result<Streams, BrokerError> {
        let read = |request: &mut Pipeline, partition| {
            let last = self.places[&partition].last.to_string();
            request
                .cmd("XREAD")
                .arg("COUNT")
                .arg(limit)
                .arg("STREAMS")
                .arg(self.keys.log(partition))
                .arg(last);
        };
        let answers = self.ask_each::<Value>(partitions, read).await?;
        let streams: Streams = answers.into_iter().flatten().flat_map(streams).collect();
        if streams.is_empty() {
            tokio::time::sleep(self.pause.min(wait)).await;
            self.pause = (self.pause * 2).min(LOOK_PAUSE_MAX);
        } else {
            self.pause = LOOK_PAUSE_MIN;
        }
        Ok(streams)
    }

    async fn try_read(&mut self, limit: usize, wait: Duration) -> Result<Vec<LogBatch>, BrokerError> {
        let deadline = Instant::now() + wait;
        loop {
            if self.looked.is_none_or(|looked| looked.elapsed() >= STAMP_INTERVAL) {
                self.look().await?;
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            let streams = self.read_once(limit, remaining.min(STAMP_INTERVAL)).await?;
            let batches = self.batches(streams);
            if !batches.is_empty() || remaining.is_zero() {
                return Ok(batches);
            }
        }
    }

    fn batches(&mut self, streams: Streams) -> Vec<LogBatch> {
        let mut by_key: HashMap<Vec<u8>, (Partition, &mut Place)> = self
            .places
            .iter_mut()
            .map(|(&partition, place)| (self.keys.log(partition).into_bytes(), (partition, place)))
            .collect();
        let mut batches = Vec::new();
        for (key, entries) in streams {
            let Some((partition, place)) = by_key.remove(&bytes(key)[..]) else { continue };
            let Some(stamp) = place.stamp else {
                // Opened since the last look: its entries stay where they are until the stamp is known.
                place.is_blind = true;
                self.looked = None;
                continue;
            };
            let entries: Vec<LogEntry> = entries.into_iter().map(|entry| parse_entry(stamp, entry)).collect();
            if let Some(newest) = entries.last() {
                place.last = newest.position.entry;
                batches.push(LogBatch { partition, entries });
            }
        }
        batches
    }

    /// Trims each log that still has its stamp, by one request to each server.
    async fn try_trim(&self, upto: &[(Partition, Epoch, EntryId)]) -> Result<Vec<bool>, BrokerError> {
        let trimmed = self.router.spread(
            upto,
            |&(partition, ..)| self.keys.slot(partition),
            |mut held, upto| async move {
                let mut request = redis::pipe();
                for &&(partition, stamp, last) in &upto {
                    let stays = EntryId { ms: last.ms, n: last.n + 1 };
                    request.cmd("EVALSHA").arg(self.trim.get_hash()).arg(2);
                    request.arg(self.keys.epoch(partition)).arg(self.keys.log(partition));
                    request.arg(stamp.0).arg(stays.to_string());
                }
                match request.query_async(&mut held).await {
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                        self.trim.load_async(&mut held).await?;
                        request.query_async(&mut held).await
                    }
                    trimmed => trimmed,
                }
            },
        );
        trimmed.await.all()
    }
}

#[async_trait]
impl LogReader for RedisReader {
    fn assign(&mut self, partitions: &[Partition]) {
        self.places.retain(|partition, _| partitions.contains(partition));
        for &partition in partitions {
            self.places.entry(partition).or_insert_with(|| {
                self.looked = None;
                Place::default()
            });
        }
    }

    async fn read(&mut self, limit: usize, wait: Duration) -> Result<Vec<LogBatch>, BrokerError> {
        let result = self.try_read(limit, wait).await;
        if result.is_err() {
            self.rewind();
        }
        result
    }

    fn rewind(&mut self) {
        self.places.values_mut().for_each(|place| *place = Place::default());
        self.looked = None;
    }

    async fn trim(&mut self, upto: &[(Partition, LogPosition)]) -> Result<Vec<Trimmed>, BrokerError> {
        let stamped: Vec<(Partition, Epoch, EntryId)> = upto
            .iter()
            .filter_map(|&(partition, upto)| {
                Some((partition, self.places.get(&partition)?.stamp?, upto.entry))
            })
            .collect();
        let trimmed = match self.try_trim(&stamped).await {
            Ok(trimmed) => trimmed,
            Err(error) => {
                self.rewind();
                return Err(error);
            }
        };
        let mut done = BTreeSet::new();
        for (&(partition, ..), is_done) in stamped.iter().zip(trimmed) {
            if is_done {
                done.insert(partition);
            } else {
                self.places.insert(partition, Place::default());
                self.looked = None;
            }
        }
        let became = |(partition, _): &(Partition, LogPosition)| {
            if done.contains(partition) { Trimmed::Done } else { Trimmed::Changed }
        };
        Ok(upto.iter().map(became).collect())
    }
}

/// Takes the answer to an `XREAD` apart; without entries it is nothing at all.
fn streams(answer: Value) -> Streams {
    let Value::Map(streams) = answer else { return Streams::new() };
    streams.into_iter().map(|(key, entries)| (key, array(entries))).collect()
}

fn array(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value { values } else { Vec::new() }
}

/// The bytes of a text, without a copy.
fn bytes(value: Value) -> Bytes {
    if let Value::BulkString(bytes) = value { bytes.into() } else { Bytes::new() }
}

/// Reads one entry. Whatever does not look as `publish.lua` writes it is kept as it stands.
fn parse_entry(stamp: Epoch, entry: Value) -> LogEntry {
    let mut parts = array(entry).into_iter();
    let id = parts.next().map(bytes).unwrap_or_default();
    let entry = std::str::from_utf8(&id).ok().and_then(EntryId::parse).unwrap_or_default();
    let fields: Vec<Bytes> =
        parts.next().map(|fields| array(fields).into_iter().map(bytes).collect()).unwrap_or_default();
    match parse_message(&fields) {
        Ok((epoch, message)) => LogEntry { position: LogPosition { epoch, entry }, content: Ok(message) },
        Err(reason) => {
            let named = |pair: &[Bytes]| (String::from_utf8_lossy(&pair[0]).into_owned(), pair[1].clone());
            let fields = fields.chunks_exact(2).map(named).collect();
            let position = LogPosition { epoch: stamp, entry };
            LogEntry { position, content: Err(UnreadableEntry { reason, fields }) }
        }
    }
}

fn parse_message(fields: &[Bytes]) -> Result<(Epoch, Message), String> {
    let bytes = |name: &str| {
        let field = fields.chunks_exact(2).find(|pair| &pair[0][..] == name.as_bytes());
        field.map(|pair| &pair[1]).ok_or_else(|| format!("no field {name}"))
    };
    let text = |name| std::str::from_utf8(bytes(name)?).map_err(|_| format!("field {name} is no text"));
    let number = |name| text(name)?.parse::<u64>().map_err(|_| format!("field {name} is no number"));
    let conversation = ConversationId::parse(text("c")?).map_err(|error| error.to_string())?;
    let epoch = u32::try_from(number("e")?).map_err(|_| "field e is no epoch".to_owned())?;
    let payload = decode_payload(bytes("r")?).map_err(|error| error.to_string())?;
    Ok((Epoch(epoch), payload.at(conversation, Seq(number("s")?), Seq(number("p")?), number("t")?)))
}
