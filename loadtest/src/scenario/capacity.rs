//! How much it takes until something breaks, and what broke it.

use clap::{Args, ValueEnum};

use super::{
    Common,
    flags::positive,
    measure::{Frame, cores, limited, whole},
    shapes::{ChatShape, Fanout, chat_load, chat_setup, fanout_setup},
};
use crate::{
    load::{Load, Moment, Pace, Stretch},
    report::{self, Report, Step},
    usage,
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
    #[arg(long, default_value_t = 100)]
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
    let mut last = Stretch::default();
    let mut resource = String::new();
    while steps.len() < STEPS_MAX {
        let load = load(flags, rate);
        let stretch = fleet.run(flags.common.warmup, &load).await?;
        series.extend(stretch.series.iter().cloned());
        let mut step = step(flags, &stretch, rate);
        let own = limited(&fleet, &stretch);
        if let (Some(own), None) = (&own, &step.broken) {
            step.broken = Some(own.clone());
        }
        let broken = step.broken.is_some();
        steps.push(step);
        let held = last;
        last = stretch;
        if !broken {
            (rate, tries) = (rate * flags.factor, 0);
            continue;
        }
        tries += 1;
        if tries >= TRIES {
            resource = own.map_or_else(|| busy(&last), |own| format!("the tester itself: {own}"));
            last = if held.series.is_empty() { last } else { held };
            break;
        }
    }
    let mut report = frame.report(&fleet, &last);
    let held = steps.iter().rfind(|step| step.broken.is_none());
    report.capacity = Some(report::Capacity {
        publishes_per_second: held.map_or(0.0, |step| step.publishes_per_second),
        deliveries_per_second: held.map_or(0.0, |step| step.deliveries_per_second),
        limit: steps.last().and_then(|step| step.broken.clone()).unwrap_or("nothing broke".to_owned()),
        resource,
    });
    (report.steps, report.series) = (steps, series);
    Ok(report)
}

fn load(flags: &Capacity, rate: f64) -> Load {
    match flags.shape {
        Shape::Fanout => {
            Load { seconds: flags.common.seconds, pace: Pace::PerSecond(rate), typing: 0.0, receipts: 0.0 }
        }
        Shape::Chat => chat_load(&flags.chat, rate, flags.common.seconds),
    }
}

/// What a step came to, and whether it held.
fn step(flags: &Capacity, stretch: &Stretch, rate: f64) -> Step {
    let seconds = stretch.measured_seconds();
    let counts = stretch.after.counts.since(&stretch.before.counts);
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
fn busy(stretch: &Stretch) -> String {
    let seconds = stretch.measured_seconds();
    let used = stretch.used();
    let Moment { usage, machine, .. } = &stretch.at_end;
    let all = usage::Machine::here().cores;
    let idle = whole(machine.idle_us - stretch.before.machine.idle_us)
        / whole((machine.total_us - stretch.before.machine.total_us).max(1));
    let busiest = usage.iter().zip(&used).max_by_key(|(_, used)| **used);
    match busiest {
        _ if idle < MACHINE_IDLE => {
            let shares: Vec<String> = usage
                .iter()
                .zip(&used)
                .map(|(usage, used)| format!("{} {:.2}", usage.name, cores(*used, seconds)))
                .collect();
            format!("the machine's {all} cores had nothing left ({} cores)", shares.join(", "))
        }
        Some((usage, &used)) if cores(used, seconds) > CORE_BUSY => {
            format!("{} used {:.2} cores", usage.name, cores(used, seconds))
        }
        Some(_) => {
            "no watched process and not the machine was busy: look at limits, locks, the network".to_owned()
        }
        None => "not known: give --pid or --metrics of the server".to_owned(),
    }
}
