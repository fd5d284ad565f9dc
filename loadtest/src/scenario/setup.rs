//! Who sits where: rooms, users, nodes and addresses.

use std::{collections::HashSet, io::IsTerminal, time::Duration};

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::Common;
use crate::{
    http,
    load::{Assignment, Fleet, FleetOptions, Room, SeatPlan, Second, run_name},
};

/// Longest time in which nobody more is in all rooms, before the run is given up, in seconds.
const SEAT_SECONDS_MAX: u64 = 30;
/// Users of one group; more connections than that are several of the same users.
const USERS_MAX: usize = 1_000;

/// A run that is being set up.
pub struct Setup {
    common: Common,
    run: String,
    started_us: u64,
    rooms: Vec<Room>,
    seats: Vec<SeatPlan>,
    known: HashSet<String>,
}

impl Setup {
    /// A run without rooms and clients.
    pub fn new(common: &Common) -> Self {
        let (started_us, run) = run_name();
        Self {
            common: common.clone(),
            run,
            started_us,
            rooms: Vec::new(),
            seats: Vec::new(),
            known: HashSet::new(),
        }
    }

    /// Adds a client that is in no room yet.
    pub fn seat(&mut self, user: usize) -> &mut SeatPlan {
        let at = self.seats.len();
        let urls = self.common.urls();
        let sources = &self.common.sources;
        self.seats.push(SeatPlan {
            seat: u32::try_from(at).expect("far fewer clients than 2^32 fit on a machine"),
            user: self.user(user),
            url: urls[at % urls.len()].clone(),
            // Each node is reached from every address.
            source: (!sources.is_empty()).then(|| sources[at / urls.len() % sources.len()]),
            rooms: Vec::new(),
            publishes: false,
            storms: false,
        });
        self.seats.last_mut().expect("it was just added")
    }

    /// Puts clients that were added into one room more.
    fn room(&mut self, id: String, members: &[usize]) {
        let room = u32::try_from(self.rooms.len()).expect("far fewer rooms than 2^32 are made");
        for &member in members {
            self.seats[member].rooms.push(room);
        }
        self.rooms.push(Room { id, members: members.len() as u64 });
    }

    /// A room of one group of these users; the server is asked to make it unless it knows no rooms.
    pub async fn group(&mut self, users: &[usize], members: &[usize]) -> anyhow::Result<()> {
        let id = if self.common.plain {
            format!("{}-{}", self.run, self.rooms.len())
        } else {
            self.create(users).await.context("a group cannot be made")?
        };
        self.room(id, members);
        Ok(())
    }

    /// The direct conversation of two users, which needs no making.
    pub fn direct(&mut self, users: [usize; 2], members: &[usize]) {
        let mut names = users.map(|user| self.user(user));
        names.sort();
        let id = format!("conv_{}_{}", names[0], names[1]);
        // A small circle comes round to the same two again.
        if self.known.insert(id.clone()) {
            self.room(id, members);
        }
    }

    /// Finds out whether every node is there, so that nobody waits for one that is not.
    async fn reach(&self) -> anyhow::Result<()> {
        for url in self.common.urls() {
            http::reach(&url).await.map_err(|error| anyhow!("{url} is not there: {error}"))?;
        }
        Ok(())
    }

    /// Starts the workers and waits until all clients are in their rooms. Returns the seconds that it took.
    pub async fn start(self) -> anyhow::Result<(Fleet, Vec<Second>)> {
        self.reach().await?;
        let Self { common, run, started_us, rooms, seats, .. } = self;
        let assignment = Assignment {
            dialect: common.protocol,
            transport: common.transport,
            tokens: common.tokens(),
            run,
            started_us,
            connects_per_second: common.connect_rate,
            body_bytes: common.bytes,
            rooms,
            seats,
        };
        let options = FleetOptions {
            workers: common.workers.into(),
            pids: common.pids.clone(),
            metrics: common.metrics.clone(),
        };
        let mut fleet = Fleet::start(assignment, options, progress).await?;
        let series = fleet.seated(Duration::from_secs(SEAT_SECONDS_MAX)).await?;
        Ok((fleet, series))
    }

    /// How many clients and rooms there are.
    pub fn size(&self) -> (usize, usize) {
        (self.seats.len(), self.rooms.len())
    }

    fn user(&self, at: usize) -> String {
        format!("load-{}-{at}", self.run)
    }

    async fn create(&self, users: &[usize]) -> anyhow::Result<String> {
        #[derive(Serialize)]
        struct Group<'a> {
            kind: &'static str,
            members: &'a [String],
        }
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        ensure!(users.len() <= USERS_MAX, "a group has at most {USERS_MAX} users");
        let url = &self.common.urls()[0];
        let names: Vec<String> = users.iter().map(|user| self.user(*user)).collect();
        let tokens = self.common.tokens().context("a plain server makes no groups")?;
        let token = tokens.token(url, &names[0]).await?;
        let group = Group { kind: "group", members: &names };
        let created: Created = http::post(&format!("{url}/v1/conversations"), &token, &group).await?;
        Ok(created.id)
    }
}

/// How many users so many clients of one room are.
pub fn users_of(clients: usize) -> usize {
    clients.min(USERS_MAX)
}

/// Characters of the bar.
const BAR: u16 = 20;

/// One line that is written over and over: how far the run is, and what goes on.
fn progress(second: &Second, done: f64) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let Second { at, connected, publishes, delivered, delay, cores, .. } = second;
    let server = match cores[..] {
        [] => String::new(),
        _ => format!("  server {:.2} cores", cores.iter().sum::<f64>()),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a short bar")]
    let full = (done.clamp(0.0, 1.0) * f64::from(BAR)) as u16;
    let (full, empty) = ("#".repeat(full.into()), "·".repeat((BAR - full).into()));
    eprint!(
        "\r{full}{empty} {at:>4.0} s  {connected:>6} connected  {publishes:>6} publishes/s  {delivered:>8} deliveries/s  p99 {:>8.2} ms{server} ",
        delay.p99
    );
}
