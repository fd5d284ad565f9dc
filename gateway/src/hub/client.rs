//! One connected client, as those who deliver to it see it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use shared::domain::{ClientInfo, Disconnect};

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
    /// The second since 1970 at which its token's time is over.
    expires: AtomicU64,
}

impl Client {
    /// A client whose token is valid until the second `expires`.
    pub fn new(info: ClientInfo, dialect: &'static Dialect, outbox: Arc<Outbox>, expires: u64) -> Self {
        Self { info, dialect, outbox, awaits_pong: AtomicBool::new(false), expires: AtomicU64::new(expires) }
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
        self.expires.load(Ordering::Relaxed)
    }

    /// A new token was shown.
    pub fn renew(&self, expires: u64) {
        self.expires.store(expires, Ordering::Relaxed);
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
