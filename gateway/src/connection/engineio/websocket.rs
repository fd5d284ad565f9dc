//! WebSockets: from the first byte, or taking over from polling.

use std::{io, sync::Arc, time::Duration};

use shared::domain::Disconnect;
use tokio::{
    net::tcp::OwnedWriteHalf,
    time::{Instant, timeout_at},
};

use super::{
    Engine, Make, Socket, UPGRADE_SECONDS_MAX,
    socket::{Carrier, Heard},
};
use crate::{
    connection::websocket::{next, refuse},
    frame::{FrameError, encode},
    outbox::Class,
    protocol::engineio::{EngineError, PROBE_ANSWER, Packet, Transport, packet_of_frame},
    socket::{Incoming, Reader, UpgradeHandle},
};

impl Engine {
    /// Converses with a client that has come by WebSocket, until either side ends the connection.
    pub fn converse(
        self: &Arc<Self>,
        upgrade: UpgradeHandle,
        make: Make,
    ) -> impl Future<Output = ()> + use<> {
        let engine = Arc::clone(self);
        listen(async move {
            let (reader, write) = match upgrade.raw().await {
                Ok(raw) => raw.split(engine.frames()),
                Err(error) => {
                    tracing::debug!(%error, "a client was gone before its WebSocket was open");
                    return None;
                }
            };
            let socket = engine.open(Transport::WebSocket, make);
            socket.outbox.attach(write);
            Some(Listener { engine, socket, reader })
        })
    }

    /// The connection that a WebSocket with this session id wants to take over.
    ///
    /// # Errors
    /// When there is none.
    pub fn find_to_upgrade(&self, sid: &str) -> Result<Arc<Socket>, EngineError> {
        let socket = self.find(sid)?;
        if socket.ended().is_some() { Err(EngineError::SessionUnknown) } else { Ok(socket) }
    }

    /// Lets a WebSocket take a connection over, if it is one that polls; then converses.
    pub fn take_over(
        self: &Arc<Self>,
        socket: Arc<Socket>,
        upgrade: UpgradeHandle,
    ) -> impl Future<Output = ()> + use<> {
        let engine = Arc::clone(self);
        listen(async move {
            let (mut reader, write) = upgrade.raw().await.ok()?.split(engine.frames());
            if !socket.change(Carrier::Polling, Carrier::Probing { answered: false }) {
                return None;
            }
            let deadline = Instant::now() + Duration::from_secs(UPGRADE_SECONDS_MAX);
            let probe = Probe { socket: &socket, reader: &mut reader, write };
            let probed = tokio::select! {
                probed = timeout_at(deadline, probe.run()) => probed.ok().flatten(),
                _ = socket.outbox.closed() => None,
            };
            if let Some(write) = probed
                && socket.change(Carrier::Probing { answered: true }, Carrier::WebSocket)
            {
                socket.outbox.attach(write);
                return Some(Listener { engine, socket, reader });
            }
            // It goes on polling as if nothing had been.
            let _ = socket.change(Carrier::Probing { answered: false }, Carrier::Polling)
                || socket.change(Carrier::Probing { answered: true }, Carrier::Polling);
            None
        })
    }
}

/// Listens to a client once its WebSocket is there, until either side ends the connection.
fn listen(opening: impl Future<Output = Option<Listener>>) -> impl Future<Output = ()> {
    // Boxed, so that an idle connection does not keep room for what comes before and after.
    let opening = Box::pin(opening);
    async move {
        let Some(mut listener) = opening.await else { return };
        listener.run().await;
        Box::pin(listener.end()).await;
    }
}

/// What an idle connection keeps.
struct Listener {
    engine: Arc<Engine>,
    socket: Arc<Socket>,
    reader: Reader,
}

impl Listener {
    async fn run(&mut self) {
        let Self { engine, socket, reader } = self;
        let (outbox, mut is_early) = (&socket.outbox, false);
        while !outbox.is_closed() {
            tokio::select! {
                () = reader.ready() => {}
                _ = outbox.closed() => break,
            }
            if let Some(incoming) = Box::pin(next(reader, outbox)).await {
                engine.heed(socket, incoming, is_early).await;
            }
            is_early = reader.has_more();
        }
    }

    async fn end(self) {
        let Self { engine, socket, reader } = self;
        engine.forget(&socket);
        socket.end();
        reader.linger().await;
    }
}

impl Engine {
    async fn heed(
        self: &Arc<Self>,
        socket: &Arc<Socket>,
        incoming: Result<Incoming, FrameError>,
        is_early: bool,
    ) {
        let outbox = &socket.outbox;
        let heard = match incoming {
            Ok(Incoming::Text(frame)) => {
                let hear = |packet| socket.hear(packet, is_early, &self.config);
                packet_of_frame(&frame).map_or(Heard::Violation, hear)
            }
            Ok(Incoming::Binary(frame)) => socket.hear(Packet::Binary(frame), is_early, &self.config),
            Ok(Incoming::Ping(payload)) => return outbox.send(encode::pong(&payload), Class::Ephemeral),
            Ok(Incoming::Pong) => return,
            Ok(Incoming::Close { code }) => {
                return outbox.close_with(Disconnect::ConnectionClosed, encode::close_answer(code));
            }
            Ok(Incoming::Eof) => return outbox.close(Disconnect::ConnectionClosed),
            Err(error) => return refuse(outbox, error),
        };
        match heard {
            // Boxed, so that an idle connection does not keep room for what handling a message needs.
            Heard::Message => {
                if let Err(reason) = Box::pin(socket.work()).await {
                    self.end(socket, reason);
                }
            }
            Heard::Nothing => {}
            Heard::Close => outbox.close_with(Disconnect::ConnectionClosed, encode::close_answer(None)),
            Heard::Violation => self.end(socket, Disconnect::BadRequest),
        }
    }
}

/// A WebSocket that shows that it works, before it takes over.
struct Probe<'a> {
    socket: &'a Arc<Socket>,
    reader: &'a mut Reader,
    write: OwnedWriteHalf,
}

impl Probe<'_> {
    /// The write half, once the client has said that it has stopped polling. Not cancel-safe, as reading is not: dropped, the
    /// WebSocket is of no use any more.
    async fn run(mut self) -> Option<OwnedWriteHalf> {
        let mut is_answered = false;
        loop {
            match self.reader.next().await.ok()? {
                Incoming::Text(frame) => match packet_of_frame(&frame).ok()? {
                    Packet::Ping { is_probe: true } => {
                        self.say(&encode::text(PROBE_ANSWER)).await.ok()?;
                        let (before, after) =
                            (Carrier::Probing { answered: false }, Carrier::Probing { answered: true });
                        if !is_answered && !self.socket.change(before, after) {
                            return None;
                        }
                        is_answered = true;
                    }
                    Packet::Upgrade if is_answered => return Some(self.write),
                    _ => return None,
                },
                Incoming::Ping(payload) => self.say(&encode::pong(&payload)).await.ok()?,
                Incoming::Pong => {}
                Incoming::Binary(_) | Incoming::Close { .. } | Incoming::Eof => return None,
            }
        }
    }

    async fn say(&mut self, mut frame: &[u8]) -> io::Result<()> {
        while !frame.is_empty() {
            self.write.writable().await?;
            match self.write.try_write(frame) {
                Ok(written) => frame = &frame[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
