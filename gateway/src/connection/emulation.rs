//! A client whose way in and way out are different HTTP requests: answers and events come on a response that does not
//! end, commands on requests of their own, which any node may get.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::domain::Disconnect;
use tokio::sync::mpsc;
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
    sessions: Mutex<HashMap<String, mpsc::Sender<Bytes>>>,
}

impl Emulations {
    /// Hands commands to a session, if there is one of that name. One that has too many waiting ends, so that its client
    /// comes back and resumes, instead of waiting for answers that never come.
    pub fn hand_over(&self, session: &str, frame: Bytes) {
        let mut sessions = self.sessions.lock();
        if sessions.get(session).is_some_and(|sender| sender.try_send(frame).is_err()) {
            // Without a sender the session sees the end of its commands once it has done those that wait.
            sessions.remove(session);
        }
    }
}

/// Takes the session off the list when its task ends, however it ends.
struct Entry {
    emulations: Weak<Emulations>,
    session: String,
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
    let session = Uuid::new_v4().simple().to_string();
    let key = StreamKey { session: session.clone(), node: lines.node.id.to_string() };
    let (frames, inbox) = mpsc::channel(FRAMES_WAITING_MAX);
    emulations.sessions.lock().insert(session.clone(), frames);
    let entry = Entry { emulations: Arc::downgrade(emulations), session };
    let link = Link::new(lines, dialect, Arc::clone(&outbox), Some(key)).coming_from(source);
    lines.tracker.spawn(async move {
        let _entry = entry;
        run(link, admitted, outbox, connect, inbox).await;
    });
    drain
}

async fn run(
    mut link: Link,
    mut admitted: Admitted,
    outbox: Arc<Outbox>,
    connect: Bytes,
    mut inbox: mpsc::Receiver<Bytes>,
) {
    link.frame(&connect).await;
    admitted.authenticated();
    if !link.is_authenticated() && !outbox.is_closed() {
        // The answer says why; the SDK comes back with a new request, since this one cannot carry a second connect.
        outbox.close_with(Disconnect::ConnectionClosed, Bytes::new());
    }
    while !outbox.is_closed() {
        tokio::select! {
            frame = inbox.recv() => match frame {
                Some(frame) => link.frame(&frame).await,
                None => outbox.close(Disconnect::ServerError),
            },
            _ = outbox.closed() => {}
        }
    }
}
