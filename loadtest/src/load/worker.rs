//! One process of the tester: clients on one thread, told what to do line by line on stdin, and saying what it counted.

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    io::{Write, stdin},
    rc::Rc,
    thread,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    sync::mpsc,
    task::{LocalSet, spawn_local},
    time::{Instant, interval, sleep, sleep_until},
};

use super::{
    plan::{Assignment, Load, Look, Order, Pace, Said},
    seat::Seat,
    uplink::Uplinks,
};
use crate::{
    clock,
    tally::{Counts, Timings},
    usage,
};

/// How often a worker says what it has counted.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The finest step of the pace: all that is due in one is sent together.
const PACE_STEP_US: u64 = 1_000;
/// Bytes that one read takes from a socket.
const READ_BYTES: usize = 64 * 1024;
/// Troubles that one worker tells at most.
const TROUBLES_MAX: u32 = 5;

/// What all clients of a worker share.
pub struct Bench {
    pub plan: Assignment,
    pub counts: RefCell<Counts>,
    pub timings: RefCell<Timings>,
    /// Where bytes are read to: by one client at a time, since there is one thread.
    pub scratch: RefCell<Vec<u8>>,
    /// Where requests go up, for transports that need it.
    pub uplinks: Uplinks,
    /// The server does not know typing or receipts.
    pub signals_refused: Cell<bool>,
    /// No more messages are to be sent.
    rests: Cell<bool>,
    troubles: Cell<u32>,
    is_hopeless: Cell<bool>,
}

impl Bench {
    /// Microseconds since the start of the run.
    pub fn now_us(&self) -> u64 {
        clock::now_us().saturating_sub(self.plan.started_us)
    }

    /// Tells people of the first few troubles.
    pub fn trouble(&self, what: &impl Display) {
        if self.troubles.get() < TROUBLES_MAX {
            self.troubles.set(self.troubles.get() + 1);
            say(&Said::Trouble(what.to_string()));
        }
    }

    /// Tells once that no client will get in.
    pub fn hopeless(&self, why: &impl Display) {
        if !self.is_hopeless.replace(true) {
            say(&Said::Hopeless(why.to_string()));
        }
    }
}

/// Does what stdin says until it ends.
///
/// # Errors
/// When stdin does not begin with an [`Assignment`].
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve())
}

async fn serve() -> anyhow::Result<()> {
    let (said, mut orders) = mpsc::unbounded_channel();
    // Stdin is read by a thread of its own, since it cannot be waited for. It ends with the process.
    thread::spawn(move || stdin().lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
    let first = orders.recv().await.context("no assignment")?;
    let plan: Assignment = serde_json::from_str(&first).context("not an assignment")?;
    let bench = Rc::new(Bench {
        plan,
        counts: RefCell::default(),
        timings: RefCell::default(),
        scratch: RefCell::new(vec![0; READ_BYTES]),
        uplinks: Uplinks::default(),
        signals_refused: Cell::new(false),
        rests: Cell::new(false),
        troubles: Cell::new(0),
        is_hopeless: Cell::new(false),
    });
    let seats: Vec<Rc<Seat>> =
        bench.plan.seats.iter().map(|plan| Rc::new(Seat::new(plan.clone(), Rc::clone(&bench)))).collect();
    let seats: Rc<[Rc<Seat>]> = seats.into();
    spawn_local(look(Rc::clone(&bench)));
    spawn_local(connect(Rc::clone(&seats), bench.plan.connects_per_second));
    while let Some(order) = orders.recv().await {
        match serde_json::from_str(&order).context("not an order")? {
            Order::Load(load) => {
                bench.rests.set(false);
                spawn_local(drive(Rc::clone(&bench), Rc::clone(&seats), load));
            }
            Order::Rest => {
                bench.rests.set(true);
                seats.iter().for_each(|seat| seat.repeats_until_us.set(0));
            }
            Order::LastWord => seats.iter().for_each(Seat::last_word),
            Order::Storm { spread_ms } => {
                for seat in seats.iter().filter(|seat| seat.plan.storms) {
                    seat.cut(rand::random_range(0..=spread_ms));
                }
            }
        }
    }
    Ok(())
}

/// Lets the clients begin one after the other.
async fn connect(seats: Rc<[Rc<Seat>]>, per_second: f64) {
    let start = Instant::now();
    let gap = Duration::from_secs_f64(1.0 / per_second);
    for (at, seat) in (0..).zip(seats.iter()) {
        sleep_until(start + gap * at).await;
        spawn_local(Rc::clone(seat).live());
    }
}

/// Says once a second what was counted.
async fn look(bench: Rc<Bench>) {
    let mut ticks = interval(LOOK_INTERVAL);
    loop {
        ticks.tick().await;
        let mut counts = bench.counts.borrow().clone();
        // A system without these numbers cannot tell whether the tester had enough CPU; the parent says so.
        (counts.cpu_us, counts.waited_us) = usage::own_thread().unwrap_or_default();
        let timings = bench.timings.take();
        say(&Said::Look(Box::new(Look { counts, timings })));
    }
}

async fn drive(bench: Rc<Bench>, seats: Rc<[Rc<Seat>]>, load: Load) {
    let publishers: Vec<Rc<Seat>> = seats.iter().filter(|seat| seat.plan.publishes).cloned().collect();
    if publishers.is_empty() {
        return;
    }
    let now_us = bench.now_us();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a run are few")]
    let until_us = now_us + (load.seconds * 1e6) as u64;
    match load.pace {
        Pace::Outstanding(count) => {
            for seat in &publishers {
                seat.repeats_until_us.set(until_us);
                for _ in 0..count {
                    seat.publish(now_us);
                }
            }
        }
        Pace::PerSecond(rate) => pace(&bench, &publishers, &seats, rate, until_us, &load).await,
    }
}

/// Sends at a rate that nothing slows down, one publisher after the other.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "microseconds of a run and its messages are far below 2^52"
)]
async fn pace(
    bench: &Bench,
    publishers: &[Rc<Seat>],
    seats: &[Rc<Seat>],
    rate: f64,
    until_us: u64,
    load: &Load,
) {
    if rate <= 0.0 {
        return;
    }
    let start_us = bench.now_us();
    let (mut typing, mut receipts) = (0.0, 0.0);
    // Workers do not all begin with the same publisher at the same moment.
    let phase = rand::random_range(0.0..1.0);
    for sent in 0.. {
        let exact_us = ((f64::from(sent) + phase) / rate * 1e6) as u64;
        let due_us = start_us + exact_us.next_multiple_of(PACE_STEP_US);
        if due_us >= until_us || bench.rests.get() {
            return;
        }
        let wait_us = due_us.saturating_sub(bench.now_us());
        if wait_us > 0 {
            sleep(Duration::from_micros(wait_us)).await;
        }
        publishers[sent as usize % publishers.len()].publish(due_us);
        (typing, receipts) = (typing + load.typing, receipts + load.receipts);
        for (owed, is_receipt) in [(&mut typing, false), (&mut receipts, true)] {
            while *owed >= 1.0 {
                *owed -= 1.0;
                seats[rand::random_range(0..seats.len())].signal(is_receipt);
            }
        }
    }
}

fn say(said: &Said) {
    let line = serde_json::to_string(said).expect("plain data is JSON");
    // A parent that is gone closes stdin too, which ends the worker.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
