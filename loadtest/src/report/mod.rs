//! What a run found, for people and for programs: a table, JSON, and a page with charts.
//!
//! Deliberately absent: measuring. A number that the tester itself limited is not told, and the report says why.

mod html;
mod text;

pub use html::page;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    load::Second,
    tally::{Counts, Percentiles},
    usage::Machine,
};

/// Everything that a run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// The command that was given, without secrets.
    pub command: String,
    /// The machine of the tester.
    pub machine: Machine,
    /// Clients.
    pub connections: u64,
    /// Rooms.
    pub rooms: u64,
    /// Worker processes.
    pub workers: u64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// What was counted in the whole run.
    pub total: Counts,
    /// What was counted while it was measured.
    pub measured: Counts,
    /// Why delays and rates are not told: the tester was short of CPU itself.
    pub limited: Option<String>,
    /// From when a message was due until it was delivered.
    pub delivery: Option<Percentiles>,
    /// From when a message was due until it was accepted.
    pub accept: Option<Percentiles>,
    /// How late the tester sent.
    pub late: Option<Percentiles>,
    /// From the loss of a connection until it had everything again.
    pub resume: Option<Percentiles>,
    /// Deliveries in a second.
    pub deliveries_per_second: Option<f64>,
    /// What the server used.
    pub server: Vec<Used>,
    /// Cores that the tester used, of those that its workers could use.
    pub tester_cores: f64,
    /// The steps of a search for the capacity.
    pub steps: Vec<Step>,
    /// What the search found.
    pub capacity: Option<Capacity>,
    /// More numbers of the scenario, by name.
    pub figures: BTreeMap<String, f64>,
    /// What was demanded.
    pub objectives: Vec<Objective>,
    /// Clients that were not connected at the end.
    pub absent: u64,
    /// Why the run ended before its time.
    pub over: Option<String>,
    /// It ended since there was no server any more.
    pub is_gone: bool,
    /// What went wrong, in words.
    pub troubles: Vec<String>,
    /// Second by second.
    pub series: Vec<Second>,
}

/// What one process of the server used while it was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Its pid or address.
    pub id: String,
    /// The program.
    pub name: String,
    /// Cores, on average.
    pub cores: f64,
    /// CPU time for each delivery, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// CPU time for each message that was accepted, in microseconds.
    pub cpu_us_per_publish: Option<f64>,
    /// Memory at the end, in MiB.
    pub rss_mib: f64,
    /// Memory that the connections have brought, for each, in KiB.
    pub kib_per_connection: Option<f64>,
}

/// One step of a search for the capacity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Messages in a second that were asked for.
    pub publishes_per_second: f64,
    /// Deliveries in a second that came of it.
    pub deliveries_per_second: f64,
    /// Their delays.
    pub delay: Percentiles,
    /// Deliveries that did not come.
    pub lost: u64,
    /// Messages that were refused, or whose outcome is unknown.
    pub failed: u64,
    /// How far the persister was behind, in seconds.
    pub lag_seconds: Option<f64>,
    /// Cores that the server used, by process.
    pub cores: Vec<f64>,
    /// Why it did not hold.
    pub broken: Option<String>,
}

/// What a search for the capacity found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// The most messages in a second that held.
    pub publishes_per_second: f64,
    /// The deliveries in a second that they made.
    pub deliveries_per_second: f64,
    /// What broke at the next step.
    pub limit: String,
    /// What had no more to give.
    pub resource: String,
    /// Whether that was the server, or what it depends on, and not the tester.
    pub is_servers: bool,
}

/// One thing that was demanded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// What is demanded of.
    pub name: String,
    /// At most this.
    pub at_most: f64,
    /// What was found; `None` when nothing can be said.
    pub found: Option<f64>,
}

impl Objective {
    /// Whether it is known to hold.
    pub fn is_met(&self) -> bool {
        self.found.is_some_and(|found| found <= self.at_most)
    }
}

impl Report {
    /// Whether every delivery came as it should, and everybody was there at the end.
    pub fn is_sound(&self) -> bool {
        self.total.is_clean() && self.absent == 0 && !self.is_gone
    }

    /// Whether nothing is wrong, and all that was demanded holds.
    pub fn is_good(&self) -> bool {
        self.is_sound() && self.objectives.iter().all(Objective::is_met)
    }
}
