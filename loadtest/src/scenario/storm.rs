//! Most connections break at once, while messages go on.

use clap::Args;

use super::{
    Common,
    flags::{at_least_one, positive},
    measure::{Frame, whole},
    setup::Setup,
};
use crate::{
    load::{Load, Pace},
    report::Report,
};

/// Longest wait until everyone is back, in seconds.
const BACK_SECONDS_MAX: u32 = 60;

/// Flags of `storm`.
#[derive(Debug, Clone, Args)]
pub struct Storm {
    /// Connections
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    pub connections: usize,
    /// Members of each room
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub members: u16,
    /// Connections, in 100, that stay; they send, and their delays are measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub stay_percent: u8,
    /// Messages in a second, of all who stay together
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    pub rate: f64,
    /// Milliseconds over which those who were cut off come back: 500 is what the stock client does
    #[arg(long, default_value_t = 500)]
    pub spread_ms: u64,
    /// What all scenarios have
    #[command(flatten)]
    pub common: Common,
}

/// Runs `storm`.
pub async fn run(flags: &Storm) -> anyhow::Result<Report> {
    let setup = setup(flags).await?;
    let frame = Frame::new("storm", &flags.common, &setup).await?;
    let (mut fleet, _) = setup.start().await?;
    let seconds = flags.common.seconds();
    let all = f64::from(BACK_SECONDS_MAX) + 2.0 * seconds;
    let load = Load { seconds: all, pace: Pace::PerSecond(flags.rate), typing: 0.0, receipts: 0.0 };
    fleet.begin(0, &load).await?;
    let calm = fleet.watch(flags.common.warmup, seconds).await?;

    fleet.storm(flags.spread_ms).await?;
    let mut stretch = fleet.watch(0, seconds).await?;
    for _ in 0..BACK_SECONDS_MAX {
        if stretch.at_end.counts.connected == flags.connections as u64 || fleet.over().is_some() {
            break;
        }
        let more = fleet.watch(0, 1.0).await?;
        stretch.timings.add(&more.timings);
        stretch.series.extend(more.series);
        (stretch.at_end, stretch.after) = (more.at_end, more.after);
    }
    let delivery_p99 = stretch.timings.delivery.quantile_ms(0.99);
    fleet.settle(&mut stretch).await?;
    stretch.series.splice(0..0, calm.series);
    let mut report = frame.report(&fleet, &stretch);
    let cut = flags.connections - staying(flags);
    for (name, value) in [
        ("connections cut", whole(cut as u64)),
        ("connections back", whole(stretch.timings.resume.count())),
        ("p99 of deliveries before, ms", calm.timings.delivery.quantile_ms(0.99)),
        ("p99 of deliveries meanwhile, ms", delivery_p99),
    ] {
        report.figures.insert(name.to_owned(), value);
    }
    Ok(report)
}

fn staying(flags: &Storm) -> usize {
    (flags.connections * usize::from(flags.stay_percent) / 100).max(1)
}

/// Those who stay are spread over all rooms, so that each room goes on.
async fn setup(flags: &Storm) -> anyhow::Result<Setup> {
    let mut setup = Setup::new(&flags.common);
    let rooms = flags.connections.div_ceil(usize::from(flags.members)).max(1);
    let staying = staying(flags);
    for client in 0..flags.connections {
        let seat = setup.seat(client);
        (seat.publishes, seat.storms) = (client < staying, client >= staying);
    }
    for room in 0..rooms {
        let members: Vec<usize> = (room..flags.connections).step_by(rooms).collect();
        setup.group(&members, &members).await?;
    }
    Ok(setup)
}
