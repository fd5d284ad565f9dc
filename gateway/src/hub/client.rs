//! One connected client, as those who deliver to it see it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{
    auth::Claims,
    domain::{ClientInfo, Disconnect},
};

use crate::{
    dialect::Dialect,
    outbox::{Class, Outbox},
};

/// In [`Client::turns`], beside their number: the client is being sent away.
const LEAVING: u32 = 1 << 31;

/// One authenticated connection.
#[derive(Debug)]
pub struct Client {
    /// Who it is, as other members see it.
    pub info: ClientInfo,
    /// How it wants to be spoken to.
    pub dialect: &'static Dialect,
    /// The only way to it.
    pub outbox: Arc<Outbox>,
    /// Whether a ping is out that was not answered yet.
    awaits_pong: AtomicBool,
    /// What its present token says.
    claims: Mutex<Arc<Claims>>,
    /// How much of what it asked for is not answered yet.
    turns: AtomicU32,
}

impl Client {
    /// A client whose token says `claims`.
    pub fn new(
        info: ClientInfo,
        dialect: &'static Dialect,
        outbox: Arc<Outbox>,
        claims: Arc<Claims>,
    ) -> Self {
        Self {
            info,
            dialect,
            outbox,
            awaits_pong: AtomicBool::new(false),
            claims: Mutex::new(claims),
            turns: AtomicU32::new(0),
        }
    }

    /// Sends bytes that are framed already. Never waits.
    pub fn send(&self, bytes: Bytes, class: Class) {
        if !bytes.is_empty() {
            self.outbox.send(bytes, class);
        }
    }

    /// Asks for a sign of life, where the transport beneath does not.
    pub fn ping(&self) {
        let ping = (self.dialect.ping)();
        if !ping.is_empty() {
            self.awaits_pong.store(true, Ordering::Relaxed);
            self.send(ping, Class::Durable);
        }
    }

    /// The client has given a sign of life. False when none was asked for.
    pub fn pong(&self) -> bool {
        self.awaits_pong.swap(false, Ordering::Relaxed)
    }

    /// Whether a ping is out that was not answered yet.
    pub fn awaits_pong(&self) -> bool {
        self.awaits_pong.load(Ordering::Relaxed)
    }

    /// The second since 1970 at which its token's time is over.
    pub fn expires(&self) -> u64 {
        self.claims.lock().expires
    }

    /// What its present token says.
    pub fn claims(&self) -> Arc<Claims> {
        Arc::clone(&self.claims.lock())
    }

    /// A new token was shown. Returns what the one before it said.
    pub fn renew(&self, claims: Arc<Claims>) -> Arc<Claims> {
        std::mem::replace(&mut self.claims.lock(), claims)
    }

    /// Begins something that will be answered. `None` when the client is being sent away: it does its own again elsewhere.
    pub fn begin(self: &Arc<Self>) -> Option<Turn> {
        let before = self.turns.fetch_add(1, Ordering::AcqRel);
        let turn = Turn(Arc::clone(self));
        (before & LEAVING == 0).then_some(turn)
    }

    /// Sends it away to another node, once everything that it asked for before is answered.
    pub fn send_away(&self) {
        if self.turns.fetch_or(LEAVING, Ordering::AcqRel) == 0 {
            self.close(Disconnect::Shutdown);
        }
    }

    /// Ends the connection.
    pub fn close(&self, reason: Disconnect) {
        self.outbox.close(reason);
    }
}

/// Something that a client asked for and that is not answered yet; dropped once the answer is sent.
#[derive(Debug)]
pub struct Turn(Arc<Client>);

impl Clone for Turn {
    fn clone(&self) -> Self {
        self.0.turns.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.turns.fetch_sub(1, Ordering::AcqRel) == LEAVING | 1 {
            self.0.close(Disconnect::Shutdown);
        }
    }
}

/// One client's place in one conversation, shared by its session and the room.
#[derive(Debug)]
pub struct Subscription {
    /// Whether it wants to see others join and leave.
    pub join_leave: bool,
    /// Whether the server made it, so that the client cannot simply ask again for what it missed.
    pub server_side: bool,
    ended: AtomicBool,
}

impl Subscription {
    /// A subscription that is alive.
    pub fn new(join_leave: bool, server_side: bool) -> Arc<Self> {
        Arc::new(Self { join_leave, server_side, ended: AtomicBool::new(false) })
    }

    /// Whether the server has ended it.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends it from the server's side.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}
