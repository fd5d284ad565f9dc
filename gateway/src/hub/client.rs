//! One connected client, as those who deliver to it see it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
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
}

impl Client {
    /// A client whose token says `claims`.
    pub fn new(
        info: ClientInfo,
        dialect: &'static Dialect,
        outbox: Arc<Outbox>,
        claims: Arc<Claims>,
    ) -> Self {
        Self { info, dialect, outbox, awaits_pong: AtomicBool::new(false), claims: Mutex::new(claims) }
    }

    /// Sends bytes that are framed already. Never waits.
    pub fn send(&self, bytes: Bytes, class: Class) {
        if !bytes.is_empty() {
            self.outbox.send(bytes, class);
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&self) {
        self.awaits_pong.store(true, Ordering::Relaxed);
        self.send((self.dialect.ping)(), Class::Durable);
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

    /// Ends the connection.
    pub fn close(&self, reason: Disconnect) {
        self.outbox.close(reason);
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
