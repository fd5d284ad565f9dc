//! The log of cluster mode: one Redis stream for each partition.
//!
//! What is trimmed is gone, so a trim must never meet entries that were not read. The ids of a stream come from the
//! server's clock and start over where the data is lost, so they alone do not tell one log from the next; the
//! partition's epoch does, since a log that has lost anything is not appended to before a new epoch was set. A reader
//! therefore learns a partition's epoch (the stamp) before it reads the first entry, `trim.lua` compares it, and
//! every [`STAMP_INTERVAL`] the reader looks again, lest it wait for ids that a clock set back will not reach for long.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{RedisResult, Script, Value, aio::MultiplexedConnection};
use tokio::time::Instant;

use super::{Backlog, DEAD_LETTERS_MAX, Log, LogBatch, LogEntry, LogReader, Trimmed, UnreadableEntry};
use crate::{
    broker::{
        BrokerError, EntryId, LogPosition,
        redis::{RedisConfig, connection, keys::Keys, subscriber::notice},
    },
    domain::{ConversationId, Epoch, Message, Partition, Seq},
    record::{Payload, decode_payload, encode_payload},
};

/// How often a reader makes sure that the logs are still those that it reads.
const STAMP_INTERVAL: Duration = Duration::from_secs(1);

/// The log over one Redis server.
pub struct RedisLog {
    config: RedisConfig,
    keys: Arc<Keys>,
    pool: deadpool_redis::Pool,
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
        let mut reader = RedisReader {
            client: connection::client(&self.config.url)?,
            response_timeout: self.config.response_timeout,
            keys: Arc::clone(&self.keys),
            trim: Script::new(include_str!("trim.lua")),
            connection: None,
            places: BTreeMap::new(),
            looked: None,
        };
        reader.connect().await?;
        Ok(Box::new(reader))
    }

    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError> {
        let mut request = redis::pipe();
        for &(partition, position) in notices {
            request.cmd("SPUBLISH").arg(self.keys.stored(partition)).arg(notice(position)).ignore();
        }
        if !notices.is_empty() {
            let () = request.query_async(&mut self.pool.get().await?).await?;
        }
        Ok(())
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
        let _: String = command.query_async(&mut self.pool.get().await?).await?;
        Ok(())
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError> {
        let mut request = redis::pipe();
        for partition in Partition::all(self.config.partitions) {
            let log = self.keys.log(partition);
            request.cmd("XLEN").arg(&log);
            request.cmd("XRANGE").arg(&log).arg("-").arg("+").arg("COUNT").arg(1);
        }
        let answers: Vec<Value> = request.query_async(&mut self.pool.get().await?).await?;
        let backlogs = Partition::all(self.config.partitions).zip(answers.chunks_exact(2));
        Ok(backlogs
            .map(|(partition, answers)| {
                let entries = redis::from_redis_value_ref(&answers[0]).unwrap_or(0);
                let oldest: Vec<(String, Value)> =
                    redis::from_redis_value_ref(&answers[1]).unwrap_or_default();
                let oldest_ms = oldest.first().and_then(|(id, _)| Some(EntryId::parse(id)?.ms));
                Backlog { partition, entries, oldest_ms }
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
    client: redis::Client,
    response_timeout: Duration,
    keys: Arc<Keys>,
    trim: Script,
    /// A blocking read keeps it busy, so nobody else uses it.
    connection: Option<MultiplexedConnection>,
    places: BTreeMap<Partition, Place>,
    /// When the stamps were last compared; `None` when there is something that was not looked at.
    looked: Option<Instant>,
}

/// What one `XREAD` returns: the entries by key.
type Streams = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;

impl RedisReader {
    async fn connect(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let settings = connection::timeouts(self.response_timeout);
        let connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Gives the connection up after an error: an answer to the failed request may still be under way on it.
    fn forget(&mut self) {
        self.connection = None;
        self.rewind();
    }

    /// Compares the stamps of all partitions, and forgets the places in those that have changed.
    async fn look(&mut self) -> RedisResult<()> {
        let mut connection = self.connect().await?;
        self.looked = Some(Instant::now());
        if self.places.is_empty() {
            return Ok(());
        }
        let mut request = redis::pipe();
        for &partition in self.places.keys() {
            request.cmd("HGET").arg(self.keys.epoch(partition)).arg("e");
        }
        let stamps: Vec<Option<u32>> = request.query_async(&mut connection).await?;
        for (place, stamp) in self.places.values_mut().zip(stamps) {
            let stamp = stamp.map(Epoch);
            if place.stamp != stamp {
                *place = Place { stamp, ..Place::default() };
            }
        }
        Ok(())
    }

    async fn read_once(&mut self, limit: usize, wait: Duration) -> RedisResult<Streams> {
        let seen = || self.places.iter().filter(|(_, place)| !place.is_blind);
        let mut keys: Vec<String> = seen().map(|(&partition, _)| self.keys.log(partition)).collect();
        if keys.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Streams::new());
        }
        keys.extend(seen().map(|(_, place)| place.last.to_string()));
        let mut connection = self.connect().await?;
        connection.set_response_timeout(wait + self.response_timeout);
        let mut command = redis::cmd("XREAD");
        // Zero would mean for ever.
        let block = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg("COUNT").arg(limit).arg("BLOCK").arg(block).arg("STREAMS").arg(keys);
        let answer: Option<Streams> = command.query_async(&mut connection).await?;
        Ok(answer.unwrap_or_default())
    }

    async fn try_read(&mut self, limit: usize, wait: Duration) -> RedisResult<Vec<LogBatch>> {
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
        let mut by_key: HashMap<String, (Partition, &mut Place)> = self
            .places
            .iter_mut()
            .map(|(&partition, place)| (self.keys.log(partition), (partition, place)))
            .collect();
        let mut batches = Vec::new();
        for (key, entries) in streams {
            let Some((partition, place)) = by_key.remove(&key) else { continue };
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

    async fn try_trim(&mut self, partition: Partition, stamp: Epoch, upto: EntryId) -> RedisResult<bool> {
        let mut connection = self.connect().await?;
        let stays = EntryId { ms: upto.ms, n: upto.n + 1 };
        let mut call = self.trim.prepare_invoke();
        call.key(self.keys.epoch(partition))
            .key(self.keys.log(partition))
            .arg(stamp.0)
            .arg(stays.to_string());
        call.invoke_async(&mut connection).await
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
            self.forget();
        }
        Ok(result?)
    }

    fn rewind(&mut self) {
        self.places.values_mut().for_each(|place| *place = Place::default());
        self.looked = None;
    }

    async fn trim(&mut self, partition: Partition, upto: LogPosition) -> Result<Trimmed, BrokerError> {
        let Some(stamp) = self.places.get(&partition).and_then(|place| place.stamp) else {
            return Ok(Trimmed::Changed);
        };
        match self.try_trim(partition, stamp, upto.entry).await {
            Ok(true) => Ok(Trimmed::Done),
            Ok(false) => {
                self.places.insert(partition, Place::default());
                self.looked = None;
                Ok(Trimmed::Changed)
            }
            Err(error) => {
                self.forget();
                Err(error.into())
            }
        }
    }
}

/// Reads one entry. Whatever does not look as `publish.lua` writes it is kept as it stands.
fn parse_entry(stamp: Epoch, (id, fields): (String, Vec<Vec<u8>>)) -> LogEntry {
    let entry = EntryId::parse(&id).unwrap_or_default();
    let fields: Vec<(String, Bytes)> = fields
        .chunks_exact(2)
        .map(|pair| (String::from_utf8_lossy(&pair[0]).into_owned(), Bytes::copy_from_slice(&pair[1])))
        .collect();
    match parse_message(&fields) {
        Ok((epoch, message)) => LogEntry { position: LogPosition { epoch, entry }, content: Ok(message) },
        Err(reason) => LogEntry {
            position: LogPosition { epoch: stamp, entry },
            content: Err(UnreadableEntry { reason, fields }),
        },
    }
}

fn parse_message(fields: &[(String, Bytes)]) -> Result<(Epoch, Message), String> {
    let bytes = |name: &str| {
        let field = fields.iter().find(|(present, _)| present == name);
        field.map(|(_, value)| value).ok_or_else(|| format!("no field {name}"))
    };
    let text = |name| std::str::from_utf8(bytes(name)?).map_err(|_| format!("field {name} is no text"));
    let number = |name| text(name)?.parse::<u64>().map_err(|_| format!("field {name} is no number"));
    let conversation = ConversationId::parse(text("c")?).map_err(|error| error.to_string())?;
    let epoch = u32::try_from(number("e")?).map_err(|_| "field e is no epoch".to_owned())?;
    let payload = decode_payload(bytes("r")?).map_err(|error| error.to_string())?;
    Ok((Epoch(epoch), payload.at(conversation, Seq(number("s")?), Seq(number("p")?), number("t")?)))
}
