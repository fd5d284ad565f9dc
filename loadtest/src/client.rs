//! A Centrifuge JSON client over WebSocket. Deliberately absent: reconnecting (see [`crate::session`]) and TLS.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastwebsockets::{
    FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocket, WebSocketError, WebSocketWrite,
    handshake::generate_key,
};
use http_body_util::Empty;
use hyper::{Method, StatusCode, client::conn::http1, header, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    http::{self, HttpError},
    wire::{
        ClientInfo, Connected, HistoryData, HistoryPage, Incoming, Position, Publication, PushBody, SendData,
        Sent, StoredNotice, Subscribed,
    },
};

/// Longest wait for the WebSocket to open, or for the answer to a command, in seconds, unless another is given. Far above what
/// either takes: whoever has no other node to go to can only wait.
pub const ANSWER_SECONDS_MAX: u64 = 60;
/// How long after a ping was due the connection counts as dead, in seconds; the stock SDK's own limit.
pub const PING_GRACE_SECONDS: u64 = 10;
/// Most pushes that wait to be taken; beyond, the socket is not read.
pub const PUSHES_MAX: usize = 16_384;
/// Most frames that wait to be written; beyond, commands wait.
pub const FRAMES_MAX: usize = 256;

/// Why a command brought no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be opened.
    #[error("cannot connect: {0}")]
    Open(String),
    /// No answer came in time: the outcome is unknown.
    #[error("no answer in time")]
    Timeout,
    /// The connection ended: the outcome is unknown.
    #[error("connection closed")]
    Closed,
    /// The server answered with an error.
    #[error("refused: {code} {message}")]
    Refused {
        /// The protocol's code.
        code: u32,
        /// What the server says.
        message: String,
        /// Whether the server expects the same command to succeed later.
        temporary: bool,
    },
    /// The answer is not what the protocol promises.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

impl ClientError {
    /// Whether the server said definitely that nothing happened.
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::Refused { temporary: false, code, .. } if !matches!(code, 100 | 111 | 113))
    }
}

/// What the server said without being asked.
#[derive(Debug)]
pub enum Push {
    /// A message of a conversation.
    Publication(String, Publication),
    /// Something that is kept nowhere: the conversation, the name of the event, and its object.
    Event(String, String, Box<RawValue>),
    /// Someone joined.
    Join(String, ClientInfo),
    /// Someone left.
    Leave(String, ClientInfo),
    /// The server ended a subscription, with a code.
    Unsubscribed(String, u32),
    /// What this connection sent is stored.
    Stored(StoredNotice),
    /// The connection ended: code and reason of the close frame, or 0 and what failed. The last push.
    Closed(u16, String),
}

/// One connection. Dropping it closes the connection.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    connected: Connected,
    patience: Duration,
    tasks: [JoinHandle<()>; 2],
}

/// What the server says to one connection without being asked, in order.
#[derive(Debug)]
pub struct Pushes(mpsc::Receiver<Push>);

#[derive(Debug)]
struct Shared {
    frames: mpsc::Sender<Frame<'static>>,
    /// Commands without an answer yet; `None` once the connection has ended.
    waiting: Mutex<Option<HashMap<u32, oneshot::Sender<Incoming>>>>,
    last_id: AtomicU32,
    answers_pings: AtomicBool,
    silence_seconds_max: AtomicU64,
}

impl Client {
    /// Connects to the gateway at a base URL such as `http://127.0.0.1:8000`.
    ///
    /// # Errors
    /// When the WebSocket cannot be opened, or the token is refused.
    pub async fn connect(url: &str, token: &str) -> Result<(Self, Pushes), ClientError> {
        Self::connect_with(url, token, Duration::from_secs(ANSWER_SECONDS_MAX)).await
    }

    /// As [`Client::connect`], for somebody who waits no longer than `patience` for each answer.
    ///
    /// # Errors
    /// When the WebSocket cannot be opened, or the token is refused.
    pub async fn connect_with(
        url: &str,
        token: &str,
        patience: Duration,
    ) -> Result<(Self, Pushes), ClientError> {
        let socket = timeout(patience, open(url)).await.map_err(|_| ClientError::Timeout)??;
        let (read, write) = socket.split(tokio::io::split);
        let (frames, frames_out) = mpsc::channel(FRAMES_MAX);
        let (pushes_in, pushes) = mpsc::channel(PUSHES_MAX);
        let shared = Arc::new(Shared {
            frames,
            waiting: Mutex::new(Some(HashMap::new())),
            last_id: AtomicU32::new(0),
            answers_pings: AtomicBool::new(false),
            silence_seconds_max: AtomicU64::new(patience.as_secs() + PING_GRACE_SECONDS),
        });
        let reader = Reader { shared: shared.clone(), pushes: pushes_in };
        let tasks = [
            tokio::spawn(reader.run(FragmentCollectorRead::new(read))),
            tokio::spawn(write_frames(write, frames_out)),
        ];
        let mut client = Self { shared, connected: Connected::default(), patience, tasks };
        client.connected = client.call("connect", &serde_json::json!({ "token": token })).await?;
        let Connected { ping, pong, .. } = client.connected;
        client.shared.answers_pings.store(pong, Ordering::Relaxed);
        let silence_seconds_max = if ping == 0 { u64::from(u32::MAX) } else { ping + PING_GRACE_SECONDS };
        client.shared.silence_seconds_max.store(silence_seconds_max, Ordering::Relaxed);
        Ok((client, Pushes(pushes)))
    }

    /// What the server said to `connect`.
    pub fn connected(&self) -> &Connected {
        &self.connected
    }

    /// Shows a new token of the same user. Returns the seconds until it expires.
    ///
    /// # Errors
    /// When it is refused; the server may also end the connection.
    pub async fn refresh(&self, token: &str) -> Result<u32, ClientError> {
        #[derive(serde::Deserialize)]
        struct Refreshed {
            ttl: u32,
        }
        let answer: Refreshed = self.call("refresh", &serde_json::json!({ "token": token })).await?;
        Ok(answer.ttl)
    }

    /// Joins a conversation; with a position, asks for everything after it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscribe(
        &self,
        channel: &str,
        recover: Option<&Position>,
    ) -> Result<Subscribed, ClientError> {
        let mut request = serde_json::json!({ "channel": channel, "join_leave": true });
        if let Some(position) = recover {
            request["recover"] = true.into();
            request["offset"] = position.seq.into();
            request["epoch"] = position.epoch.as_str().into();
        }
        self.call("subscribe", &request).await
    }

    /// Leaves a conversation.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unsubscribe(&self, channel: &str) -> Result<(), ClientError> {
        self.call::<Nothing>("unsubscribe", &serde_json::json!({ "channel": channel })).await.map(drop)
    }

    /// Publishes a JSON text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn publish(&self, channel: &str, body: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Request<'a> {
            channel: &'a str,
            data: &'a RawValue,
        }
        self.call::<Nothing>("publish", &Request { channel, data: raw(body)? }).await.map(drop)
    }

    /// Who is in the conversation, by connection.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn presence(&self, channel: &str) -> Result<HashMap<String, ClientInfo>, ClientError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            presence: HashMap<String, ClientInfo>,
        }
        let answer: Answer = self.call("presence", &serde_json::json!({ "channel": channel })).await?;
        Ok(answer.presence)
    }

    /// Sends a message with a name of its own; `retry` says that an earlier try may have succeeded.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send(
        &self,
        conversation: &str,
        client_id: &str,
        body: &str,
        retry: bool,
    ) -> Result<Sent, ClientError> {
        self.rpc("send", &SendData { conversation, client_id, body: raw(body)?, retry }).await
    }

    /// The oldest messages after a seq.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(
        &self,
        conversation: &str,
        after: u64,
        limit: u32,
    ) -> Result<HistoryPage, ClientError> {
        self.rpc("history", &HistoryData { conversation, after, limit }).await
    }

    /// Any rpc.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rpc<T: DeserializeOwned>(
        &self,
        method: &str,
        data: &impl Serialize,
    ) -> Result<T, ClientError> {
        #[derive(Serialize)]
        struct Request<'a, D> {
            method: &'a str,
            data: &'a D,
        }
        #[derive(serde::Deserialize)]
        struct Answer<T> {
            data: T,
        }
        let answer: Answer<T> = self.call("rpc", &Request { method, data }).await?;
        Ok(answer.data)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        name: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let id = self.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let request =
            serde_json::to_string(request).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let answer = self.shared.expect_answer(id)?;
        let line = format!(r#"{{"id":{id},"{name}":{request}}}"#);
        let answer = async {
            let frame = Frame::text(Payload::Owned(line.into_bytes()));
            self.shared.frames.send(frame).await.map_err(|_| ClientError::Closed)?;
            answer.await.map_err(|_| ClientError::Closed)
        };
        let answer = timeout(self.patience, answer).await;
        self.shared.forget(id);
        let mut answer = answer.map_err(|_| ClientError::Timeout)??;
        if let Some(error) = answer.error.take() {
            return Err(ClientError::Refused {
                code: error.code,
                message: error.message,
                temporary: error.temporary,
            });
        }
        let result =
            answer.into_result().ok_or_else(|| ClientError::Malformed(format!("no result of {name}")))?;
        serde_json::from_str(result.get()).map_err(|error| ClientError::Malformed(format!("{name}: {error}")))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Pushes {
    /// The next push; `None` after [`Push::Closed`].
    pub async fn next(&mut self) -> Option<Push> {
        self.0.recv().await
    }

    /// The next push, if one has come already.
    pub fn try_next(&mut self) -> Option<Push> {
        self.0.try_recv().ok()
    }
}

#[derive(serde::Deserialize)]
struct Nothing {}

impl Shared {
    fn expect_answer(&self, id: u32) -> Result<oneshot::Receiver<Incoming>, ClientError> {
        let (answer_in, answer) = oneshot::channel();
        self.waiting.lock().as_mut().ok_or(ClientError::Closed)?.insert(id, answer_in);
        Ok(answer)
    }

    fn forget(&self, id: u32) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&id);
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    pushes: mpsc::Sender<Push>,
}

impl Reader {
    async fn run(self, mut socket: FragmentCollectorRead<ReadHalf<TokioIo<Upgraded>>>) {
        let (code, reason) = self.read_all(&mut socket).await;
        // Dropping the senders tells every waiting command.
        drop(self.shared.waiting.lock().take());
        // A receiver that is gone does not ask how it ended.
        let _ = self.pushes.send(Push::Closed(code, reason)).await;
    }

    async fn read_all(
        &self,
        socket: &mut FragmentCollectorRead<ReadHalf<TokioIo<Upgraded>>>,
    ) -> (u16, String) {
        loop {
            let frames = self.shared.frames.clone();
            let mut answer = move |frame: Frame<'static>| {
                let frames = frames.clone();
                async move { frames.send(frame).await }
            };
            let silence = Duration::from_secs(self.shared.silence_seconds_max.load(Ordering::Relaxed));
            // The read is not cancel-safe; after this timeout nothing is read any more.
            let frame = match timeout(silence, socket.read_frame(&mut answer)).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(WebSocketError::UnexpectedEOF)) => return (0, "connection lost".to_owned()),
                Ok(Err(error)) => return (0, error.to_string()),
                Err(_) => return (0, "no ping".to_owned()),
            };
            let taken = match frame.opcode {
                OpCode::Text => self.take_lines(&frame.payload).await,
                OpCode::Close => return close_reason(&frame.payload),
                _ => Ok(()),
            };
            if let Err(error) = taken {
                return (0, error);
            }
        }
    }

    async fn take_lines(&self, payload: &[u8]) -> Result<(), String> {
        for line in payload.split(|byte| *byte == b'\n') {
            let incoming: Incoming = serde_json::from_slice(line)
                .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(line)))?;
            self.take(incoming).await?;
        }
        Ok(())
    }

    async fn take(&self, incoming: Incoming) -> Result<(), String> {
        if incoming.id != 0 {
            let waiting =
                self.shared.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&incoming.id));
            if let Some(waiting) = waiting {
                // Whoever waited may have given up at this very moment.
                let _ = waiting.send(incoming);
            }
        } else if let Some(push) = incoming.push {
            if let Some(push) = read_push(push)? {
                // The owner of the connection may not care about pushes.
                let _ = self.pushes.send(push).await;
            }
        } else if self.shared.answers_pings.load(Ordering::Relaxed) {
            let pong = Frame::text(Payload::Borrowed(b"{}"));
            self.shared.frames.send(pong).await.map_err(|_| "connection lost".to_owned())?;
        }
        Ok(())
    }
}

/// Pushes that this client does not know are skipped, as the stock SDK does.
fn read_push(push: PushBody) -> Result<Option<Push>, String> {
    let PushBody { channel, mut publication, join, leave, unsubscribe, message } = push;
    let event = publication.as_mut().and_then(|publication| publication.tags.remove("event"));
    Ok(if let (Some(name), Some(publication)) = (event, &publication) {
        Some(Push::Event(channel, name, publication.data.clone()))
    } else if let Some(publication) = publication {
        Some(Push::Publication(channel, publication))
    } else if let Some(join) = join {
        Some(Push::Join(channel, join.info))
    } else if let Some(leave) = leave {
        Some(Push::Leave(channel, leave.info))
    } else if let Some(unsubscribe) = unsubscribe {
        Some(Push::Unsubscribed(channel, unsubscribe.code))
    } else if let Some(message) = message {
        message.stored_notice()?.map(Push::Stored)
    } else {
        None
    })
}

fn close_reason(payload: &[u8]) -> (u16, String) {
    match payload {
        [high, low, reason @ ..] => {
            (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
        }
        _ => (1005, String::new()),
    }
}

async fn write_frames(
    mut socket: WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>,
    mut frames: mpsc::Receiver<Frame<'static>>,
) {
    while let Some(frame) = frames.recv().await {
        // The reader notices a connection that has failed, and says so.
        if socket.write_frame(frame).await.is_err() || socket.flush().await.is_err() {
            return;
        }
    }
}

fn raw(json: &str) -> Result<&RawValue, ClientError> {
    serde_json::from_str(json).map_err(|error| ClientError::Malformed(format!("body: {error}")))
}

async fn open(url: &str) -> Result<WebSocket<TokioIo<Upgraded>>, ClientError> {
    upgrade(url).await.map_err(|error| ClientError::Open(error.to_string()))
}

async fn upgrade(url: &str) -> Result<WebSocket<TokioIo<Upgraded>>, HttpError> {
    let address = http::address(&format!("{url}/connection/websocket"))?;
    let request = http::builder(Method::GET, &address, None)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "upgrade")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .body(Empty::<Bytes>::new())
        .expect("a parsed address and constant headers make a request");
    let (mut sender, connection) = http1::handshake(http::open(&address).await?).await?;
    let response = async move {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Ok(response),
            status => Err(HttpError::Status { status, body: "no WebSocket".to_owned() }),
        }
    };
    // The connection ends by itself once it has handed the upgraded stream over.
    let connection = async { connection.with_upgrades().await.map_err(HttpError::from) };
    let (response, ()) = tokio::try_join!(response, connection)?;
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client))
}
