//! What is said between the tester and its workers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    dialect::{Dialect, Transport},
    tally::{Counts, Timings},
    token::TokenSource,
};

/// What a worker is for: its first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// The protocol.
    pub dialect: Dialect,
    /// What carries it.
    pub transport: Transport,
    /// Where tokens come from; `None` for a server that asks for none.
    pub tokens: Option<TokenSource>,
    /// Names this run, so that nothing of it is taken for something of another.
    pub run: String,
    /// When the run began, in microseconds since 1970.
    pub started_us: u64,
    /// New connections in a second.
    pub connects_per_second: f64,
    /// Bytes of a message's body.
    pub body_bytes: usize,
    /// All rooms of the run.
    pub rooms: Vec<Room>,
    /// The clients of this worker.
    pub seats: Vec<SeatPlan>,
}

/// A room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Its id.
    pub id: String,
    /// How many clients are in it.
    pub members: u64,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatPlan {
    /// Its number among all of the run.
    pub seat: u32,
    /// Who it is.
    pub user: String,
    /// Base URL of the node that it connects to first.
    pub url: String,
    /// The address that it connects from.
    pub source: Option<IpAddr>,
    /// The rooms that it is in, by their place in [`Assignment::rooms`].
    pub rooms: Vec<u32>,
    /// Whether it sends messages.
    pub publishes: bool,
    /// Whether a storm hits it.
    pub storms: bool,
}

/// What a worker is told to do, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Send messages for so long.
    Load(Load),
    /// Send no more messages.
    Rest,
    /// Everybody who has sent something sends one message more, so that who has missed the last one can tell.
    LastWord,
    /// Break all connections that a storm hits, and let them come back, each after at most so many milliseconds.
    Storm {
        /// Over how long the first tries are spread, in milliseconds.
        spread_ms: u64,
    },
}

/// How many messages are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// For how long, in seconds.
    pub seconds: f64,
    /// When the next one is sent.
    pub pace: Pace,
    /// Typing events for each message.
    pub typing: f64,
    /// Read receipts for each message.
    pub receipts: f64,
}

/// When the next message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Open loop: so many in a second of all publishers together, whatever becomes of the ones before.
    PerSecond(f64),
    /// Closed loop: each publisher has so many under way, and sends another when one has come back to it.
    Outstanding(u32),
}

impl Load {
    /// The share of one worker that has `own` of all `publishers`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "connections are far below 2^52")]
    pub fn share(&self, own: usize, publishers: usize) -> Self {
        let pace = match self.pace {
            Pace::PerSecond(rate) => Pace::PerSecond(rate * own as f64 / publishers.max(1) as f64),
            pace @ Pace::Outstanding(_) => pace,
        };
        Self { pace, ..self.clone() }
    }
}

/// What a worker says, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Once a second: what was counted since its start, and the delays since it was last asked.
    Look(Box<Look>),
    /// Something went wrong that people should read; it goes on.
    Trouble(String),
    /// A client cannot get in, and trying again would end the same way.
    Hopeless(String),
}

/// What was counted and measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Look {
    /// Since the worker's start.
    pub counts: Counts,
    /// Since the look before.
    pub timings: Timings,
}
