//! One Engine.IO connection: its transport, its heartbeat, and the messages that wait to be done.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use shared::domain::Disconnect;
use tokio::{sync::Notify, time::Instant};

use super::{Application, EngineConfig, Message};
use crate::{
    frame::encode,
    limits::{self, Limit},
    outbox::{Class, Farewell, Outbox},
    protocol::engineio::{CLOSE, PING, Packet, Transport},
};

/// One connection.
pub struct Socket {
    pub(super) sid: Arc<str>,
    pub(super) outbox: Arc<Outbox>,
    state: Mutex<State>,
    /// Told when the transport changes.
    pub(super) changed: Notify,
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct State {
    carrier: Carrier,
    /// Whether a request is fetching.
    is_fetching: bool,
    /// Whether a request is bringing messages.
    is_posting: bool,
    beat: Beat,
    /// When the client must have said who it is; `None` once it has.
    settle_by: Option<Instant>,
    ended: Option<Instant>,
}

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Polling,
    /// Polling, and a WebSocket is about to take over; whether its probe was answered.
    Probing {
        answered: bool,
    },
    WebSocket,
}

/// Where a connection is between two pings.
#[derive(Debug, Clone, Copy)]
enum Beat {
    /// The next ping is due then.
    Due(Instant),
    /// A ping is out, and must be answered by then.
    Awaited(Instant),
}

/// What is to be done, and who does it.
struct Desk {
    /// Each with whether it is early.
    waiting: VecDeque<(Message, bool)>,
    /// `None` while somebody is at work, and after the end.
    application: Option<Box<dyn Application>>,
    is_closed: bool,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is something to do.
    Message,
    /// That was all.
    Nothing,
    /// The client ends the connection.
    Close,
    /// The client breaks the protocol.
    Violation,
}

impl Socket {
    pub(super) fn new(
        sid: Arc<str>,
        transport: Transport,
        outbox: Arc<Outbox>,
        application: Box<dyn Application>,
        config: &EngineConfig,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            carrier: if transport == Transport::WebSocket { Carrier::WebSocket } else { Carrier::Polling },
            is_fetching: false,
            is_posting: false,
            beat: Beat::Due(now + config.ping_interval),
            settle_by: (!application.is_settled()).then(|| now + config.connect_time_max),
            ended: None,
        };
        let desk = Desk { waiting: VecDeque::new(), application: Some(application), is_closed: false };
        Self { sid, outbox, state: Mutex::new(state), changed: Notify::new(), desk: Mutex::new(desk) }
    }

    /// When it has to be looked after first.
    pub(super) fn due(&self, config: &EngineConfig) -> Instant {
        self.state.lock().next(config)
    }

    pub(super) fn carrier(&self) -> Carrier {
        self.state.lock().carrier
    }

    /// When it ended, if it has.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.state.lock().ended
    }

    /// Changes from one carrier to another; false when it was not carried by that.
    pub(super) fn change(&self, from: Carrier, to: Carrier) -> bool {
        {
            let mut state = self.state.lock();
            if state.carrier != from || state.ended.is_some() {
                return false;
            }
            state.carrier = to;
        }
        self.changed.notify_waiters();
        true
    }

    /// Begins to fetch; false when somebody does already.
    pub(super) fn begin_fetch(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_fetching, true)
    }

    pub(super) fn end_fetch(&self) {
        self.state.lock().is_fetching = false;
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.state.lock().is_fetching
    }

    /// Begins to bring messages; false when somebody does already.
    pub(super) fn begin_post(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_posting, true)
    }

    pub(super) fn end_post(&self) {
        self.state.lock().is_posting = false;
    }

    /// Pings if it is time. Returns when to look again.
    pub(super) fn beat(&self, config: &EngineConfig, now: Instant) -> Result<Instant, Disconnect> {
        let mut state = self.state.lock();
        if state.settle_by.is_some_and(|by| now >= by) {
            limits::refused(Limit::AuthenticateSeconds);
            return Err(Disconnect::Stale);
        }
        match state.beat {
            Beat::Due(at) if now >= at => {
                // Whoever listens is asked now; whoever does not was to be there when the ping was due.
                let is_heard = state.is_fetching || state.carrier == Carrier::WebSocket;
                let asked = if is_heard { now } else { at };
                state.beat = Beat::Awaited(asked + config.ping_timeout);
                self.outbox.send(encode::text(PING), Class::Durable);
            }
            Beat::Awaited(by) if now >= by => {
                limits::refused(Limit::IdleSeconds);
                return Err(Disconnect::NoPong);
            }
            Beat::Due(_) | Beat::Awaited(_) => {}
        }
        Ok(state.next(config))
    }

    /// Whether a client that has not been heard for long should be gone, though the wheel has not come by yet.
    pub(super) fn is_overdue(&self, config: &EngineConfig, now: Instant) -> bool {
        match self.state.lock().beat {
            Beat::Due(at) => now >= at + config.ping_timeout,
            Beat::Awaited(by) => now >= by,
        }
    }

    /// Takes a packet of an open connection.
    pub(super) fn hear(&self, packet: Packet, is_early: bool, config: &EngineConfig) -> Heard {
        match packet {
            Packet::Text(text) => self.lay_down(Message::Text(text), is_early),
            Packet::Binary(bytes) => self.lay_down(Message::Binary(bytes), is_early),
            Packet::Pong => {
                let mut state = self.state.lock();
                if let Beat::Awaited(_) = state.beat {
                    state.beat = Beat::Due(Instant::now() + config.ping_interval);
                }
                Heard::Nothing
            }
            Packet::Close => Heard::Close,
            Packet::Ping { .. } => Heard::Violation,
            Packet::Upgrade | Packet::Ignored => Heard::Nothing,
        }
    }

    fn lay_down(&self, message: Message, is_early: bool) -> Heard {
        self.desk.lock().waiting.push_back((message, is_early));
        Heard::Message
    }

    /// Does what waits, unless somebody is at it already.
    ///
    /// # Errors
    /// The reason for which the connection is to end.
    pub(super) async fn work(&self) -> Result<(), Disconnect> {
        loop {
            let Some((mut application, (message, is_early))) = self.desk.lock().take() else { return Ok(()) };
            let done = application.message(message, is_early).await;
            if application.is_settled() {
                self.state.lock().settle_by = None;
            }
            let rest = self.desk.lock().give_back(application);
            // Dropped here, where no lock is held: it says good-bye to many.
            drop(rest);
            done?;
        }
    }

    /// Nothing is done any more.
    pub(super) fn end(&self) {
        self.state.lock().ended.get_or_insert_with(Instant::now);
        let application = {
            let mut desk = self.desk.lock();
            desk.is_closed = true;
            desk.waiting.clear();
            desk.application.take()
        };
        drop(application);
        self.changed.notify_waiters();
    }

    /// Closes the outbox: a request that fetches gets a close packet, a WebSocket the farewell.
    pub(super) fn hang_up(&self, reason: Disconnect, farewell: Farewell) {
        match self.carrier() {
            Carrier::WebSocket => self.outbox.close_with(reason, farewell(reason)),
            _ if self.is_fetching() => self.outbox.close_with(reason, encode::text(CLOSE)),
            _ => self.outbox.close(Disconnect::ConnectionClosed),
        }
    }
}

impl State {
    fn next(&self, config: &EngineConfig) -> Instant {
        let next = match self.beat {
            Beat::Due(at) | Beat::Awaited(at) => at,
        };
        // A wheel that is asked for a time that has passed comes by at its next turn.
        self.settle_by.map_or(next, |by| by.min(next)).min(Instant::now() + config.ping_interval)
    }
}

impl Desk {
    fn take(&mut self) -> Option<(Box<dyn Application>, (Message, bool))> {
        self.application.as_ref()?;
        let message = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            // An idle connection keeps no room for messages.
            self.waiting = VecDeque::new();
        }
        self.application.take().map(|application| (application, message))
    }

    /// Returns what is not needed any more.
    fn give_back(&mut self, application: Box<dyn Application>) -> Option<Box<dyn Application>> {
        if self.is_closed {
            return Some(application);
        }
        self.application = Some(application);
        None
    }
}
