//! The scenarios that only send: nothing, to one room, to many conversations, and for long.

use clap::Args;

use super::{
    Common,
    flags::{at_least_one, not_negative, positive},
    measure::{Frame, cores, growth_percent, whole},
    setup::{Setup, users_of},
};
use crate::{
    load::{Load, Pace},
    report::Report,
};

/// Flags of `idle`.
#[derive(Debug, Clone, Args)]
pub struct Idle {
    /// Connections
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    pub connections: usize,
    /// What all scenarios have
    #[command(flatten)]
    pub common: Common,
}

/// Flags of `fanout`.
#[derive(Debug, Clone, Args)]
pub struct Fanout {
    /// Members of the room
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    pub members: usize,
    /// Members who also send
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub publishers: usize,
    /// Messages in a second, of all publishers together
    #[arg(long, default_value_t = 20.0, value_parser = positive)]
    pub rate: f64,
    /// Closed loop instead of `--rate`: each publisher has so many messages under way. Shows what CPU time a delivery
    /// takes at full speed; the delays then say little
    #[arg(long, conflicts_with = "rate")]
    pub outstanding: Option<u32>,
    /// What all scenarios have
    #[command(flatten)]
    pub common: Common,
}

/// Flags of `chat`, and of those that build on it.
#[derive(Debug, Clone, Args)]
pub struct ChatShape {
    /// Conversations
    #[arg(long, default_value_t = 500, value_parser = at_least_one)]
    pub conversations: usize,
    /// Members of each conversation; 2 makes direct ones
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub members: u16,
    /// Conversations that each client is in
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub per_client: u16,
    /// Typing events for each message
    #[arg(long, default_value_t = 0.5, value_parser = not_negative)]
    pub typing: f64,
    /// Read receipts for each message
    #[arg(long, default_value_t = 0.5, value_parser = not_negative)]
    pub receipts: f64,
}

/// Flags of `chat`.
#[derive(Debug, Clone, Args)]
pub struct Chat {
    /// Messages in a second, of all clients together
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    pub rate: f64,
    /// Who talks with whom
    #[command(flatten)]
    pub shape: ChatShape,
    /// What all scenarios have
    #[command(flatten)]
    pub common: Common,
}

/// Flags of `soak`.
#[derive(Debug, Clone, Args)]
pub struct Soak {
    /// Minutes to go on for, in place of `--seconds`
    #[arg(long, value_parser = positive, conflicts_with = "seconds")]
    pub minutes: Option<f64>,
    /// What is done all the time
    #[command(flatten)]
    pub chat: ChatFlags,
    /// What all scenarios have
    #[command(flatten)]
    pub common: Common,
}

/// How long a soak is where nothing else is said, in seconds.
const SOAK_SECONDS: f64 = 3_600.0;

impl Soak {
    fn seconds(&self) -> f64 {
        self.minutes.map(|minutes| minutes * 60.0).or(self.common.seconds).unwrap_or(SOAK_SECONDS)
    }
}

/// The load of a chat.
#[derive(Debug, Clone, Args)]
pub struct ChatFlags {
    /// Messages in a second, of all clients together
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    pub rate: f64,
    /// Who talks with whom
    #[command(flatten)]
    pub shape: ChatShape,
}

/// Runs `idle`.
pub async fn idle(flags: &Idle) -> anyhow::Result<Report> {
    let mut setup = Setup::new(&flags.common);
    for user in 0..flags.connections {
        setup.seat(user);
    }
    let frame = Frame::new("idle", &flags.common, &setup).await?;
    let (mut fleet, seating) = setup.start().await?;
    let connected = fleet.moment().await?;
    let mut stretch = fleet.watch(flags.common.warmup, flags.common.seconds()).await?;
    fleet.settle(&mut stretch).await?;
    stretch.series.splice(0..0, seating);
    let mut report = frame.report(&fleet, &stretch);
    let count = whole(flags.connections.max(1) as u64);
    let seconds = stretch.measured_seconds();
    for (at, used) in report.server.iter().enumerate() {
        let name = format!("{} {}", used.name, used.id);
        let each = 1e6 * cores(stretch.used()[at], seconds) / count;
        report.figures.insert(format!("{name}: µs/s of each connection"), each);
        let connecting = connected.usage[at].cpu_us.saturating_sub(frame.empty.usage[at].cpu_us);
        report.figures.insert(format!("{name}: µs to connect one"), whole(connecting) / count);
    }
    Ok(report)
}

/// Runs `fanout`.
pub async fn fanout(flags: &Fanout) -> anyhow::Result<Report> {
    let setup = fanout_setup(flags).await?;
    let frame = Frame::new("fanout", &flags.common, &setup).await?;
    let (mut fleet, _) = setup.start().await?;
    let pace = flags.outstanding.map_or(Pace::PerSecond(flags.rate), Pace::Outstanding);
    let load = Load { seconds: flags.common.seconds(), pace, typing: 0.0, receipts: 0.0 };
    let stretch = fleet.run(flags.common.warmup, &load).await?;
    let mut report = frame.report(&fleet, &stretch);
    if flags.outstanding.is_some() {
        // In a closed loop a slow server is asked for less, which makes its delays look short.
        (report.delivery, report.accept, report.late) = (None, None, None);
    }
    Ok(report)
}

/// One room and its members, of which the last ones send: a server that goes through a room in order reaches them last, so
/// that what is under way in a closed loop is under way for everybody.
pub async fn fanout_setup(flags: &Fanout) -> anyhow::Result<Setup> {
    let mut setup = Setup::new(&flags.common);
    let users = users_of(flags.members);
    for client in 0..flags.members {
        setup.seat(client % users).publishes = client + flags.publishers >= flags.members;
    }
    let members: Vec<usize> = (0..flags.members).collect();
    setup.group(&members[..users], &members).await?;
    Ok(setup)
}

/// Runs `chat`.
pub async fn chat(flags: &Chat) -> anyhow::Result<Report> {
    let setup = chat_setup(&flags.common, &flags.shape).await?;
    let frame = Frame::new("chat", &flags.common, &setup).await?;
    let (mut fleet, _) = setup.start().await?;
    let load = chat_load(&flags.shape, flags.rate, flags.common.seconds());
    let stretch = fleet.run(flags.common.warmup, &load).await?;
    Ok(frame.report(&fleet, &stretch))
}

/// Runs `soak`.
pub async fn soak(flags: &Soak) -> anyhow::Result<Report> {
    let setup = chat_setup(&flags.common, &flags.chat.shape).await?;
    let frame = Frame::new("soak", &flags.common, &setup).await?;
    let (mut fleet, _) = setup.start().await?;
    let load = chat_load(&flags.chat.shape, flags.chat.rate, flags.seconds());
    let stretch = fleet.run(flags.common.warmup, &load).await?;
    let mut report = frame.report(&fleet, &stretch);
    if let Some(growth) = growth_percent(&stretch) {
        report.figures.insert("growth of memory, %".to_owned(), growth);
    }
    Ok(report)
}

/// The load of a chat at this rate.
pub fn chat_load(shape: &ChatShape, rate: f64, seconds: f64) -> Load {
    Load { seconds, pace: Pace::PerSecond(rate), typing: shape.typing, receipts: shape.receipts }
}

/// Conversations that overlap: each begins some clients after the one before, round a circle of all clients.
pub async fn chat_setup(common: &Common, shape: &ChatShape) -> anyhow::Result<Setup> {
    let size = usize::from(shape.members);
    let clients = (shape.conversations * size / usize::from(shape.per_client)).max(size + 1);
    let mut setup = Setup::new(common);
    for client in 0..clients {
        setup.seat(client).publishes = true;
    }
    for at in 0..shape.conversations {
        let first = at * clients / shape.conversations;
        // Where several begin with the same client, each takes others.
        let stride = 1 + at % shape.per_client.max(1) as usize;
        let mut members: Vec<usize> = (0..size).map(|member| (first + member * stride) % clients).collect();
        members.sort_unstable();
        members.dedup();
        match members[..] {
            [one, other] => setup.direct([one, other], &[one, other]),
            _ => setup.group(&members, &members).await?,
        }
    }
    Ok(setup)
}
