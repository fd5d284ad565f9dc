//! From what was counted to what is reported, and what is not: a number that the tester itself limited.

use super::{Common, setup::Setup};
use crate::{
    load::{Fleet, Moment, Over, Stretch},
    report::{Objective, Report, Used},
    tally::{Delays, Percentiles},
    usage::Machine,
};

/// Share of a core above which a worker may have been what limited the result.
const BUSY_MAX: f64 = 0.85;
/// Share of the time that a worker may have waited for a CPU.
const WAITED_MAX: f64 = 0.25;
/// Share of messages that may have been sent late, and how late that is, in milliseconds.
const LATE_QUANTILE: f64 = 0.95;
const LATE_MS_MAX: f64 = 20.0;

/// What belongs to the whole run.
pub struct Frame {
    pub scenario: &'static str,
    pub common: Common,
    pub connections: usize,
    pub rooms: usize,
    /// What the server used before anybody was connected.
    pub empty: Moment,
}

impl Frame {
    /// Of a run that is about to start.
    pub async fn new(scenario: &'static str, common: &Common, setup: &Setup) -> anyhow::Result<Self> {
        let (connections, rooms) = setup.size();
        let empty = Fleet::server(&common.pids, &common.metrics).await?;
        Ok(Self { scenario, common: common.clone(), connections, rooms, empty })
    }

    /// The report of a stretch in which messages were sent.
    pub fn report(&self, fleet: &Fleet, stretch: &Stretch) -> Report {
        let (before, after) = (&stretch.before, &stretch.after);
        let measured = after.counts.since(&before.counts);
        let seconds = stretch.measured_seconds();
        let limited = limited(fleet, stretch);
        let told = |delays: &Delays| -> Option<Percentiles> {
            (limited.is_none() && delays.count() > 0).then(|| delays.percentiles())
        };
        let timings = &stretch.timings;
        let mut report = Report {
            scenario: self.scenario.to_owned(),
            command: command(),
            machine: Machine::here(),
            connections: self.connections as u64,
            rooms: self.rooms as u64,
            workers: fleet.workers() as u64,
            seconds,
            total: after.counts.clone(),
            delivery: told(&timings.delivery),
            accept: told(&timings.accept),
            resume: told(&timings.resume),
            late: (timings.late.count() > 0).then(|| timings.late.percentiles()),
            deliveries_per_second: (limited.is_none() && stretch.delivered() > 0)
                .then(|| whole(stretch.delivered()) / seconds),
            server: self.server(stretch),
            tester_cores: cores(measured.cpu_us, seconds),
            measured,
            limited,
            troubles: fleet.troubles(),
            absent: (self.connections as u64).saturating_sub(after.counts.connected),
            over: fleet.over().map(|over| match over {
                Over::Interrupted => "interrupted".to_owned(),
                Over::Gone(why) => why.clone(),
            }),
            is_gone: matches!(fleet.over(), Some(Over::Gone(_))),
            series: stretch.series.clone(),
            ..Report::default()
        };
        if report.limited.is_some() {
            report.series.iter_mut().for_each(|second| second.delay = Percentiles::default());
        }
        report.objectives = self.objectives(&report, stretch);
        report
    }

    fn server(&self, stretch: &Stretch) -> Vec<Used> {
        let (delivered, accepted) = (stretch.delivered(), stretch.accepted());
        let seconds = stretch.measured_seconds();
        let used = stretch.used();
        let processes = used.iter().zip(&stretch.at_end.usage).zip(&self.empty.usage);
        processes
            .map(|((&cpu_us, end), empty)| {
                let each = |count: u64| (count > 0).then(|| whole(cpu_us) / whole(count));
                let grown = end.rss_kib.saturating_sub(empty.rss_kib);
                Used {
                    id: end.id.clone(),
                    name: end.name.clone(),
                    cores: cores(cpu_us, seconds),
                    cpu_us_per_delivery: each(delivered),
                    cpu_us_per_publish: each(accepted),
                    rss_mib: whole(end.rss_kib) / 1_024.0,
                    kib_per_connection: (self.connections > 0)
                        .then(|| whole(grown) / whole(self.connections as u64)),
                }
            })
            .collect()
    }

    fn objectives(&self, report: &Report, stretch: &Stretch) -> Vec<Objective> {
        let wanted = &self.common.objectives;
        let sum = |value: fn(&Used) -> Option<f64>| {
            let values: Vec<f64> = report.server.iter().filter_map(value).collect();
            (!values.is_empty()).then(|| values.iter().sum())
        };
        let failed = report.total.refused() + report.total.unknown();
        let lag = stretch.series.iter().filter_map(|second| second.lag_seconds).reduce(f64::max);
        let all = [
            ("p50 of deliveries, ms", wanted.max_p50_ms, report.delivery.map(|delay| delay.p50)),
            ("p99 of deliveries, ms", wanted.max_p99_ms, report.delivery.map(|delay| delay.p99)),
            ("p99 of resumes, ms", wanted.max_resume_p99_ms, report.resume.map(|delay| delay.p99)),
            (
                "messages refused or unknown, %",
                wanted.max_failed_percent,
                (report.total.publishes > 0).then(|| 100.0 * whole(failed) / whole(report.total.publishes)),
            ),
            ("server CPU for each delivery, µs", wanted.max_cpu_us, sum(|used| used.cpu_us_per_delivery)),
            ("memory for each connection, KiB", wanted.max_kib, sum(|used| used.kib_per_connection)),
            ("persister behind, s", wanted.max_lag_seconds, lag),
            ("growth of memory, %", wanted.max_growth_percent, growth_percent(stretch)),
        ];
        let wanted = all.into_iter().filter_map(|(name, at_most, found)| Some((name, at_most?, found)));
        wanted.map(|(name, at_most, found)| Objective { name: name.to_owned(), at_most, found }).collect()
    }
}

/// How much more memory the server has at the end than after the first tenth, in percent.
pub fn growth_percent(stretch: &Stretch) -> Option<f64> {
    let memory: Vec<f64> = stretch.series.iter().map(|second| second.rss_mib.iter().sum()).collect();
    let tenth = (memory.len() / 10).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a run has few seconds")]
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let early = mean(memory.get(tenth..2 * tenth)?);
    let late = mean(memory.get(memory.len() - tenth..)?);
    (early > 0.0).then(|| 100.0 * (late - early) / early)
}

/// Why the tester itself may have set the numbers, if it may.
pub fn limited(fleet: &Fleet, stretch: &Stretch) -> Option<String> {
    let counts = stretch.at_end.counts.since(&stretch.before.counts);
    let share = |us: u64| cores(us, stretch.measured_seconds()) / whole(fleet.workers() as u64);
    let (busy, waited) = (share(counts.cpu_us), share(counts.waited_us));
    let late = stretch.timings.late.quantile_ms(LATE_QUANTILE);
    if busy > BUSY_MAX {
        Some(format!("the tester used {:.0} % of its cores; give it more --workers", busy * 100.0))
    } else if waited > WAITED_MAX {
        let waited = waited * 100.0;
        Some(format!("the tester waited for a CPU for {waited:.0} % of the time; the machine is too busy"))
    } else if stretch.timings.late.count() > 0 && late > LATE_MS_MAX {
        Some(format!("the tester sent more than 5 % of the messages over {late:.0} ms late"))
    } else {
        None
    }
}

/// CPU time as cores.
pub fn cores(us: u64, seconds: f64) -> f64 {
    whole(us) / 1e6 / seconds.max(0.001)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^52")]
pub fn whole(count: u64) -> f64 {
    count as f64
}

/// The command line without the secret.
fn command() -> String {
    let mut words = vec!["loadtest".to_owned()];
    let mut is_secret = false;
    for word in std::env::args().skip(1) {
        let hidden = std::mem::replace(&mut is_secret, word == "--token-secret");
        words.push(match word.split_once('=') {
            Some(("--token-secret", _)) => "--token-secret=…".to_owned(),
            _ if hidden => "…".to_owned(),
            _ => word,
        });
    }
    words.join(" ")
}
