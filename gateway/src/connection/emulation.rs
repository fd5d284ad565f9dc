//! A client whose way in and way out are different HTTP requests: answers and events come on a response that does not
//! end, commands on requests of their own, which any node may get.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::domain::Disconnect;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Lines, Source,
    link::{Link, StreamKey},
};
use crate::{
    dialect::Dialect,
    limits::Admitted,
    outbox::{Class, Drain, Outbox},
    protocol::centrifuge,
};

/// Requests of one session that may wait for the one before them.
const FRAMES_WAITING_MAX: usize = 64;

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

/// Starts a session whose first frame is `connect`; what it says is the body of the response.
pub fn open_stream(
    lines: &Lines,
    admitted: Admitted,
    source: Source,
    emulations: &Arc<Emulations>,
    wire: Wire,
    connect: Bytes,
) -> Drain {
    let dialect = wire.dialect();
    let (outbox, drain) = Outbox::body(&lines.outboxes, dialect.farewell);
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
    let mut conversation = Conversation { link, outbox, inbox, admitted, _entry: entry };
    // Boxed, so that an idle session does not keep room for its beginning.
    let opening = Box::pin(async move {
        conversation.open(connect).await;
        conversation
    });
    lines.tracker.spawn(async move {
        let mut conversation = opening.await;
        conversation.run().await;
    });
    drain
}

/// What an idle session keeps.
struct Conversation {
    link: Link,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    admitted: Admitted,
    _entry: Entry,
}

impl Conversation {
    async fn open(&mut self, connect: Bytes) {
        self.link.frame(&connect).await;
        self.admitted.authenticated();
        if !self.link.is_authenticated() && !self.outbox.is_closed() {
            // The answer says why; the SDK comes back with a new request, since this one cannot carry a second connect.
            self.outbox.close_with(Disconnect::ConnectionClosed, Bytes::new());
        }
    }

    async fn run(&mut self) {
        while !self.outbox.is_closed() {
            tokio::select! {
                frame = self.inbox.next() => match frame {
                    Some(frame) => Box::pin(self.link.frame(&frame)).await,
                    None => self.outbox.close(Disconnect::ServerError),
                },
                _ = self.outbox.closed() => {}
            }
        }
    }
}
