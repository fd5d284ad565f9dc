//! The loop: own partitions, read, commit, notify, trim.
//!
//! A session is one writer and one reader. A persister runs a few at once, each with partitions of its own: while one waits for
//! a commit, another reads. Whatever goes wrong ends the session: its locks are released with the
//! writer, the place in the log is forgotten with the reader, and a new session starts from the head of the log.
//! Nothing has to be undone, since what was committed and not trimmed is recognised when it is committed again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use shared::{
    broker::BrokerError,
    domain::{Message, Partition},
    log::{Log, LogEntry, LogReader},
    publisher::{PublishError, Publisher},
    record::Payload,
    store::{Committed, Store, StoreError, WRITER_BEAT_SECONDS, Writer},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    assignment,
    backoff::Backoff,
    batch::{self, Batch, Bisection},
    failpoint::{Failpoint, Point},
    metrics,
};

/// How often a session says that it is alive and looks whether it owns its share: twice as often as it must, since a
/// batch may be under way when it is due.
const BEAT_INTERVAL: Duration = Duration::from_millis(WRITER_BEAT_SECONDS * 1_000 / 2);
/// How long after the shutdown the persister stops in any case, in seconds.
pub const STOP_SECONDS_MAX: u64 = 30;
/// Entries in one transaction.
pub const BATCH_ENTRIES_DEFAULT: usize = 5_000;
/// How many batches one read brings at most, should every partition have filled up while the last ones were committed.
const READ_BATCHES_MAX: usize = 4;

/// What a persister does differently from others.
#[derive(Debug, Clone)]
pub struct PersisterConfig {
    /// Names this persister among others.
    pub name: String,
    /// Entries in one transaction, at most; at least 1.
    pub batch_entries: usize,
    /// Sessions with log and store, each with partitions of its own; at least 1.
    pub sessions: usize,
    /// At shutdown, go on until the log is empty. For a log that ends with this process.
    pub drain_on_stop: bool,
    /// Where to die, in a fault test.
    pub failpoint: Option<Failpoint>,
}

impl PersisterConfig {
    /// The defaults, under this name, with the one session that a store in a file can have.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            batch_entries: BATCH_ENTRIES_DEFAULT,
            sessions: 1,
            drain_on_stop: false,
            failpoint: None,
        }
    }
}

/// What a persister works with.
pub struct Parts {
    /// What it drains.
    pub log: Arc<dyn Log>,
    /// Where to.
    pub store: Arc<dyn Store>,
    /// Gives a new place to messages whose own is taken.
    pub publisher: Arc<Publisher>,
    /// The rest.
    pub config: PersisterConfig,
}

/// Drains the log into the store until `shutdown`, through all failures of both.
///
/// After `shutdown` it finishes the batch it is at, or with `drain_on_stop` goes on until the log is empty, and releases
/// what it owns; within [`STOP_SECONDS_MAX`] in any case. Returns whether it has seen every partition's log empty after
/// the shutdown, which only `drain_on_stop` can bring about.
pub async fn run(parts: Parts, shutdown: CancellationToken) -> bool {
    let log = Arc::clone(&parts.log);
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_secs(STOP_SECONDS_MAX)).await;
    };
    let is_drained = tokio::select! {
        is_drained = consume(parts, &shutdown) => is_drained,
        never = metrics::watch_backlog(log.as_ref()) => match never {},
        () = late => {
            tracing::error!("stopped before everything was done: the rest stays in the log");
            false
        }
    };
    is_drained
}

/// Runs all sessions, and returns whether together they have seen every partition's log empty.
async fn consume(parts: Parts, shutdown: &CancellationToken) -> bool {
    let parts = Arc::new(parts);
    let mut consumers = JoinSet::new();
    for session in 0..parts.config.sessions.max(1) {
        let consumer = Consumer {
            name: format!("{}-{session}", parts.config.name),
            failpoint: parts.config.failpoint,
            parts: Arc::clone(&parts),
            shutdown: shutdown.clone(),
            trouble: None,
        };
        consumers.spawn(consumer.run());
    }
    let mut drained = BTreeSet::new();
    while let Some(ended) = consumers.join_next().await {
        match ended {
            Ok(mut partitions) => drained.append(&mut partitions),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    drained.len() == usize::from(parts.log.partitions())
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] BrokerError),
    #[error("cannot give a message a new place: {0}")]
    Publish(#[from] PublishError),
}

struct Consumer {
    name: String,
    parts: Arc<Parts>,
    shutdown: CancellationToken,
    failpoint: Option<Failpoint>,
    /// The kind of trouble that was last reported, while it lasts.
    trouble: Option<&'static str>,
}

struct Session {
    writer: Box<dyn Writer>,
    reader: Box<dyn LogReader>,
    owned: BTreeSet<Partition>,
    told: metrics::Owned,
    beat_due: Instant,
    /// Partitions that the last read found entries in; decides how many entries of each the next one asks for.
    active: usize,
}

impl Consumer {
    /// Works until the shutdown; returns the partitions whose log was empty then.
    async fn run(mut self) -> BTreeSet<Partition> {
        let mut backoff = Backoff::default();
        loop {
            let trouble = match self.session(&mut backoff).await {
                Ok(drained) => return drained,
                Err(trouble) => trouble,
            };
            self.report(&trouble);
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.shutdown.cancelled(), if !self.parts.config.drain_on_stop => return BTreeSet::new(),
            }
        }
    }

    async fn session(&mut self, backoff: &mut Backoff) -> Result<BTreeSet<Partition>, Trouble> {
        let mut session = tokio::select! {
            session = self.open() => session?,
            () = self.shutdown.cancelled(), if !self.parts.config.drain_on_stop => return Ok(BTreeSet::new()),
        };
        loop {
            if session.beat_due <= Instant::now() {
                self.rebalance(&mut session).await?;
            }
            let is_stopping = self.shutdown.is_cancelled();
            if is_stopping && !self.parts.config.drain_on_stop {
                session.release().await;
                return Ok(BTreeSet::new());
            }
            let wait = if is_stopping { Duration::ZERO } else { session.beat_due - Instant::now() };
            let limit = session.limit(self.parts.config.batch_entries);
            let read = tokio::select! {
                read = session.reader.read(limit, wait) => read?,
                () = self.shutdown.cancelled(), if !is_stopping => continue,
            };
            if is_stopping && read.is_empty() {
                return Ok(session.release().await);
            }
            session.active = if read.is_empty() { session.owned.len() } else { read.len() };
            for batch in batch::cut(read, self.parts.config.batch_entries.max(1)) {
                self.settle(&mut session, &batch).await?;
            }
            backoff.reset();
            self.recovered();
        }
    }

    async fn open(&self) -> Result<Session, Trouble> {
        let writer = self.parts.store.writer(&self.name).await?;
        let reader = self.parts.log.reader().await?;
        let (owned, told) = (BTreeSet::new(), metrics::Owned::default());
        Ok(Session { writer, reader, owned, told, beat_due: Instant::now(), active: 0 })
    }

    /// Says that the session is alive, gives up what is more than its share, and takes what is free up to it.
    async fn rebalance(&self, session: &mut Session) -> Result<(), Trouble> {
        let partitions = self.parts.log.partitions();
        let writers = session.writer.beat().await?;
        session.beat_due = Instant::now() + BEAT_INTERVAL;
        let share = assignment::fair_share(partitions, writers);
        let before = session.owned.clone();
        let excess = assignment::excess(&session.owned, share);
        session.owned.retain(|partition| !excess.contains(partition));
        if !excess.is_empty() {
            // Not read any more before somebody else may own it.
            session.assign();
        }
        for partition in excess {
            session.writer.unlock(partition).await?;
        }
        if session.owned.len() < share {
            let start = rand::random_range(0..partitions);
            for partition in assignment::candidates(partitions, &session.owned, start) {
                if session.owned.len() < share && session.writer.lock(partition).await? {
                    session.owned.insert(partition);
                }
            }
        }
        if session.owned != before {
            session.assign();
            tracing::info!(
                session = self.name,
                writers,
                share,
                owned = session.owned.len(),
                "owns other partitions now"
            );
        }
        session.told.set(session.owned.len());
        Ok(())
    }

    /// Stores a batch and everything that follows from it, up to its trim.
    async fn settle(&mut self, session: &mut Session, batch: &Batch) -> Result<(), Trouble> {
        let started = Instant::now();
        self.pass(Point::AfterRead, batch);
        let committed = self.commit(session, batch).await?;
        self.pass(Point::AfterCommit, batch);
        // Only now, so that a store that is down for long does not fill the dead letters with copies.
        for (partition, entry) in &batch.unreadable {
            let reason = entry.content.as_ref().err().map(ToString::to_string).unwrap_or_default();
            self.put_aside(*partition, entry, &reason).await?;
        }
        for message in &committed.collided {
            self.publish_again(batch, message).await?;
        }
        metrics::voided(committed.voided.len());
        self.parts.log.notify_stored(&batch.cursors).await?;
        self.pass(Point::AfterNotify, batch);
        // A log that was changed has told its reader to start over; what is committed here was once in it.
        session.reader.trim(&batch.cursors).await?;
        self.pass(Point::AfterTrim, batch);
        metrics::batch(committed.inserted, started.elapsed(), batch.oldest_ms());
        Ok(())
    }

    /// Commits the batch; when the store refuses it, all of it but the messages at fault, and voids their places.
    async fn commit(&self, session: &mut Session, batch: &Batch) -> Result<Committed, Trouble> {
        let mut refusal = match session.writer.commit(&batch.messages, &batch.cursors).await {
            Err(StoreError::Rejected(reason)) if !batch.messages.is_empty() => reason,
            result => return Ok(result?),
        };
        let mut all = Committed::default();
        let mut bisection = Bisection::default();
        let mut refused = 0..batch.messages.len();
        loop {
            if let Some(index) = bisection.refused(refused) {
                self.give_up(session, batch, index, &refusal).await?;
            }
            refused = loop {
                let Some(range) = bisection.next() else {
                    session.writer.commit(&[], &batch.cursors).await?;
                    return Ok(all);
                };
                match session.writer.commit(&batch.messages[range.clone()], &[]).await {
                    Ok(committed) => add(&mut all, committed),
                    Err(StoreError::Rejected(reason)) => {
                        refusal = reason;
                        break range;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
        }
    }

    /// Puts the message that can never be stored aside, and fills its place.
    async fn give_up(
        &self,
        session: &mut Session,
        batch: &Batch,
        index: usize,
        reason: &str,
    ) -> Result<(), Trouble> {
        let (partition, entry) = batch.entry(index);
        self.put_aside(partition, &entry, reason).await?;
        match session.writer.void(&batch.messages[index]).await {
            Ok(()) => metrics::voided(1),
            // The place itself is what cannot be stored. To try for ever would keep everything behind it from being stored.
            Err(StoreError::Rejected(reason)) => tracing::error!(reason, "its place stays empty"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A kill after this puts the entry aside again: better twice than not at all.
    async fn put_aside(&self, partition: Partition, entry: &LogEntry, reason: &str) -> Result<(), Trouble> {
        let message = entry.content.as_ref().ok();
        tracing::error!(
            partition = partition.0,
            entry = %entry.position.entry,
            conversation = message.map(|message| message.conversation.as_str()),
            seq = message.map(|message| message.seq.0),
            reason,
            "a log entry goes to the dead letters"
        );
        self.parts.log.dead_letter(partition, entry, reason).await?;
        metrics::dead_letter();
        Ok(())
    }

    /// Publishes a message whose seq belongs to another once more, before its entry is trimmed.
    ///
    /// It keeps its id, which its sender was told, by which a retry is recognised long after, and by which a second copy
    /// is when a kill comes between here and the trim. It goes without its client id, since by that the broker would
    /// recognise it now, and answer with the very seq that is taken.
    async fn publish_again(&self, batch: &Batch, message: &Message) -> Result<(), Trouble> {
        let Message { id, conversation, seq, .. } = message;
        metrics::collision();
        tracing::error!(%conversation, %seq, %id, "a seq was given twice: publishing the second message again");
        let payload = Payload { client_id: None, ..Payload::from(message) };
        match self.parts.publisher.publish(conversation, payload, false).await {
            Ok(_) => Ok(()),
            // Waiting for room would be waiting for this very batch.
            Err(PublishError::BacklogFull) => {
                let index = batch.messages.iter().position(|other| other == message);
                let (partition, entry) = batch.entry(index.expect("what collided was in the batch"));
                self.put_aside(partition, &entry, "its seq is taken, and the log is full").await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn pass(&mut self, point: Point, batch: &Batch) {
        if let (Some(failpoint), false) = (&mut self.failpoint, batch.messages.is_empty()) {
            failpoint.pass(point);
        }
    }

    /// Says what is wrong when it starts to be, and not again while it lasts.
    fn report(&mut self, trouble: &Trouble) {
        let kind = match trouble {
            Trouble::Store(_) => {
                metrics::store_error();
                "store"
            }
            Trouble::Log(_) | Trouble::Publish(_) => {
                metrics::log_error();
                "log"
            }
        };
        if self.trouble.replace(kind) != Some(kind) {
            tracing::warn!("cannot persist, and tries again until it can: {trouble}");
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("persists again");
        }
    }
}

impl Session {
    /// How many entries of each partition to read: together about one batch from those that had entries lately, and a
    /// few batches at most should all of them have some.
    fn limit(&self, batch_entries: usize) -> usize {
        let likely = batch_entries / self.active.max(1);
        let bounded = batch_entries.saturating_mul(READ_BATCHES_MAX) / self.owned.len().max(1);
        likely.min(bounded).max(1)
    }

    fn assign(&mut self) {
        let owned: Vec<Partition> = self.owned.iter().copied().collect();
        self.reader.assign(&owned);
        self.active = owned.len();
    }

    /// Gives everything up at once, so that others need not wait until the store has missed this session. Returns what it was.
    async fn release(mut self) -> BTreeSet<Partition> {
        self.reader.assign(&[]);
        for &partition in &self.owned {
            if self.writer.unlock(partition).await.is_err() {
                // The session is lost, and every lock with it.
                break;
            }
        }
        self.owned
    }
}

fn add(all: &mut Committed, part: Committed) {
    all.inserted += part.inserted;
    all.replayed += part.replayed;
    all.voided.extend(part.voided);
    all.collided.extend(part.collided);
}
