//! The workers, as their parent sees them.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    handle::Worker,
    plan::{Assignment, Load, Order, SeatPlan},
};
use crate::{
    clock,
    tally::{Counts, Percentiles, Timings},
    usage::{self, MachineUse, ProcessUse},
};

/// Longest wait until all that is due has come, in seconds.
const SETTLE_SECONDS_MAX: u32 = 60;
/// The exit code of a process that was asked twice to end.
const INTERRUPTED: i32 = 130;
/// For how much longer messages are sent than is to be watched, in seconds, unless they are told to rest.
const SLACK_SECONDS: f64 = 10.0;
/// By how much a second of a run may be short.
const SECOND_TOLERANCE: f64 = 0.25;
/// After so many seconds in which nothing more has come, what is still due is lost.
const QUIET_SECONDS_MAX: u32 = 10;
/// After so many seconds without a single connection the server is gone.
const GONE_SECONDS_MAX: u32 = 10;

/// What a fleet is told about the server.
#[derive(Debug, Clone, Default)]
pub struct FleetOptions {
    /// Worker processes.
    pub workers: usize,
    /// The server's processes.
    pub pids: Vec<u32>,
    /// Addresses of the server's metrics.
    pub metrics: Vec<String>,
}

/// Running workers. Dropping it ends them, and with them all connections.
pub struct Fleet {
    workers: Vec<Worker>,
    options: FleetOptions,
    publishers: usize,
    seats: u64,
    started: Instant,
    progress: fn(&Second, f64),
    /// Whether somebody has asked for the end.
    interrupted: watch::Receiver<bool>,
    /// Seconds since a client was connected last.
    alone_seconds: u32,
    over: Option<Over>,
    last_server: Moment,
}

/// Why a run ends before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// Somebody asked for it.
    Interrupted,
    /// There is no server any more, as far as it can be seen.
    Gone(String),
}

/// One second of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the workers were started.
    pub at: f64,
    /// Connections that are open.
    pub connected: u64,
    /// Messages sent in this second.
    pub publishes: u64,
    /// Deliveries that came in it.
    pub delivered: u64,
    /// Their delays.
    pub delay: Percentiles,
    /// Cores that the server used, by process.
    pub cores: Vec<f64>,
    /// Memory of the server, by process, in MiB.
    pub rss_mib: Vec<f64>,
    /// How far the persister is behind, in seconds, where it says so.
    pub lag_seconds: Option<f64>,
}

/// Everything that was counted and used up to some moment.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// Seconds since the workers were started.
    pub at: f64,
    /// What the workers counted.
    pub counts: Counts,
    /// What the server used.
    pub usage: Vec<ProcessUse>,
    /// What the machine used.
    pub machine: MachineUse,
    /// How far the persister is behind, in seconds.
    pub lag_seconds: Option<f64>,
}

/// A stretch of time, between two moments.
#[derive(Debug, Clone, Default)]
pub struct Stretch {
    /// Before its warm-up, when nothing was under way.
    pub rested: Moment,
    /// Its start.
    pub before: Moment,
    /// Its end.
    pub at_end: Moment,
    /// When all that was due had come, or nobody waited for it any more.
    pub after: Moment,
    /// The delays in between.
    pub timings: Timings,
    /// Its seconds, with those of the warm-up before it.
    pub series: Vec<Second>,
}

impl Stretch {
    /// Seconds between its start and its end.
    pub fn measured_seconds(&self) -> f64 {
        self.at_end.at - self.before.at
    }

    /// CPU time that each process of the server used, in microseconds.
    pub fn used(&self) -> Vec<u64> {
        let pairs = self.at_end.usage.iter().zip(&self.before.usage);
        pairs.map(|(end, start)| end.cpu_us.saturating_sub(start.cpu_us)).collect()
    }

    /// Deliveries between its start and its end.
    pub fn delivered(&self) -> u64 {
        self.at_end.counts.since(&self.before.counts).delivered
    }

    /// Messages that were accepted between its start and its end.
    pub fn accepted(&self) -> u64 {
        self.at_end.counts.since(&self.before.counts).accepted
    }
}

impl Fleet {
    /// Starts the workers, each with its share of the seats; they begin to connect at once.
    ///
    /// # Errors
    /// When a worker cannot be started.
    pub async fn start(
        mut all: Assignment,
        options: FleetOptions,
        progress: fn(&Second, f64),
    ) -> anyhow::Result<Self> {
        let seats = std::mem::take(&mut all.seats);
        let publishers = seats.iter().filter(|seat| seat.publishes).count();
        let count = options.workers.clamp(1, seats.len().max(1));
        let last_server = Self::server(&options.pids, &options.metrics).await?;
        let mut fleet = Self {
            workers: Vec::new(),
            options,
            publishers,
            seats: seats.len() as u64,
            started: Instant::now(),
            progress,
            interrupted: interruption()?,
            alone_seconds: 0,
            over: None,
            last_server,
        };
        let mut shares: Vec<Vec<SeatPlan>> = vec![Vec::new(); count];
        for (at, seat) in seats.into_iter().enumerate() {
            shares[at % count].push(seat);
        }
        #[expect(clippy::cast_precision_loss, reason = "workers are few")]
        let connects_per_second = all.connects_per_second / count as f64;
        for seats in shares {
            fleet
                .workers
                .push(Worker::start(Assignment { connects_per_second, seats, ..all.clone() }).await?);
        }
        Ok(fleet)
    }

    /// Waits until all clients are connected and in their rooms.
    ///
    /// # Errors
    /// When none is any more for this long, or none ever will be.
    pub async fn seated(&mut self, patience: Duration) -> anyhow::Result<Vec<Second>> {
        let (mut best, mut since, mut series) = (0, Instant::now(), Vec::new());
        let mut last = self.moment().await?;
        while last.counts.connected < self.seats {
            let (now, second, _) = self.second(&last, share(best, self.seats)).await?;
            if now.counts.connected > best {
                (best, since) = (now.counts.connected, Instant::now());
            }
            let hopeless = self.workers.iter().find_map(|worker| worker.heard.lock().hopeless.clone());
            let troubles = || self.troubles().join("; ");
            let why = match (hopeless, &self.over) {
                _ if self.interrupted() => Some("interrupted".to_owned()),
                (Some(why), _) if best == 0 => Some(why),
                (_, Some(Over::Gone(why))) => Some(format!("{why}: {}", troubles())),
                _ if since.elapsed() > patience => Some(format!("no more come: {}", troubles())),
                _ => None,
            };
            if let Some(why) = why {
                bail!("{best} of {} clients connected; {why}", self.seats);
            }
            series.push(second);
            last = now;
        }
        Ok(series)
    }

    /// Sends messages as `load` says after a warm-up that is not measured, and waits until all have come.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn run(&mut self, warmup: u32, load: &Load) -> anyhow::Result<Stretch> {
        let rested = self.moment().await?;
        self.begin(warmup, load).await?;
        let mut stretch = self.watch(warmup, load.seconds).await?;
        stretch.rested = rested;
        self.settle(&mut stretch).await?;
        Ok(stretch)
    }

    /// Begins to send messages; `watch` sees what comes of it.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn begin(&mut self, warmup: u32, load: &Load) -> anyhow::Result<()> {
        // It is ended when all was seen, and not before.
        let seconds = load.seconds + f64::from(warmup) + SLACK_SECONDS;
        let load = Load { seconds, ..load.clone() };
        for worker in &mut self.workers {
            let share = load.share(worker.publishers, self.publishers);
            worker.order(&Order::Load(share)).await?;
        }
        Ok(())
    }

    /// Breaks the connections of all clients that a storm hits.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn storm(&mut self, spread_ms: u64) -> anyhow::Result<()> {
        self.order_all(&Order::Storm { spread_ms }).await
    }

    async fn order_all(&mut self, order: &Order) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            worker.order(order).await?;
        }
        Ok(())
    }

    /// Looks on for so many seconds after a warm-up, or until the run is over.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn watch(&mut self, warmup: u32, seconds: f64) -> anyhow::Result<Stretch> {
        let mut stretch = Stretch::default();
        let mut last = self.moment().await?;
        stretch.rested = last.clone();
        let (start, all) = (Instant::now(), f64::from(warmup) + seconds);
        for _ in 0..warmup {
            let (now, second, _) = self.second(&last, start.elapsed().as_secs_f64() / all).await?;
            stretch.series.push(second);
            last = now;
            if self.over.is_some() {
                break;
            }
        }
        stretch.before = last.clone();
        while last.at - stretch.before.at < seconds - SECOND_TOLERANCE && self.over.is_none() {
            let (now, second, timings) = self.second(&last, start.elapsed().as_secs_f64() / all).await?;
            stretch.timings.add(&timings);
            stretch.series.push(second);
            last = now;
        }
        stretch.at_end = last.clone();
        stretch.after = last;
        Ok(stretch)
    }

    /// Sends no more, and waits until all that is due has come, or nothing more comes.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn settle(&mut self, stretch: &mut Stretch) -> anyhow::Result<()> {
        self.order_all(&Order::Rest).await?;
        self.drain(stretch).await?;
        let counts = &stretch.after.counts;
        // Who was cut off from a server that keeps nothing sees what it missed by what comes after it.
        if counts.unrecoverable > 0 && counts.lost() > 0 && counts.connected > 0 {
            self.order_all(&Order::LastWord).await?;
            self.drain(stretch).await?;
        }
        Ok(())
    }

    async fn drain(&mut self, stretch: &mut Stretch) -> anyhow::Result<()> {
        let mut quiet_seconds = 0;
        for _ in 0..SETTLE_SECONDS_MAX {
            let (now, _, timings) = self.second(&stretch.after, 1.0).await?;
            // The latest deliveries belong to the delays, too.
            stretch.timings.add(&timings);
            let new = now.counts.since(&stretch.after.counts);
            let (came, is_back) =
                (new.publishes + new.accepted + new.delivered, now.counts.connected == self.seats);
            let open = now.counts.lost() + now.counts.unknown();
            stretch.after = now;
            quiet_seconds = if came == 0 { quiet_seconds + 1 } else { 0 };
            let is_done = (open == 0 && is_back) || quiet_seconds >= QUIET_SECONDS_MAX || self.is_gone();
            if quiet_seconds > 0 && is_done {
                break;
            }
        }
        Ok(())
    }

    /// Why the run is over before its time, if it is.
    pub fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    fn is_gone(&self) -> bool {
        matches!(self.over, Some(Over::Gone(_)))
    }

    fn interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    /// What went wrong, as the workers told it.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> =
            self.workers.iter().flat_map(|worker| worker.heard.lock().troubles.clone()).collect();
        troubles.sort();
        troubles.dedup();
        troubles
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Everything up to now. A server that has ended has used what it had used before.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn moment(&mut self) -> anyhow::Result<Moment> {
        let counts = self.counts()?;
        Ok(self.moment_of(counts).await)
    }

    fn counts(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        for worker in &self.workers {
            let heard = worker.heard.lock();
            if heard.is_over {
                bail!("a worker has ended: {}", heard.troubles.join("; "));
            }
            counts.add(&heard.counts);
        }
        Ok(counts)
    }

    async fn moment_of(&mut self, counts: Counts) -> Moment {
        let at = self.started.elapsed().as_secs_f64();
        match Self::server(&self.options.pids, &self.options.metrics).await {
            Ok(server) => self.last_server = server,
            // Metrics may be missed once; a process does not come back.
            Err(error) if !self.options.pids.is_empty() && self.over.is_none() => {
                self.over = Some(Over::Gone(format!("the server has ended: {error:#}")));
            }
            Err(_) => {}
        }
        Moment { at, counts, ..self.last_server.clone() }
    }

    /// What the server has used, without any worker.
    ///
    /// # Errors
    /// When one of its processes has ended, or its metrics are not there.
    pub async fn server(pids: &[u32], metrics: &[String]) -> anyhow::Result<Moment> {
        let mut usage = Vec::new();
        for &pid in pids {
            usage.push(usage::process(pid).with_context(|| format!("process {pid}"))?);
        }
        let mut lag_seconds: Option<f64> = None;
        for url in metrics {
            let report = usage::scrape(url).await.with_context(|| url.clone())?;
            // A process that is looked at from outside is not counted twice.
            usage.extend(report.usage.filter(|_| pids.is_empty()));
            lag_seconds = lag_seconds.into_iter().chain(report.lag_seconds).reduce(f64::max);
        }
        let machine = usage::machine().unwrap_or_default();
        Ok(Moment { usage, machine, lag_seconds, ..Moment::default() })
    }

    /// Waits for a second, and says what was in it; `done` is the share of the run that is over, to be shown.
    #[expect(clippy::cast_precision_loss, reason = "CPU time and memory are far below 2^52")]
    async fn second(&mut self, last: &Moment, done: f64) -> anyhow::Result<(Moment, Second, Timings)> {
        // The workers speak about when a second is full; half-way between, all of them have, and none twice.
        let until = self.started + Duration::from_secs_f64((last.at + 0.5).floor() + 0.5);
        let was_interrupted = self.interrupted();
        let interrupted = self.interrupted.wait_for(|interrupted| *interrupted && !was_interrupted);
        tokio::select! {
            () = sleep_until(until) => {}
            Ok(_) = interrupted => {}
        }
        // Counts and delays are of the same looks of the workers: nothing is waited for in between.
        let (counts, mut timings) = (self.counts()?, Timings::default());
        for worker in &self.workers {
            timings.add(&std::mem::take(&mut worker.heard.lock().timings));
        }
        let now = self.moment_of(counts).await;
        self.look_out(&now.counts);
        let counts = now.counts.since(&last.counts);
        let elapsed = (now.at - last.at).max(0.001);
        let pairs = now.usage.iter().zip(&last.usage);
        let second = Second {
            at: now.at,
            connected: counts.connected,
            publishes: counts.publishes,
            delivered: counts.delivered,
            delay: timings.delivery.percentiles(),
            cores: pairs
                .map(|(now, last)| now.cpu_us.saturating_sub(last.cpu_us) as f64 / 1e6 / elapsed)
                .collect(),
            rss_mib: now.usage.iter().map(|usage| usage.rss_kib as f64 / 1_024.0).collect(),
            lag_seconds: now.lag_seconds,
        };
        (self.progress)(&second, done);
        Ok((now, second, timings))
    }

    /// Notices that the run is over before its time.
    fn look_out(&mut self, counts: &Counts) {
        let (was, is_alone) = (self.alone_seconds, counts.connected == 0 && counts.disconnected > 0);
        self.alone_seconds = if is_alone { was + 1 } else { 0 };
        if self.over.is_none() && self.alone_seconds >= GONE_SECONDS_MAX {
            let why = format!("the server is gone: nobody has been connected for {GONE_SECONDS_MAX} s");
            self.over = Some(Over::Gone(why));
        }
        if self.over.is_none() && self.interrupted() {
            self.over = Some(Over::Interrupted);
        }
    }
}

/// Becomes true when the process is asked to end; asked again, it ends at once.
fn interruption() -> anyhow::Result<watch::Receiver<bool>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (said, heard) = watch::channel(false);
    tokio::spawn(async move {
        while !said.is_closed() {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if said.send_replace(true) {
                std::process::exit(INTERRUPTED);
            }
        }
    });
    Ok(heard)
}

#[expect(clippy::cast_precision_loss, reason = "clients are far below 2^52")]
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// When a run begins, and its name.
pub fn run_name() -> (u64, String) {
    let started_us = clock::now_us();
    (started_us, format!("{:x}", started_us / 1_000))
}
