//! What the clients do: one file for each scenario, and what all of them need.
//!
//! Deliberately absent: how it is done (see [`crate::load`]), and how it is shown (see [`crate::report`]).

mod capacity;
mod flags;
mod measure;
mod setup;
mod shapes;
mod storm;

pub use capacity::Capacity;
pub use flags::{Common, Objectives, at_least_one};
pub use shapes::{Chat, Fanout, Idle, Soak};
pub use storm::Storm;

use crate::report::Report;

/// A scenario with its flags.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Scenario {
    /// Connects and does nothing: memory and CPU of an idle connection.
    Idle(Idle),
    /// One room: each message goes to everyone in it.
    Fanout(Fanout),
    /// Many conversations of a few members: messages, typing, read receipts.
    Chat(Chat),
    /// Breaks most connections at once, under load: how soon is everyone back with nothing missed?
    Storm(Storm),
    /// Chat for long: does memory grow, do delays?
    Soak(Soak),
    /// Raises the load step by step until an objective breaks, and says what set the limit.
    Capacity(Capacity),
}

impl Scenario {
    /// Runs it.
    ///
    /// # Errors
    /// When clients cannot connect, or a process that is watched ends.
    pub async fn run(&self) -> anyhow::Result<Report> {
        self.common().check()?;
        match self {
            Self::Idle(idle) => shapes::idle(idle).await,
            Self::Fanout(fanout) => shapes::fanout(fanout).await,
            Self::Chat(chat) => shapes::chat(chat).await,
            Self::Storm(storm) => storm::run(storm).await,
            Self::Soak(soak) => shapes::soak(soak).await,
            Self::Capacity(capacity) => capacity::run(capacity).await,
        }
    }

    /// The flags that all scenarios have.
    pub fn common(&self) -> &Common {
        match self {
            Self::Idle(idle) => &idle.common,
            Self::Fanout(fanout) => &fanout.common,
            Self::Chat(chat) => &chat.common,
            Self::Storm(storm) => &storm.common,
            Self::Soak(soak) => &soak.common,
            Self::Capacity(capacity) => &capacity.common,
        }
    }
}
