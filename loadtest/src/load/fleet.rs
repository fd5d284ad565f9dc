//! The workers, as their parent sees them.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    time::{Instant, sleep, sleep_until},
};

use super::plan::{Assignment, Load, Look, Order, Said, SeatPlan};
use crate::{
    clock,
    tally::{Counts, Percentiles, Timings},
    usage::{self, MachineUse, ProcessUse},
};

/// Longest wait until all that is due has come, in seconds.
const DRAIN_SECONDS_MAX: u32 = 10;

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
    progress: fn(&Second),
}

struct Worker {
    #[expect(dead_code, reason = "it is killed when it is dropped")]
    process: Child,
    orders: ChildStdin,
    heard: Arc<Mutex<Heard>>,
    publishers: usize,
}

#[derive(Default)]
struct Heard {
    counts: Counts,
    timings: Timings,
    troubles: Vec<String>,
    is_over: bool,
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
        progress: fn(&Second),
    ) -> anyhow::Result<Self> {
        let seats = std::mem::take(&mut all.seats);
        let publishers = seats.iter().filter(|seat| seat.publishes).count();
        let count = options.workers.clamp(1, seats.len().max(1));
        let mut fleet = Self {
            workers: Vec::new(),
            options,
            publishers,
            seats: seats.len() as u64,
            started: Instant::now(),
            progress,
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
    /// When none is any more for this long.
    pub async fn seated(&mut self, patience: Duration) -> anyhow::Result<Vec<Second>> {
        let (mut best, mut since, mut series) = (0, Instant::now(), Vec::new());
        let mut last = self.moment().await?;
        while last.counts.connected < self.seats {
            let (now, second, _) = self.second(&last).await?;
            if now.counts.connected > best {
                (best, since) = (now.counts.connected, Instant::now());
            } else if since.elapsed() > patience {
                let troubles = self.troubles();
                bail!(
                    "{best} of {} clients connected, and no more come: {}",
                    self.seats,
                    troubles.join("; ")
                );
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
        self.begin(warmup, load).await?;
        let mut stretch = self.watch(warmup, load.seconds).await?;
        stretch.after = self.drained(stretch.at_end.clone()).await?;
        Ok(stretch)
    }

    /// Begins to send messages; `watch` sees what comes of it.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn begin(&mut self, warmup: u32, load: &Load) -> anyhow::Result<()> {
        let load = Load { seconds: load.seconds + f64::from(warmup), ..load.clone() };
        for worker in &mut self.workers {
            let share = load.share(worker.publishers, self.publishers);
            worker.order(&Order::Load(share)).await?;
        }
        Ok(())
    }

    /// Ends all load before its time.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn rest(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            worker.order(&Order::Rest).await?;
        }
        Ok(())
    }

    /// Breaks the connections of all clients that a storm hits.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn storm(&mut self, spread_ms: u64) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            worker.order(&Order::Storm { spread_ms }).await?;
        }
        Ok(())
    }

    /// Looks on for so many seconds after a warm-up.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn watch(&mut self, warmup: u32, seconds: f64) -> anyhow::Result<Stretch> {
        let mut stretch = Stretch::default();
        let mut last = self.moment().await?;
        for _ in 0..warmup {
            let (now, second, _) = self.second(&last).await?;
            stretch.series.push(second);
            last = now;
        }
        stretch.before = last.clone();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            let (now, second, timings) = self.second(&last).await?;
            stretch.timings.add(&timings);
            stretch.series.push(second);
            last = now;
        }
        stretch.at_end = last.clone();
        stretch.after = last;
        Ok(stretch)
    }

    /// Waits until all that is due has come.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn drained(&mut self, mut last: Moment) -> anyhow::Result<Moment> {
        for _ in 0..DRAIN_SECONDS_MAX {
            let (now, ..) = self.second(&last).await?;
            let new = now.counts.since(&last.counts);
            last = now;
            if new.publishes + new.delivered == 0 && last.counts.lost() + last.counts.unknown() == 0 {
                break;
            }
        }
        Ok(last)
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

    /// Everything up to now.
    ///
    /// # Errors
    /// When a worker has ended, or a process of the server.
    pub async fn moment(&self) -> anyhow::Result<Moment> {
        let mut counts = Counts::default();
        for worker in &self.workers {
            let heard = worker.heard.lock();
            if heard.is_over {
                bail!("a worker has ended: {}", heard.troubles.join("; "));
            }
            counts.add(&heard.counts);
        }
        let server = Self::server(&self.options.pids, &self.options.metrics).await?;
        Ok(Moment { at: self.started.elapsed().as_secs_f64(), counts, ..server })
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

    /// Waits for a second, and says what was in it.
    #[expect(clippy::cast_precision_loss, reason = "CPU time and memory are far below 2^52")]
    async fn second(&self, last: &Moment) -> anyhow::Result<(Moment, Second, Timings)> {
        sleep_until(self.started + Duration::from_secs_f64(last.at.floor() + 1.0)).await;
        // The workers speak once a second; whoever is a little late is heard the next time.
        sleep(Duration::ZERO).await;
        let now = self.moment().await?;
        let mut timings = Timings::default();
        for worker in &self.workers {
            timings.add(&std::mem::take(&mut worker.heard.lock().timings));
        }
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
        (self.progress)(&second);
        Ok((now, second, timings))
    }
}

impl Worker {
    async fn start(plan: Assignment) -> anyhow::Result<Self> {
        let publishers = plan.seats.iter().filter(|seat| seat.publishes).count();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let mut orders = process.stdin.take().context("stdin is piped")?;
        let said = process.stdout.take().context("stdout is piped")?;
        orders.write_all(format!("{}\n", serde_json::to_string(&plan)?).as_bytes()).await?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let listener = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut lines = BufReader::new(said).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                listener.lock().hear(&line);
            }
            listener.lock().is_over = true;
        });
        Ok(Self { process, orders, heard, publishers })
    }

    async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(order)?);
        self.orders.write_all(line.as_bytes()).await.context("a worker has ended")
    }
}

impl Heard {
    fn hear(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Said::Look(look)) => {
                let Look { counts, timings } = *look;
                self.counts = counts;
                self.timings.add(&timings);
            }
            Ok(Said::Trouble(trouble)) => self.troubles.push(trouble),
            Err(error) => self.troubles.push(format!("a worker said {line}: {error}")),
        }
    }
}

/// When a run begins, and its name.
pub fn run_name() -> (u64, String) {
    let started_us = clock::now_us();
    (started_us, format!("{:x}", started_us / 1_000))
}
