//! One client's frames in, answers out.

use std::sync::Arc;

use bytes::Bytes;
use shared::domain::{NodeId, Reply};
use tokio_util::task::TaskTracker;

use super::{Acknowledgements, Lines};
use crate::{
    dialect::Dialect,
    outbox::{Class, Outbox},
    protocol::centrifuge::{self, StreamSession, Tag},
    session::{Outcome, Session, Source},
};

/// What an HTTP client must show to be heard on another request.
#[derive(Debug, Clone)]
pub struct StreamKey {
    /// The secret that names the session.
    pub session: Arc<str>,
    /// The node that holds it.
    pub node: NodeId,
}

/// One client's line in Centrifuge JSON, whatever carries it.
pub struct Link {
    session: Session,
    tracker: TaskTracker,
    dialect: &'static Dialect,
    outbox: Arc<Outbox>,
    stream: Option<StreamKey>,
    acknowledgements: Acknowledgements,
}

impl Link {
    pub fn new(
        lines: &Lines,
        dialect: &'static Dialect,
        outbox: Arc<Outbox>,
        stream: Option<StreamKey>,
    ) -> Self {
        let (node, heartbeat) = (Arc::clone(&lines.node), Arc::clone(&lines.heartbeat));
        let session = Session::new(node, heartbeat, dialect, Arc::clone(&outbox));
        let (tracker, acknowledgements) = (lines.tracker.clone(), Acknowledgements::default());
        Self { session, tracker, dialect, outbox, stream, acknowledgements }
    }

    /// Says where the client comes from.
    #[must_use]
    pub fn coming_from(self, source: Source) -> Self {
        Self { session: self.session.coming_from(source), ..self }
    }

    /// Whether the client has said who it is.
    pub fn is_authenticated(&self) -> bool {
        self.session.is_authenticated()
    }

    /// Does all that one frame asks, one command after the other, and answers in one frame where it can.
    pub async fn frame(&mut self, frame: &[u8]) {
        let Ok(turn) = self.session.begin() else { return };
        let commands = match centrifuge::decode(frame) {
            Ok(commands) => commands,
            Err(reason) => return self.outbox.close(reason),
        };
        let mut answers = Vec::new();
        for (tag, command) in commands {
            if self.outbox.is_closed() {
                return;
            }
            let encoder = Encoder { tag, dialect: self.dialect, stream: self.stream.clone() };
            match self.session.handle(command, &|reply| encoder.frame(reply)).await {
                Outcome::Reply(reply) => encoder.append(&reply, &mut answers),
                Outcome::Later(reply) => {
                    let permit = tokio::select! {
                        permit = self.acknowledgements.place() => permit,
                        // The store may not answer for long, and nobody waits for it here any more.
                        _ = self.outbox.closed() => return,
                    };
                    let outbox = Arc::clone(&self.outbox);
                    let turn = turn.clone();
                    self.tracker.spawn(async move {
                        let _held = (permit, turn);
                        outbox.send(encoder.frame(&reply.await), Class::Durable);
                    });
                }
                Outcome::Done => {}
                Outcome::Close(reason) => {
                    self.send(&answers);
                    return self.outbox.close(reason);
                }
            }
        }
        self.send(&answers);
    }

    fn send(&self, answers: &[u8]) {
        if !answers.is_empty() {
            self.outbox.send((self.dialect.frame)(answers), Class::Durable);
        }
    }
}

/// Encodes the answer to one command.
struct Encoder {
    tag: Tag,
    dialect: &'static Dialect,
    stream: Option<StreamKey>,
}

impl Encoder {
    fn encode(&self, reply: &Reply, out: &mut Vec<u8>) {
        let stream =
            self.stream.as_ref().map(|key| StreamSession { session: &key.session, node: key.node.as_str() });
        centrifuge::reply(self.tag, reply, stream, out);
    }

    fn frame(&self, reply: &Reply) -> Bytes {
        let mut line = Vec::new();
        self.encode(reply, &mut line);
        (self.dialect.frame)(&line)
    }

    fn append(&self, reply: &Reply, answers: &mut Vec<u8>) {
        let before = answers.len();
        if before > 0 {
            answers.push(b'\n');
        }
        let start = answers.len();
        self.encode(reply, answers);
        // A command without an id is not answered; then no line may begin.
        if answers.len() == start {
            answers.truncate(before);
        }
    }
}
