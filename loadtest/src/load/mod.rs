//! Many clients that speak at a pace that nothing slows down, in several processes.
//!
//! A [`Fleet`] starts workers (this program again), each with its share of the clients on one thread, and gathers what they
//! count each second. Delays are measured from when a message was due, not from when it could be sent. Every delivery is
//! held against what was sent. Deliberately absent: what a scenario means, and any judgement.

mod fleet;
mod frame;
mod handle;
mod hear;
mod inbox;
mod open;
mod plan;
mod response;
mod seat;
mod uplink;
mod worker;

pub use fleet::{Fleet, FleetOptions, Moment, Over, Second, Stretch, run_name};
pub use plan::{Assignment, Load, Pace, Room, SeatPlan};
pub use seat::NOT_CONNECTED;
pub use worker::run as run_worker;
