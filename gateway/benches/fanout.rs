//! What one delivery costs: CPU time of the fan-out for each message and socket, beside a loop that only calls `send`.
//!
//! A room of real sockets gets messages by the production path, `Room::deliver` down to the socket, in batches of as many
//! messages as are outstanding; the loop beside it writes the same bytes, one call for each message and socket. The two
//! take turns on the same sockets, so that whatever else the machine does meets both. The clients are another process,
//! which looks at its sockets in turns and never sleeps in the kernel for one of them: waking a local reader would cost
//! the sender time that a remote one does not.
//!
//! `cargo bench -p gateway` prints the table; `-- --help` lists the flags. A room needs two open files for each of
//! its sockets.
#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use gateway::{
    hub::{Client, Member, Opening, Room, Subscription},
    outbox::{Outbox, OutboxContext, OutboxLimits, OutboxMetrics},
    protocol::centrifuge::WEBSOCKET,
};
use loadtest::usage::cpu_us;
use metrics::{Counter, Gauge};
use shared::{
    auth::Claims,
    domain::{
        Body, ClientInfo, ConnectionId, ConversationId, Event, Message, MessageId, MessageKind, Seq, UserId,
    },
};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Bytes that a socket may be given before the clients must have taken everything: far less than a socket holds, since
/// what is measured is the write and not the wait.
const SOCKET_BYTES_MAX: usize = 48 * 1024;
/// Messages per second of the paced case.
const PACE: u32 = 100;
/// How long the clients leave their sockets alone between two looks at them.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// What the messages are counted from: all numbers have the same length, so that all messages have it too.
const FIRST_SEQ: u64 = 1_000_000_000;
/// How often path and loop take turns for one row.
const TURNS: u32 = 4;

/// What is sent, and what it may cost at most as a multiple of the loop.
struct Case {
    outstanding: usize,
    paced: bool,
    budget: f64,
}

const CASES: [Case; 3] = [
    Case { outstanding: 1, paced: true, budget: 1.15 },
    Case { outstanding: 4, paced: false, budget: 0.4 },
    Case { outstanding: 32, paced: false, budget: 0.07 },
];

#[derive(Parser)]
struct Flags {
    /// Sizes of the rooms to measure.
    #[arg(long, default_values_t = [1_000, 100], value_delimiter = ',')]
    sockets: Vec<usize>,
    /// Bytes of each message's body, at least 2; the budgets are for 128.
    #[arg(long, default_values_t = [128], value_delimiter = ',', value_parser = clap::value_parser!(u16).range(2..=32_768))]
    bytes: Vec<u16>,
    /// Seconds for each row.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Be the clients: connect this many sockets to `address`.
    #[arg(long, hide = true)]
    clients: Option<usize>,
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    if let Some(count) = flags.clients {
        return be_clients(flags.address, count);
    }
    // One worker, so that a socket that blocks after all is drained and its cost is counted.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        println!("sockets  bytes  outstanding  delivery µs  loop µs  ratio  budget");
        let turn = Duration::from_secs(flags.seconds.into()) / (2 * TURNS);
        for count in flags.sockets {
            let mut fleet = Fleet::connect(count).await?;
            for &bytes in &flags.bytes {
                fleet.body_bytes = bytes.into();
                CASES.iter().try_for_each(|case| measure(&mut fleet, case, turn))?;
            }
        }
        Ok(())
    })
}

/// Measures one row and prints it.
fn measure(fleet: &mut Fleet, case: &Case, turn: Duration) -> anyhow::Result<()> {
    let (mut path, mut bare) = (Cost::default(), Cost::default());
    for _ in 0..TURNS {
        path.add(&fleet.run(case, turn, Fleet::deliver)?);
        bare.add(&fleet.run(case, turn, Fleet::send_each)?);
    }
    let (path, bare) = (path.micros(), bare.micros());
    let pace = if case.paced { format!("{PACE}/s") } else { String::new() };
    println!(
        "{:>7}  {:>5}  {:>4} {:>6}  {path:>11.3}  {bare:>7.3}  {:>5.3}  {:>6}",
        fleet.sockets.len(),
        fleet.body_bytes,
        case.outstanding,
        pace,
        path / bare,
        case.budget,
    );
    Ok(())
}

/// CPU time, and what it was spent on.
#[derive(Default)]
struct Cost {
    cpu_us: u64,
    deliveries: u64,
}

impl Cost {
    fn add(&mut self, other: &Self) {
        self.cpu_us += other.cpu_us;
        self.deliveries += other.deliveries;
    }

    #[expect(clippy::cast_precision_loss, reason = "a benchmark's count is far below 2^52")]
    fn micros(&self) -> f64 {
        self.cpu_us as f64 / self.deliveries as f64
    }
}

/// The server's half of a room: its sockets, each reachable in both ways, and the clients at their other end.
struct Fleet {
    room: Room,
    sockets: Vec<TcpStream>,
    conversation: ConversationId,
    /// Bytes of each message's body.
    body_bytes: usize,
    seq: u64,
    /// Bytes given to each socket.
    given: u64,
    clients: Clients,
}

impl Fleet {
    async fn connect(count: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let clients = Clients::start(listener.local_addr()?, count)?;
        let metrics = OutboxMetrics {
            bytes: Gauge::noop(),
            ephemeral_dropped: Counter::noop(),
            closed_slow: Counter::noop(),
        };
        let outboxes = OutboxContext::new(OutboxLimits::default(), metrics, TaskTracker::new());
        let (mut room, mut sockets) = (Room::default(), Vec::with_capacity(count));
        for n in 0..count {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let socket = socket.into_std()?;
            sockets.push(socket.try_clone().context("there are too few open files for so many sockets")?);
            let (_, half) = tokio::net::TcpStream::from_std(socket)?.into_split();
            half.writable().await?;
            let outbox = Outbox::socket(&outboxes, half, WEBSOCKET.farewell);
            let id = ConnectionId(Uuid::from_u128(n as u128));
            let info = ClientInfo { user: UserId::parse("reader")?, client: id, info: None };
            let claims = Arc::new(Claims::of(info.user.clone(), u64::MAX));
            let client = Arc::new(Client::new(info, &WEBSOCKET, outbox, claims));
            room.add(Member::held(client, Subscription::new(false, false), None));
            ensure!(matches!(room.open(id, Seq(0), None), Opening::Open(_)), "a new member is not let in");
        }
        let conversation = ConversationId::parse("conv_1_2")?;
        Ok(Self { room, sockets, conversation, body_bytes: 0, seq: FIRST_SEQ, given: 0, clients })
    }

    /// Sends batches by `send` for as long as a turn is, and says what the process has spent on it.
    fn run(
        &mut self,
        case: &Case,
        turn: Duration,
        send: fn(&Self, &[Event], usize) -> anyhow::Result<usize>,
    ) -> anyhow::Result<Cost> {
        let batch: Vec<Event> = (0..case.outstanding).map(|_| self.next_message()).collect();
        let batch_bytes = (WEBSOCKET.batch)(&self.conversation, &batch).len();
        let rounds_unsettled_max = (SOCKET_BYTES_MAX / batch_bytes).max(1);
        let (start, before) = (Instant::now(), cpu_us(std::process::id())?);
        let (mut messages, mut rounds) = (0, 0);
        while start.elapsed() < turn {
            let events: Vec<Event> = (0..case.outstanding).map(|_| self.next_message()).collect();
            self.given += send(self, &events, batch_bytes)? as u64;
            messages += case.outstanding;
            rounds += 1;
            if rounds % rounds_unsettled_max == 0 {
                self.settle()?;
            }
            if case.paced {
                let next = start + Duration::from_secs(1) / PACE * u32::try_from(messages)?;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        self.settle()?;
        let deliveries = (messages * self.sockets.len()) as u64;
        Ok(Cost { cpu_us: cpu_us(std::process::id())? - before, deliveries })
    }

    /// The way that messages go in production. Returns the bytes that each socket was given.
    fn deliver(&self, events: &[Event], batch_bytes: usize) -> anyhow::Result<usize> {
        let delivered = self.room.deliver(&self.conversation, events);
        ensure!(delivered == (events.len() * self.sockets.len()) as u64, "someone got less than all");
        Ok(batch_bytes)
    }

    /// One call of `send` for each message and socket, and nothing else. Returns the bytes that each socket was given.
    fn send_each(&self, events: &[Event], _batch_bytes: usize) -> anyhow::Result<usize> {
        let mut given = 0;
        for event in events {
            let frame = (WEBSOCKET.batch)(&self.conversation, std::slice::from_ref(event));
            given += frame.len();
            for mut socket in &self.sockets {
                ensure!(socket.write(&frame)? == frame.len(), "a socket was full");
            }
        }
        Ok(given)
    }

    fn next_message(&mut self) -> Event {
        let prev = Seq(self.seq);
        self.seq += 1;
        Event::Message(Arc::new(Message {
            id: MessageId(Uuid::from_u128(self.seq.into())),
            conversation: self.conversation.clone(),
            seq: Seq(self.seq),
            prev,
            time: 1_790_000_000_000,
            sender: UserId::parse("alice").expect("it is made of letters"),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json(format!("{:?}", "x".repeat(self.body_bytes - 2))),
        }))
    }

    /// Waits until the clients have taken everything.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.clients.wait_for(self.given * self.sockets.len() as u64)
    }
}

/// The process of the clients, as the server sees it.
struct Clients {
    process: Child,
    questions: ChildStdin,
    answers: ChildStdout,
}

impl Clients {
    fn start(server: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--clients", &count.to_string(), "--address", &server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = process.stdin.take().context("stdin is piped")?;
        let answers = process.stdout.take().context("stdout is piped")?;
        Ok(Self { process, questions, answers })
    }

    /// Waits, without using the CPU, until the clients have taken `total` bytes.
    fn wait_for(&mut self, total: u64) -> anyhow::Result<()> {
        self.questions.write_all(&total.to_le_bytes())?;
        let mut answer = [0; 8];
        self.answers.read_exact(&mut answer).context("the clients are gone")?;
        ensure!(u64::from_le_bytes(answer) == total, "the clients got more than was sent");
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Nothing is lost with a process that only counts.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The clients: takes what comes, and answers each total asked for once it is reached.
fn be_clients(server: SocketAddr, count: usize) -> anyhow::Result<()> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = TcpStream::connect(server)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    let asked = Arc::new(AtomicU64::new(u64::MAX));
    let question = Arc::clone(&asked);
    thread::spawn(move || {
        let mut total = [0; 8];
        while io::stdin().read_exact(&mut total).is_ok() {
            question.store(u64::from_le_bytes(total), Ordering::Release);
        }
        std::process::exit(0);
    });
    let (mut taken, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        for mut socket in &sockets {
            match socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(bytes) => taken += bytes as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if taken >= asked.load(Ordering::Acquire) {
            asked.store(u64::MAX, Ordering::Release);
            let mut answers = io::stdout().lock();
            answers.write_all(&taken.to_le_bytes())?;
            answers.flush()?;
        }
        thread::sleep(LOOK_PAUSE);
    }
}
