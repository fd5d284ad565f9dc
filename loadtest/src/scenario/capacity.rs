//! How much it takes until something breaks, and what broke it.

use clap::{Args, ValueEnum};

use super::{
    Common,
    flags::{at_least_one, positive},
    measure::{Frame, cores, limited, whole},
    shapes::{ChatShape, Fanout, chat_load, chat_setup, fanout_setup},
};
use crate::{
    load::{Load, Moment, NOT_CONNECTED, Pace, Stretch},
    report::{self, Report, Step},
    usage::{Machine, ProcessUse},
};

/// What an objective is when none is given: 99 of 100 deliveries in so many milliseconds.
const P99_MS_MAX: f64 = 100.0;
/// Messages, in 100, that may be refused or remain unknown when nothing else is demanded.
const FAILED_PERCENT_MAX: f64 = 0.1;
/// Share of the asked rate below which the deliveries do not follow.
const FOLLOWS_MIN: f64 = 0.95;
/// A step that breaks is tried again so often, since the machine may have been busy with something else.
const TRIES: u32 = 2;
/// Steps at most.
const STEPS_MAX: usize = 40;
/// Share of a core at which a process with one busy thread counts as busy.
const CORE_BUSY: f64 = 0.9;
/// Share of the machine's time without work below which it counts as busy.
const MACHINE_IDLE: f64 = 0.1;

/// Share of the machine's cores above which the tester, when nothing is left of them, may have been what was too much.
const TESTER_SHARE: f64 = 0.25;

/// Share of the machine's cores below which the server and the tester together do not explain that nothing is left of them.
const OWN_SHARE: f64 = 0.5;

/// What the load looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One room.
    Fanout,
    /// Many conversations.
    Chat,
}

/// Flags of `capacity`.
#[derive(Debug, Clone, Args)]
pub struct Capacity {
    /// What the load looks like
    #[arg(long, value_enum, default_value_t = Shape::Fanout)]
    pub shape: Shape,
    /// Members of the room (fanout)
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    pub room: usize,
    /// Messages in a second at the first step
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub from: f64,
    /// Each step asks for so many times more
    #[arg(long, default_value_t = 1.5, value_parser = factor)]
    pub factor: f64,
    /// Who talks with whom (chat)
    #[command(flatten)]
    pub chat: ChatShape,
    /// What all scenarios have; `--seconds` is the length of a step
    #[command(flatten)]
    pub common: Common,
}

fn factor(text: &str) -> Result<f64, String> {
    positive(text)
        .and_then(|number| if number > 1.0 { Ok(number) } else { Err("more than 1 is needed".to_owned()) })
}

/// Runs `capacity`.
pub async fn run(flags: &Capacity) -> anyhow::Result<Report> {
    let setup = match flags.shape {
        Shape::Fanout => {
            let fanout = Fanout {
                members: flags.room,
                publishers: 1.max(flags.room / 100),
                rate: flags.from,
                outstanding: None,
                common: flags.common.clone(),
            };
            fanout_setup(&fanout).await?
        }
        Shape::Chat => chat_setup(&flags.common, &flags.chat).await?,
    };
    let frame = Frame::new("capacity", &flags.common, &setup).await?;
    let (mut fleet, mut series) = setup.start().await?;
    let (mut steps, mut rate, mut tries) = (Vec::<Step>::new(), flags.from, 0);
    let mut held = Stretch::default();
    let mut found = None;
    while steps.len() < STEPS_MAX && found.is_none() && fleet.over().is_none() {
        let stretch = fleet.run(flags.common.warmup, &load(flags, rate)).await?;
        series.extend(stretch.series.iter().cloned());
        let mut step = step(flags, &stretch, rate);
        let own = limited(&fleet, &stretch);
        step.broken = step.broken.or(own.clone());
        let broken = step.broken.clone();
        steps.push(step);
        match broken {
            None => {
                (rate, tries, held) = (rate * flags.factor, 0, stretch);
            }
            Some(broken) => {
                tries += 1;
                if tries >= TRIES {
                    found = Some((broken, cause(&stretch, own)));
                }
                if held.series.is_empty() {
                    held = stretch;
                }
            }
        }
    }
    let mut report = frame.report(&fleet, &held);
    // What is checked is the whole run, and not the last step that held.
    let end = fleet.moment().await?;
    report.absent = report.connections.saturating_sub(end.counts.connected);
    report.total = end.counts;
    let best = steps.iter().rfind(|step| step.broken.is_none());
    let nothing =
        || ("nothing broke".to_owned(), Cause::not_servers("more steps would be needed".to_owned()));
    let (limit, Cause { resource, is_servers }) = found.unwrap_or_else(nothing);
    report.capacity = Some(report::Capacity {
        publishes_per_second: best.map_or(0.0, |step| step.publishes_per_second),
        deliveries_per_second: best.map_or(0.0, |step| step.deliveries_per_second),
        limit,
        resource,
        is_servers,
    });
    (report.steps, report.series) = (steps, series);
    Ok(report)
}

fn load(flags: &Capacity, rate: f64) -> Load {
    match flags.shape {
        Shape::Fanout => {
            Load { seconds: flags.common.seconds(), pace: Pace::PerSecond(rate), typing: 0.0, receipts: 0.0 }
        }
        Shape::Chat => chat_load(&flags.chat, rate, flags.common.seconds()),
    }
}

/// What a step came to, and whether it held. It begins and ends at rest, so that what it lost is what of its own messages, those
/// of its warm-up among them, had not come when nothing more came.
fn step(flags: &Capacity, stretch: &Stretch, rate: f64) -> Step {
    let seconds = stretch.measured_seconds();
    let counts = stretch.after.counts.since(&stretch.rested.counts);
    let delay = stretch.timings.delivery.percentiles();
    let lag_seconds = stretch.series.iter().filter_map(|second| second.lag_seconds).reduce(f64::max);
    let failed = counts.refused() + counts.unknown();
    let mut step = Step {
        publishes_per_second: rate,
        deliveries_per_second: whole(stretch.delivered()) / seconds,
        delay,
        lost: counts.lost(),
        failed,
        lag_seconds,
        cores: stretch.used().into_iter().map(|used| cores(used, seconds)).collect(),
        broken: None,
    };
    let wanted = &flags.common.objectives;
    let p99 = wanted.max_p99_ms.unwrap_or(P99_MS_MAX);
    let failed_max = wanted.max_failed_percent.unwrap_or(FAILED_PERCENT_MAX);
    let failed_percent = 100.0 * whole(failed) / whole(counts.publishes.max(1));
    let due_rate = whole(counts.due) / whole(counts.accepted.max(1)) * rate;
    step.broken = if step.lost > 0 {
        Some(format!("{} deliveries did not come", step.lost))
    } else if counts.repeated + counts.reordered + counts.misdelivered > 0 {
        Some("deliveries came twice, out of order or astray".to_owned())
    } else if failed_percent > failed_max {
        Some(format!("{failed_percent:.2} % of the messages were refused or remain unknown"))
    } else if delay.p99 > p99 {
        Some(format!("p99 {:.0} ms is above {p99:.0} ms", delay.p99))
    } else if wanted.max_p50_ms.is_some_and(|p50| delay.p50 > p50) {
        Some(format!("p50 {:.0} ms is too long", delay.p50))
    } else if wanted.max_lag_seconds.zip(lag_seconds).is_some_and(|(most, lag)| lag > most) {
        Some(format!("the persister is {:.1} s behind", lag_seconds.unwrap_or_default()))
    } else if step.deliveries_per_second < due_rate * FOLLOWS_MIN {
        Some("deliveries do not follow the rate".to_owned())
    } else {
        None
    };
    step
}

/// What had no more to give at the end.
struct Cause {
    resource: String,
    is_servers: bool,
}

impl Cause {
    fn of_server(resource: String) -> Self {
        Self { resource, is_servers: true }
    }

    fn not_servers(resource: String) -> Self {
        Self { resource, is_servers: false }
    }
}

fn cause(stretch: &Stretch, own: Option<String>) -> Cause {
    if let Some(own) = own {
        return Cause::not_servers(own);
    }
    let seconds = stretch.measured_seconds();
    let Moment { usage, machine, counts, .. } = &stretch.at_end;
    let tester = cores(counts.cpu_us.saturating_sub(stretch.before.counts.cpu_us), seconds);
    let used: Vec<(&ProcessUse, f64)> =
        usage.iter().zip(stretch.used().into_iter().map(|used| cores(used, seconds))).collect();
    let is_full = |(usage, used): &&(&ProcessUse, f64)| {
        usage.cores.is_some_and(|all| all < Machine::here().cores && *used > CORE_BUSY * whole(all as u64))
    };
    if let Some((usage, used)) = used.iter().find(is_full) {
        return Cause::of_server(format!(
            "the CPU of {}: it used {used:.2} cores, all that it may",
            usage.name
        ));
    }
    let mut refused = stretch.after.counts.since(&stretch.rested.counts).refused;
    refused.remove(NOT_CONNECTED);
    if let Some((code, count)) = refused.iter().max_by_key(|(_, count)| **count) {
        return Cause::of_server(format!("a limit of the server: it refused {count} messages ({code})"));
    }
    let all = Machine::here().cores;
    let idle = whole(machine.idle_us.saturating_sub(stretch.before.machine.idle_us))
        / whole(machine.total_us.saturating_sub(stretch.before.machine.total_us).max(1));
    if idle < MACHINE_IDLE {
        let shares = used.iter().map(|(usage, used)| format!("{} {used:.2}", usage.name));
        let shares: Vec<String> = shares.chain([format!("the tester {tester:.2}")]).collect();
        let resource = format!("the CPU: the machine's {all} cores had nothing left ({})", shares.join(", "));
        let ours = tester + used.iter().map(|(_, used)| used).sum::<f64>();
        return if tester > TESTER_SHARE * whole(all as u64) {
            Cause::not_servers(format!("{resource}; let the tester run elsewhere"))
        } else if ours < OWN_SHARE * whole(all as u64) {
            Cause::not_servers(format!("{resource}; something else used them"))
        } else {
            Cause::of_server(resource)
        };
    }
    match used.iter().max_by(|one, other| one.1.total_cmp(&other.1)) {
        Some((usage, used)) if *used > CORE_BUSY => {
            Cause::of_server(format!("the CPU of {}, if it has one busy thread: {used:.2} cores", usage.name))
        }
        Some(_) => Cause::of_server(
            "something beside the CPU, since no watched process and not the machine was busy: locks, the network, the disk"
                .to_owned(),
        ),
        None => Cause::not_servers("not known what: give --pid or --metrics of the server".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tally::Counts, usage::MachineUse};

    fn flags() -> Capacity {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            capacity: Capacity,
        }
        <Cli as clap::Parser>::parse_from(["capacity"]).capacity
    }

    /// Ten seconds in which the server used so many of its cores, and the tester so many.
    fn stretch(server: u64, allowed: usize, tester: u64, idle: u64) -> Stretch {
        let usage = |cpu_us| ProcessUse {
            id: "1".to_owned(),
            name: "server".to_owned(),
            cpu_us,
            rss_kib: 0,
            cores: Some(allowed),
        };
        let mut stretch = Stretch::default();
        (stretch.before.usage, stretch.at_end.usage) = (vec![usage(0)], vec![usage(server * 1_000_000)]);
        stretch.at_end.at = 10.0;
        stretch.at_end.counts.cpu_us = tester * 1_000_000;
        stretch.at_end.machine = MachineUse { idle_us: idle, total_us: 100 };
        stretch
    }

    #[test]
    fn what_is_under_way_at_the_end_of_a_step_is_not_lost() {
        let mut stretch = stretch(1, 1, 1, 50);
        // In the warm-up, deliveries came before their acknowledgements.
        let counts =
            |due, delivered| Counts { publishes: due, accepted: due, due, delivered, ..Counts::default() };
        stretch.rested.counts = counts(50, 50);
        stretch.before.counts = counts(60, 64);
        stretch.at_end.counts = counts(160, 158);
        stretch.after.counts = counts(162, 162);
        let found = step(&flags(), &stretch, 10.0);
        assert_eq!((found.lost, found.broken), (0, Some("deliveries do not follow the rate".to_owned())));
        stretch.after.counts = counts(162, 161);
        assert_eq!(step(&flags(), &stretch, 10.0).lost, 1);
    }

    #[test]
    fn the_cause_is_the_servers_only_if_the_tester_had_enough() {
        let full = Machine::here().cores;
        let all = full as u64 * 10;
        assert!(!cause(&stretch(10, full, 1, 50), Some("late".to_owned())).is_servers);
        assert!(!cause(&stretch(all / 2, full, all / 2, 1), None).is_servers);
        assert!(cause(&stretch(all, full, 0, 1), None).is_servers);
        assert!(cause(&stretch(all / 10, full, 0, 1), None).resource.contains("something else"));
        assert!(cause(&stretch(5, full, 1, 50), None).resource.contains("beside the CPU"));
        let mut refusing = stretch(5, full, 1, 1);
        refusing.after.counts.refused = [("111 rate_limited".to_owned(), 7)].into();
        assert!(cause(&refusing, None).resource.contains("111"));
    }
}
