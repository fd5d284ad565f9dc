//! Clients that go on through failures as a good application would: a reader that resumes and a writer that retries.
//!
//! Both go round a list of nodes, so that the death of one sends them to the next.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    check::{Ack, ReaderRecord, Refused, WriterRecord},
    client::{Client, ClientError, Push, Pushes},
    token::TokenSource,
    wire::{Entry, Position, Sent, Subscribed},
};

/// Longest wait for one answer, in seconds: after it another node is tried. The stock SDK's own limit.
pub const ANSWER_SECONDS_MAX: u64 = 5;
/// Longest first wait before another try, in milliseconds; it doubles from try to try.
pub const BACKOFF_FIRST_MS: u64 = 50;
/// Longest wait before another try, in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 2_000;
/// How long a writer tries to get one message accepted, in seconds.
pub const SEND_SECONDS_MAX: u64 = 180;
/// How long a reader tries to get its first subscription, in seconds.
pub const FIRST_SUBSCRIBE_SECONDS_MAX: u64 = 60;
/// Messages on a page of the history that a reader catches up with.
pub const CATCHUP_PAGE: u32 = 100;

/// Where a client connects, and as whom.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Base URLs of the nodes; the first is tried first.
    pub urls: Vec<String>,
    /// Where the token comes from.
    pub tokens: TokenSource,
    /// The user.
    pub user: String,
    /// The conversation.
    pub conversation: String,
}

impl Identity {
    async fn connect(&self, attempt: usize) -> Result<(Client, Pushes), ClientError> {
        let url = &self.urls[attempt % self.urls.len()];
        let token = self.tokens.token(url, &self.user).await;
        let token = token.map_err(|error| ClientError::Open(error.to_string()))?;
        Client::connect_with(url, &token, Duration::from_secs(ANSWER_SECONDS_MAX)).await
    }
}

/// Waits after the n-th failure in a row: anything up to twice as long each time, so that clients do not come together.
async fn back_off(failures: u32) {
    let most = BACKOFF_FIRST_MS.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX_MS);
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..=most))).await;
}

/// Reads one conversation from now on, through any number of connections, and keeps everything that it was given.
#[derive(Debug)]
pub struct ResumingReader {
    received: Arc<Mutex<ReaderRecord>>,
    last: watch::Receiver<u64>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ResumingReader {
    /// Subscribes, and returns once that is confirmed: whatever is accepted after this belongs to the reader.
    ///
    /// # Errors
    /// When no node confirms within [`FIRST_SUBSCRIBE_SECONDS_MAX`].
    pub async fn start(name: String, identity: Identity) -> Result<Self, ClientError> {
        let deadline = Instant::now() + Duration::from_secs(FIRST_SUBSCRIBE_SECONDS_MAX);
        let mut failures = 0;
        let (connection, subscribed) = loop {
            match first_subscription(&identity, failures).await {
                Ok(first) => break first,
                Err(error) if error.is_definite() || Instant::now() > deadline => return Err(error),
                Err(_) => failures += 1,
            }
            back_off(failures).await;
        };
        let received =
            Arc::new(Mutex::new(ReaderRecord { name, from: subscribed.offset, ..Default::default() }));
        let (last_in, last) = watch::channel(subscribed.offset);
        let stop = CancellationToken::new();
        let reading = Reading {
            identity,
            position: Position { epoch: subscribed.epoch, seq: subscribed.offset },
            received: received.clone(),
            last: last_in,
        };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped.run_until_cancelled(reading.run(connection)).await;
        });
        Ok(Self { received, last, stop, task })
    }

    /// How many messages it was given.
    pub fn count(&self) -> usize {
        self.received.lock().received.len()
    }

    /// Waits until the reader has been given this seq or a later one; false if that did not happen in time.
    pub async fn wait_for(&mut self, seq: u64, limit: Duration) -> bool {
        matches!(tokio::time::timeout(limit, self.last.wait_for(|last| *last >= seq)).await, Ok(Ok(_)))
    }

    /// Ends the reader; returns what it was given, in order.
    pub async fn stop(self) -> ReaderRecord {
        self.stop.cancel();
        // A reader that panicked shows by what it did not receive.
        let _ = self.task.await;
        std::mem::take(&mut *self.received.lock())
    }
}

async fn first_subscription(
    identity: &Identity,
    failures: u32,
) -> Result<((Client, Pushes), Subscribed), ClientError> {
    let (client, pushes) = identity.connect(failures as usize).await?;
    let subscribed = client.subscribe(&identity.conversation, None).await?;
    Ok(((client, pushes), subscribed))
}

struct Reading {
    identity: Identity,
    position: Position,
    received: Arc<Mutex<ReaderRecord>>,
    last: watch::Sender<u64>,
}

impl Reading {
    async fn run(mut self, first: (Client, Pushes)) {
        let (mut client, mut pushes) = first;
        let mut attempt = 0;
        let mut failures = 0;
        loop {
            self.follow(&client, &mut pushes).await;
            self.received.lock().reconnects += 1;
            (client, pushes) = loop {
                attempt += 1;
                back_off(failures).await;
                match self.resume(attempt).await {
                    Ok(connection) => break connection,
                    Err(_) => failures += 1,
                }
            };
            failures = 0;
        }
    }

    /// Takes what comes until the connection ends.
    async fn follow(&mut self, client: &Client, pushes: &mut Pushes) {
        while let Some(push) = pushes.next().await {
            match push {
                Push::Publication(channel, publication) if channel == self.identity.conversation => {
                    self.take(publication.into());
                }
                Push::Unsubscribed(channel, _)
                    if channel == self.identity.conversation && self.recover(client).await.is_err() =>
                {
                    return;
                }
                Push::Closed(..) => return,
                _ => {}
            }
        }
    }

    async fn resume(&mut self, attempt: usize) -> Result<(Client, Pushes), ClientError> {
        let (client, pushes) = self.identity.connect(attempt).await?;
        self.recover(&client).await?;
        Ok((client, pushes))
    }

    async fn recover(&mut self, client: &Client) -> Result<(), ClientError> {
        let subscribed = client.subscribe(&self.identity.conversation, Some(&self.position)).await?;
        self.position.epoch.clone_from(&subscribed.epoch);
        if subscribed.recovered {
            for publication in subscribed.publications {
                self.take(publication.into());
            }
            return Ok(());
        }
        self.received.lock().limited += 1;
        // Live messages wait in `pushes` meanwhile, and all of them are above the offset.
        while self.position.seq < subscribed.offset {
            let page = client.history(&self.identity.conversation, self.position.seq, CATCHUP_PAGE).await?;
            let before = self.position.seq;
            for entry in page.messages.into_iter().filter(|entry| entry.seq <= subscribed.offset) {
                self.take(entry);
            }
            if self.position.seq == before {
                // The end itself may be gone with a log that was lost; the judge sees what is missing.
                self.position.seq = subscribed.offset;
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        // A faulty server may go back; resuming from the latest makes the fault show as what it is.
        self.position.seq = self.position.seq.max(entry.seq);
        self.received.lock().received.push(entry);
        self.last.send_replace(self.position.seq);
    }
}

/// Sends numbered messages, each only after the one before is acknowledged, through any number of connections.
#[derive(Debug)]
pub struct RetryingWriter {
    task: JoinHandle<WriterRecord>,
}

impl RetryingWriter {
    /// Starts to send `messages`, given as client id and body. Each acknowledgement adds one to `acked`.
    pub fn start(
        identity: Identity,
        messages: impl IntoIterator<Item = (String, String), IntoIter: Send> + Send + 'static,
        acked: Arc<watch::Sender<u64>>,
    ) -> Self {
        let writing = Writing {
            record: WriterRecord { user: identity.user.clone(), ..Default::default() },
            identity,
            connection: None,
            attempt: 0,
        };
        Self { task: tokio::spawn(writing.run(messages.into_iter(), acked)) }
    }

    /// Waits until every message is acknowledged, refused or given up.
    pub async fn finish(self) -> WriterRecord {
        self.task.await.unwrap_or_else(|panic| WriterRecord {
            gave_up: vec![format!("the writer itself failed: {panic}")],
            ..Default::default()
        })
    }
}

struct Writing {
    identity: Identity,
    connection: Option<(Client, Pushes)>,
    attempt: usize,
    record: WriterRecord,
}

impl Writing {
    async fn run(
        mut self,
        messages: impl Iterator<Item = (String, String)>,
        acked: Arc<watch::Sender<u64>>,
    ) -> WriterRecord {
        for (client_id, body) in messages {
            match self.send(&client_id, &body).await {
                Ok(Sent { id, seq, time }) => {
                    self.record.acks.push(Ack { client_id, id, seq, time, body });
                    acked.send_modify(|acked| *acked += 1);
                }
                Err(error) if error.is_definite() => {
                    self.record.refused.push(Refused { client_id, reason: error.to_string() });
                }
                Err(error) => self.record.gave_up.push(format!("{client_id}: {error}")),
            }
            self.take_notices();
        }
        self.record
    }

    /// Tries until the answer is definite. Only the first try may say that it is not a retry.
    async fn send(&mut self, client_id: &str, body: &str) -> Result<Sent, ClientError> {
        let deadline = Instant::now() + Duration::from_secs(SEND_SECONDS_MAX);
        let mut failures = 0;
        loop {
            let error = match self.try_once(client_id, body, failures > 0).await {
                Ok(sent) => return Ok(sent),
                Err(error) if error.is_definite() || Instant::now() > deadline => return Err(error),
                Err(error) => error,
            };
            self.record.retries += 1;
            if !matches!(error, ClientError::Refused { .. }) {
                // After silence the next node may do better.
                self.take_notices();
                self.connection = None;
                self.attempt += 1;
            }
            failures += 1;
            back_off(failures).await;
        }
    }

    async fn try_once(&mut self, client_id: &str, body: &str, retry: bool) -> Result<Sent, ClientError> {
        if self.connection.is_none() {
            self.connection = Some(self.identity.connect(self.attempt).await?);
        }
        let (client, _) = self.connection.as_ref().expect("it was opened above");
        client.send(&self.identity.conversation, client_id, body, retry).await
    }

    fn take_notices(&mut self) {
        let Some((_, pushes)) = &mut self.connection else { return };
        while let Some(push) = pushes.try_next() {
            if let Push::Stored(notice) = push
                && notice.conversation == self.identity.conversation
            {
                self.record.note_stored(notice.upto);
            }
        }
    }
}
