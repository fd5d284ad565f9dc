//! A whole check: writers and readers on several nodes, while something else kills processes, and the judgement after.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    check::{Durability, Evidence, Fault, HistoryRecord, Verdict, judge},
    client::ClientError,
    http::{self, HttpError},
    session::{Identity, ResumingReader, RetryingWriter},
    token::TokenSource,
    wire::{Entry, HistoryPage},
};

/// How long the readers may take to get the last message once the writers are done, in seconds.
pub const SETTLE_SECONDS_MAX: u64 = 60;
/// How long a node is asked again for a page of history, or for a new conversation, in seconds.
pub const ASK_SECONDS_MAX: u64 = 60;
/// Pause before asking again, in milliseconds.
pub const ASK_PAUSE_MS: u64 = 250;
/// Messages on a page of the final reading.
pub const HISTORY_PAGE: u32 = 100;
/// Which part of its messages a writer has yet to send when it is told that it was enough.
const REST: usize = 3;
/// How often progress is reported, in milliseconds.
pub const PROGRESS_MS: u64 = 500;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Base URLs of the nodes.
    pub urls: Vec<String>,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// Conversations.
    pub conversations: usize,
    /// Writers of each conversation.
    pub writers: usize,
    /// Readers of each conversation.
    pub readers: usize,
    /// Messages of each writer, at least: see [`Run::enough`].
    pub messages: usize,
    /// What must have survived.
    pub durability: Durability,
}

impl Options {
    /// Three writers and two readers of one conversation, 1,000 messages each.
    pub fn new(urls: Vec<String>, tokens: TokenSource) -> Self {
        Self {
            urls,
            tokens,
            conversations: 1,
            writers: 3,
            readers: 2,
            messages: 1_000,
            durability: Durability::Accepted,
        }
    }

    /// How many messages will be acknowledged at least, if nothing is refused.
    pub fn total(&self) -> u64 {
        (self.conversations * self.writers * self.messages) as u64
    }
}

/// Why a check could not start.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No node was named.
    #[error("no node to connect to")]
    NoNode,
    /// A conversation could not be created.
    #[error("cannot create a conversation: {0}")]
    Create(HttpError),
    /// A reader could not subscribe.
    #[error("cannot subscribe: {0}")]
    Subscribe(ClientError),
}

/// A check under way.
#[derive(Debug)]
pub struct Run {
    options: Options,
    rooms: Vec<Room>,
    acked: watch::Receiver<u64>,
    enough: CancellationToken,
}

#[derive(Debug)]
struct Room {
    conversation: String,
    /// Someone who may read it back.
    member: String,
    writers: Vec<RetryingWriter>,
    readers: Vec<ResumingReader>,
}

/// Runs a whole check; reports `(acknowledged, total)` from time to time.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: Options, mut on_progress: impl FnMut(u64, u64)) -> Result<Verdict, VerifyError> {
    let total = options.total();
    let run = start(options).await?;
    let acked = run.acked.clone();
    let finished = run.finish();
    tokio::pin!(finished);
    loop {
        tokio::select! {
            verdict = &mut finished => return Ok(verdict),
            () = tokio::time::sleep(Duration::from_millis(PROGRESS_MS)) => on_progress(*acked.borrow(), total),
        }
    }
}

/// Creates the conversations, subscribes the readers, then starts the writers.
///
/// # Errors
/// When a conversation cannot be created or a reader cannot subscribe.
pub async fn start(options: Options) -> Result<Run, VerifyError> {
    if options.urls.is_empty() {
        return Err(VerifyError::NoNode);
    }
    let (acked_in, acked) = watch::channel(0);
    let (acked_in, enough) = (Arc::new(acked_in), CancellationToken::new());
    let mut rooms = Vec::with_capacity(options.conversations);
    for _ in 0..options.conversations {
        rooms.push(open_room(&options).await?);
    }
    // Writers start together, once every reader is there: all that is accepted is every reader's due.
    for (at, room) in rooms.iter_mut().enumerate() {
        room.writers = (0..options.writers)
            .map(|writer| {
                let identity = identity(&options, at + writer, &writer_name(writer), &room.conversation);
                let messages = messages(options.messages, writer, enough.clone());
                RetryingWriter::start(identity, messages, acked_in.clone())
            })
            .collect();
    }
    Ok(Run { options, rooms, acked, enough })
}

impl Run {
    /// How many messages have been acknowledged so far.
    pub fn acked(&self) -> u64 {
        *self.acked.borrow()
    }

    /// Waits until so many messages have been acknowledged; false if the writers ended before.
    pub async fn wait_acked(&self, count: u64) -> bool {
        self.acked.clone().wait_for(|acked| *acked >= count).await.is_ok()
    }

    /// Until this is said, the writers go on, so that whatever is done before happens in the middle. After it each writes the
    /// rest of its messages, and at least a third of them.
    pub fn enough(&self) {
        self.enough.cancel();
    }

    /// Says that it was enough, waits for the end and judges; every node that was named must show the same history.
    pub async fn finish(self) -> Verdict {
        let urls = self.options.urls.clone();
        self.finish_at(&urls).await
    }

    /// As [`Run::finish`], reading the final histories from these nodes alone, since others may be dead for good.
    pub async fn finish_at(self, urls: &[String]) -> Verdict {
        self.enough();
        let mut verdict = Verdict::default();
        let mut evidences = JoinSet::new();
        for room in self.rooms {
            evidences.spawn(room.evidence(self.options.clone(), urls.to_vec()));
        }
        while let Some(evidence) = evidences.join_next().await {
            match evidence {
                Ok((evidence, complaints)) => {
                    verdict.merge(judge(&evidence));
                    for complaint in complaints {
                        verdict
                            .found(Fault::Unfinished, || format!("{}: {complaint}", evidence.conversation));
                    }
                }
                Err(panic) => verdict.found(Fault::Unfinished, || panic.to_string()),
            }
        }
        verdict
    }
}

impl Room {
    async fn evidence(self, options: Options, urls: Vec<String>) -> (Evidence, Vec<String>) {
        let mut complaints = Vec::new();
        let mut evidence = Evidence {
            conversation: self.conversation.clone(),
            durability: options.durability,
            ..Default::default()
        };
        for writer in self.writers {
            evidence.writers.push(writer.finish().await);
        }
        for url in urls {
            match read_history(&url, &options.tokens, &self.member, &self.conversation).await {
                Ok(messages) => evidence.histories.push(HistoryRecord { node: url, messages }),
                Err(error) => complaints.push(format!("{url} does not show the history: {error}")),
            }
        }
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS_MAX);
        let messages = evidence.histories.first().map(|history| history.messages.as_slice());
        let last = messages.unwrap_or_default().iter().rfind(|entry| !entry.is_void());
        for mut reader in self.readers {
            // A reader that does not get there in time has holes, which the judge names.
            let seq = last.map_or(0, |entry| entry.seq);
            reader.wait_for(seq, deadline.saturating_duration_since(Instant::now())).await;
            evidence.readers.push(reader.stop().await);
        }
        let unfinished = evidence.writers.iter().flat_map(|writer| &writer.refused);
        complaints.extend(
            unfinished.map(|refused| format!("{} was refused: {}", refused.client_id, refused.reason)),
        );
        (evidence, complaints)
    }
}

async fn open_room(options: &Options) -> Result<Room, VerifyError> {
    let readers = (0..options.readers).map(reader_name);
    let members: Vec<String> = (0..options.writers).map(writer_name).chain(readers).collect();
    let conversation = create_group(options, &members).await.map_err(VerifyError::Create)?;
    let mut room =
        Room { conversation, member: members[0].clone(), writers: Vec::new(), readers: Vec::new() };
    for at in 0..options.readers {
        let name = reader_name(at);
        let identity = identity(options, at, &name, &room.conversation);
        room.readers.push(ResumingReader::start(name, identity).await.map_err(VerifyError::Subscribe)?);
    }
    Ok(room)
}

async fn create_group(options: &Options, members: &[String]) -> Result<String, HttpError> {
    #[derive(Serialize)]
    struct Group<'a> {
        kind: &'a str,
        members: &'a [String],
    }
    #[derive(Deserialize)]
    struct Created {
        id: String,
    }
    let mut attempt = 0;
    let created: Created = ask(|| {
        let url = &options.urls[attempt % options.urls.len()];
        attempt += 1;
        async move {
            let token = options.tokens.token(url, &members[0]).await?;
            http::post(&format!("{url}/v1/conversations"), &token, &Group { kind: "group", members }).await
        }
    })
    .await?;
    Ok(created.id)
}

/// The whole conversation as one node shows it, from the first message to the last.
///
/// # Errors
/// When the node does not answer for [`ASK_SECONDS_MAX`].
pub async fn read_history(
    url: &str,
    tokens: &TokenSource,
    member: &str,
    conversation: &str,
) -> Result<Vec<Entry>, HttpError> {
    let token = ask(|| tokens.token(url, member)).await?;
    let mut messages: Vec<Entry> = Vec::new();
    loop {
        let after = messages.last().map_or(0, |entry| entry.seq);
        let page =
            format!("{url}/v1/conversations/{conversation}/messages?after={after}&limit={HISTORY_PAGE}");
        let page: HistoryPage = ask(|| http::get(&page, Some(&token))).await?;
        let advanced = page.messages.last().is_some_and(|entry| entry.seq > after);
        messages.extend(page.messages);
        // A page that leads nowhere is the last; a faulty one must not keep us here for ever.
        if !advanced {
            return Ok(messages);
        }
    }
}

/// Asks again while the node is away or says that it cannot answer now.
async fn ask<T, F: Future<Output = Result<T, HttpError>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, HttpError> {
    let deadline = Instant::now() + Duration::from_secs(ASK_SECONDS_MAX);
    loop {
        match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(HttpError::Status { status, body }) if status.is_client_error() && status != 429 => {
                return Err(HttpError::Status { status, body });
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(ASK_PAUSE_MS)).await,
        }
    }
}

/// Neighbours start at different nodes.
fn identity(options: &Options, first: usize, user: &str, conversation: &str) -> Identity {
    let mut urls = options.urls.clone();
    urls.rotate_left(first % options.urls.len());
    Identity {
        urls,
        tokens: options.tokens.clone(),
        user: user.to_owned(),
        conversation: conversation.to_owned(),
    }
}

fn writer_name(at: usize) -> String {
    format!("writer-{at}")
}

fn reader_name(at: usize) -> String {
    format!("reader-{at}")
}

/// So many messages, or as many as are sent until it was enough, and a rest. Bodies whose every byte matters: a number that
/// floating point cannot hold, spaces, and text of several scripts.
fn messages(
    count: usize,
    writer: usize,
    enough: CancellationToken,
) -> impl Iterator<Item = (String, String)> + Send {
    let run = Uuid::new_v4().simple();
    let body = move |number: usize| {
        format!(
            r#"{{"writer": {writer}, "number":{number},"exact":9007199254740993,"text":"grüß 世界 🐦 \u00e9\n"}}"#
        )
    };
    let mut rest = count.div_ceil(REST);
    let goes_on = move |number: &usize| {
        if !enough.is_cancelled() {
            return true;
        }
        let is_rest = rest > 0;
        rest = rest.saturating_sub(1);
        is_rest || *number < count
    };
    (0..).take_while(goes_on).map(move |number| (format!("{run}-{number}"), body(number)))
}
