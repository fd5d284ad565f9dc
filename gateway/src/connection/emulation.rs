//! A client whose way in and way out are different HTTP requests: answers and events come on a response that does not
//! end, commands on requests of their own, which any node may get.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::domain::Disconnect;
use tokio::{net::TcpStream, sync::Notify};
use uuid::Uuid;

use super::{
    Lines, Source,
    link::{Link, StreamKey},
};
use crate::{
    dialect::Dialect,
    limits::Admitted,
    outbox::{Class, Outbox},
    protocol::centrifuge,
    socket::{LINGER_SECONDS_MAX, Rest, StreamHandle},
};

/// Requests of one session that may wait for the one before them.
const FRAMES_WAITING_MAX: usize = 64;

/// Bytes that a client may send behind the request of its stream; they have no meaning.
const SENT_BEHIND_BYTES_MAX: usize = 64 * 1024;

/// How answers and events are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Server-sent events.
    Sse,
    /// Lines of JSON.
    HttpStream,
}

impl Wire {
    fn dialect(self) -> &'static Dialect {
        match self {
            Self::Sse => &centrifuge::SSE,
            Self::HttpStream => &centrifuge::HTTP_STREAM,
        }
    }
}

/// The HTTP sessions that this node holds, by their secret.
#[derive(Default)]
pub struct Emulations {
    sessions: Mutex<HashMap<Arc<str>, Arc<Inbox>>>,
}

impl Emulations {
    /// Hands commands to a session, if there is one of that name. One that has too many waiting ends, so that its client
    /// comes back and resumes, instead of waiting for answers that never come.
    pub fn hand_over(&self, session: &str, frame: Bytes) {
        let mut sessions = self.sessions.lock();
        if sessions.get(session).is_some_and(|inbox| !inbox.put(frame)) {
            sessions.remove(session);
        }
    }
}

/// The commands that wait for one session. Not a channel, since that has room for dozens from its beginning.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    /// Nothing is added any more.
    is_over: bool,
}

impl Inbox {
    /// Adds a frame; false when there are too many, and from then on.
    fn put(&self, frame: Bytes) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.is_over |= waiting.frames.len() >= FRAMES_WAITING_MAX;
        if !waiting.is_over {
            waiting.frames.push_back(frame);
        }
        self.came.notify_one();
        !waiting.is_over
    }

    /// The next frame; `None` once all that wait are done, when no more are added. Cancel-safe; for one task.
    async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if let Some(frame) = waiting.frames.pop_front() {
                    if waiting.frames.is_empty() {
                        waiting.frames = VecDeque::new();
                    }
                    return Some(frame);
                }
                if waiting.is_over {
                    return None;
                }
            }
            self.came.notified().await;
        }
    }
}

/// Takes the session off the list when its task ends, however it ends.
struct Entry {
    emulations: Weak<Emulations>,
    session: Arc<str>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(emulations) = self.emulations.upgrade() {
            emulations.sessions.lock().remove(&self.session);
        }
    }
}

/// Converses with a client whose first frame is `connect`, and who hears the rest on the socket of a response.
pub fn converse_by_stream(
    lines: Lines,
    admitted: Admitted,
    source: Source,
    emulations: Arc<Emulations>,
    wire: Wire,
    connect: Bytes,
    handle: StreamHandle,
) -> impl Future<Output = ()> {
    // Boxed, so that an idle session does not keep room for what comes before and after.
    let opening = Box::pin(async move {
        let stream = handle.raw().await.ok()?;
        let mut conversation = Conversation::new(&lines, admitted, source, &emulations, wire, stream);
        conversation.open(connect).await;
        Some(conversation)
    });
    async move {
        let Some(mut conversation) = opening.await else { return };
        conversation.run().await;
        Box::pin(conversation.end()).await;
    }
}

/// What an idle session keeps.
struct Conversation {
    link: Link,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    rest: Rest,
    admitted: Admitted,
    entry: Entry,
}

impl Conversation {
    fn new(
        lines: &Lines,
        admitted: Admitted,
        source: Source,
        emulations: &Arc<Emulations>,
        wire: Wire,
        stream: TcpStream,
    ) -> Self {
        let dialect = wire.dialect();
        let (read, write) = stream.into_split();
        let outbox = Outbox::socket(&lines.outboxes, write, dialect.farewell);
        if wire == Wire::Sse {
            outbox.send(Bytes::from_static(centrifuge::SSE_OPENING), Class::Durable);
        }
        // 122 random bits from the system: whoever knows them may speak for the client.
        let session: Arc<str> = Uuid::new_v4().simple().to_string().into();
        let key = StreamKey { session: Arc::clone(&session), node: lines.node.id.clone() };
        let inbox = Arc::<Inbox>::default();
        emulations.sessions.lock().insert(Arc::clone(&session), Arc::clone(&inbox));
        let entry = Entry { emulations: Arc::downgrade(emulations), session };
        let link = Link::new(lines, dialect, Arc::clone(&outbox), Some(key)).coming_from(source);
        Self { link, outbox, inbox, rest: Rest::new(read, SENT_BEHIND_BYTES_MAX), admitted, entry }
    }

    async fn open(&mut self, connect: Bytes) {
        self.link.frame(&connect).await;
        self.admitted.authenticated();
        if !self.link.is_authenticated() && !self.outbox.is_closed() {
            // The answer says why; the SDK comes back with a new request, since this one cannot carry a second connect.
            self.outbox.close_with(Disconnect::ConnectionClosed, Bytes::new());
        }
    }

    async fn run(&mut self) {
        let Self { link, outbox, inbox, rest, .. } = self;
        while !outbox.is_closed() {
            let frame = tokio::select! {
                frame = inbox.next() => frame,
                () = rest.end() => return outbox.close(Disconnect::ConnectionClosed),
                _ = outbox.closed() => return,
            };
            match frame {
                Some(frame) => Box::pin(link.frame(&frame)).await,
                None => outbox.close(Disconnect::ServerError),
            }
        }
    }

    /// The session ends before the client has taken its last words.
    async fn end(self) {
        let Self { link, outbox: _outbox, inbox: _, rest, admitted: _admitted, entry } = self;
        drop((entry, link));
        rest.linger(Duration::from_secs(LINGER_SECONDS_MAX)).await;
    }
}
