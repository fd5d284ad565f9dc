//! A client on a WebSocket.

use std::{sync::Arc, time::Duration};

use shared::domain::Disconnect;
use tokio::time::{Instant, timeout_at};

use super::{AUTHENTICATE_SECONDS_MAX, Lines, Source, link::Link};
use crate::{
    frame::{FrameError, FrameLimits, encode},
    limits::{self, Admitted, Limit},
    outbox::{Class, Outbox},
    protocol::centrifuge,
    socket::{Incoming, Reader, UpgradeHandle},
};

/// Converses with a client until either side ends the connection.
pub fn converse(
    lines: Lines,
    admitted: Admitted,
    source: Source,
    upgrade: UpgradeHandle,
    frames: FrameLimits,
) -> impl Future<Output = ()> {
    // Boxed, so that an idle connection does not keep room for what comes before and after.
    let opening = Box::pin(open(lines, admitted, source, upgrade, frames));
    async move {
        let Some(mut conversation) = opening.await else { return };
        conversation.run().await;
        Box::pin(conversation.end()).await;
    }
}

/// What an idle connection keeps.
struct Conversation {
    reader: Reader,
    link: Link,
    outbox: Arc<Outbox>,
    admitted: Admitted,
}

/// Waits for the socket, and then for the client to say who it is.
async fn open(
    lines: Lines,
    admitted: Admitted,
    source: Source,
    upgrade: UpgradeHandle,
    frames: FrameLimits,
) -> Option<Conversation> {
    let (reader, write) = match upgrade.raw().await {
        Ok(socket) => socket.split(frames),
        Err(error) => {
            tracing::debug!(%error, "a client was gone before its WebSocket was open");
            return None;
        }
    };
    let dialect = &centrifuge::WEBSOCKET;
    let outbox = Outbox::socket(&lines.outboxes, write, dialect.farewell);
    let link = Link::new(&lines, dialect, Arc::clone(&outbox), None).coming_from(source);
    let mut conversation = Conversation { reader, link, outbox, admitted };
    conversation.authenticate(&lines).await;
    conversation.admitted.authenticated();
    Some(conversation)
}

impl Conversation {
    /// Only the wait for a frame has an end. What a frame asks is done to its own: dropped half done, it could leave a member
    /// behind in a room.
    async fn authenticate(&mut self, lines: &Lines) {
        let Self { reader, link, outbox, .. } = self;
        let deadline = Instant::now() + Duration::from_secs(AUTHENTICATE_SECONDS_MAX);
        while !link.is_authenticated() && !outbox.is_closed() {
            let said = tokio::select! {
                said = timeout_at(deadline, next(reader, outbox)) => said,
                () = lines.closing.cancelled() => return outbox.close(Disconnect::Shutdown),
            };
            match said {
                Ok(Some(incoming)) => heed(incoming, link, outbox).await,
                Ok(None) => {}
                Err(_) => {
                    limits::refused(Limit::AuthenticateSeconds);
                    outbox.close(Disconnect::Stale);
                }
            }
        }
    }

    async fn run(&mut self) {
        let Self { reader, link, outbox, .. } = self;
        while !outbox.is_closed() {
            tokio::select! {
                () = reader.ready() => {}
                _ = outbox.closed() => return,
            }
            if let Some(incoming) = Box::pin(next(reader, outbox)).await {
                heed(incoming, link, outbox).await;
            }
        }
    }

    /// The session ends before the client has taken its last words.
    async fn end(self) {
        let Self { reader, link, outbox: _outbox, admitted: _admitted } = self;
        drop(link);
        reader.linger().await;
    }
}

/// What the client says next; `None` when the connection is closed meanwhile.
pub(super) async fn next(reader: &mut Reader, outbox: &Outbox) -> Option<Result<Incoming, FrameError>> {
    // Whichever other branch wins ends the connection, so the read that it drops is not missed.
    tokio::select! {
        incoming = reader.next() => Some(incoming),
        _ = outbox.closed() => None,
    }
}

async fn heed(incoming: Result<Incoming, FrameError>, link: &mut Link, outbox: &Arc<Outbox>) {
    match incoming {
        // Boxed, so that an idle connection does not keep room for what handling a frame needs.
        Ok(Incoming::Text(frame) | Incoming::Binary(frame)) => Box::pin(link.frame(&frame)).await,
        Ok(Incoming::Ping(payload)) => outbox.send(encode::pong(&payload), Class::Ephemeral),
        Ok(Incoming::Pong) => {}
        Ok(Incoming::Close { code }) => {
            outbox.close_with(Disconnect::ConnectionClosed, encode::close_answer(code));
        }
        Ok(Incoming::Eof) => outbox.close(Disconnect::ConnectionClosed),
        Err(error) => refuse(outbox, error),
    }
}

/// Ends a connection that breaks the WebSocket protocol, with the code that says how.
pub(super) fn refuse(outbox: &Arc<Outbox>, error: FrameError) {
    let last_words = encode::close(error.close_code(), &error.to_string());
    outbox.close_with(Disconnect::BadRequest, last_words);
    let limit = match error {
        FrameError::TooBig => Limit::MessageBytes,
        FrameError::TooManyFragments => Limit::MessageFragments,
        FrameError::TooSlow => Limit::MessageSeconds,
        FrameError::TooManyControlFrames => Limit::ControlFrames,
        _ => return,
    };
    limits::refused(limit);
}
