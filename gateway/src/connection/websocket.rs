//! A client on a WebSocket.

use std::{sync::Arc, time::Duration};

use shared::domain::Disconnect;

use super::{AUTHENTICATE_SECONDS_MAX, Lines, link::Link};
use crate::{
    frame::{FrameError, FrameLimits, encode},
    limits::{self, Admitted, Limit},
    outbox::{Class, Outbox},
    protocol::centrifuge,
    socket::{Incoming, RawSocket, Reader},
};

/// Converses with a client until either side ends the connection.
pub async fn converse(lines: &Lines, mut admitted: Admitted, socket: RawSocket, frames: FrameLimits) {
    let (read, write) = socket.stream.into_split();
    let dialect = &centrifuge::WEBSOCKET;
    let outbox = Outbox::socket(&lines.outboxes, write, dialect.farewell);
    let mut reader = Reader::new(read, socket.read_ahead, frames);
    {
        let mut link = Link::new(lines, dialect, Arc::clone(&outbox), None);
        let patience = Duration::from_secs(AUTHENTICATE_SECONDS_MAX);
        let authenticating = tokio::time::timeout(patience, authenticate(&mut reader, &mut link, &outbox));
        let authenticated = tokio::select! {
            authenticated = authenticating => authenticated,
            () = lines.closing.cancelled() => Ok(outbox.close(Disconnect::Shutdown)),
        };
        if authenticated.is_err() {
            limits::refused(Limit::AuthenticateSeconds);
            outbox.close(Disconnect::Stale);
        }
        admitted.authenticated();
        while !outbox.is_closed() {
            step(&mut reader, &mut link, &outbox).await;
        }
    }
    reader.linger().await;
}

/// Boxed where it is awaited for long, so that an idle connection does not keep room for what handling a frame needs.
async fn authenticate(reader: &mut Reader, link: &mut Link, outbox: &Arc<Outbox>) {
    while !link.is_authenticated() && !outbox.is_closed() {
        step(reader, link, outbox).await;
    }
}

async fn step(reader: &mut Reader, link: &mut Link, outbox: &Arc<Outbox>) {
    // Whichever other branch wins ends the connection, so the read that it drops is not missed.
    let incoming = tokio::select! {
        incoming = reader.next() => incoming,
        _ = outbox.closed() => return,
    };
    match incoming {
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

fn refuse(outbox: &Arc<Outbox>, error: FrameError) {
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
