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
    socket::{Incoming, RawSocket, Reader},
};

/// Converses with a client until either side ends the connection.
pub async fn converse(
    lines: &Lines,
    mut admitted: Admitted,
    source: Source,
    socket: RawSocket,
    frames: FrameLimits,
) {
    let (read, write) = socket.stream.into_split();
    let dialect = &centrifuge::WEBSOCKET;
    let outbox = Outbox::socket(&lines.outboxes, write, dialect.farewell);
    let mut reader = Reader::new(read, socket.read_ahead, frames);
    {
        let mut link = Link::new(lines, dialect, Arc::clone(&outbox), None).coming_from(source);
        Box::pin(authenticate(lines, &mut reader, &mut link, &outbox)).await;
        admitted.authenticated();
        while !outbox.is_closed() {
            if let Some(incoming) = next(&mut reader, &outbox).await {
                heed(incoming, &mut link, &outbox).await;
            }
        }
    }
    reader.linger().await;
}

/// Only the wait for a frame has an end. What a frame asks is done to its own: dropped half done, it could leave a member
/// behind in a room.
async fn authenticate(lines: &Lines, reader: &mut Reader, link: &mut Link, outbox: &Arc<Outbox>) {
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

/// What the client says next; `None` when the connection is closed meanwhile.
async fn next(reader: &mut Reader, outbox: &Outbox) -> Option<Result<Incoming, FrameError>> {
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
