//! What a message costs, counted and not timed: allocations and instructions of codec and hub. Fails when a count has grown
//! by more than a tenth over `cost.txt`, which is committed.
//!
//! Counts do not depend on what else the machine does. Instructions are counted by valgrind, in a run of this same program
//! with some messages and one with more, whose difference is what the messages cost. Both counts are of a build without
//! optimiser, as tests are: they show that the code does more, not what a release build spends (`cargo bench` does).
//!
//! After a change that is worth its cost: `STARLING_COST_UPDATE=1 cargo test -p gateway --test cost`.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::{self, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use bytes::Bytes;
use gateway::{
    hub::{Client, Member, Opening, Room, Subscription},
    outbox::{Outbox, OutboxContext, OutboxLimits, OutboxMetrics},
    protocol::centrifuge::{WEBSOCKET, decode},
};
use metrics::{Counter, Gauge};
use shared::{
    auth::Claims,
    domain::{Body, ClientInfo, ConnectionId, ConversationId, Message, MessageId, MessageKind, Seq, UserId},
    record::{decode_live, encode_message},
};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How much more than the baseline is too much.
const GROWTH_MAX: f64 = 1.1;
/// Messages in the shorter run under valgrind; the longer one has twice as many.
const MESSAGES: usize = 200;
/// Members of the larger room.
const MEMBERS: usize = 51;
/// Bytes of each message's body.
const BODY_BYTES: usize = 128;
/// Tells this program, run under valgrind, what to do: `WORKLOAD MESSAGES`.
const WORKLOAD: &str = "STARLING_COST_WORKLOAD";
const UPDATE: &str = "STARLING_COST_UPDATE";
/// Two tests write one file when they are told to.
static UPDATING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// A room of real sockets, and the other end of each.
struct Hall {
    room: Room,
    conversation: ConversationId,
    record: Bytes,
    readers: Vec<TcpStream>,
    scrap: Vec<u8>,
    // The outboxes' home.
    _runtime: tokio::runtime::Runtime,
}

impl Hall {
    fn new(members: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (room, readers) = runtime.block_on(Self::seat(members));
        let conversation = ConversationId::parse("conv_1_2").unwrap();
        let record = encode_message(&Message {
            id: MessageId(Uuid::from_u128(7)),
            conversation: conversation.clone(),
            seq: Seq(1_000_000_001),
            prev: Seq(1_000_000_000),
            time: 1_790_000_000_000,
            sender: UserId::parse("alice").unwrap(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json(format!("{:?}", "x".repeat(BODY_BYTES - 2))),
        });
        Self { room, conversation, record, readers, scrap: vec![0; 256 * 1024], _runtime: runtime }
    }

    async fn seat(members: usize) -> (Room, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metrics = OutboxMetrics {
            bytes: Gauge::noop(),
            ephemeral_dropped: Counter::noop(),
            closed_slow: Counter::noop(),
        };
        let outboxes = OutboxContext::new(OutboxLimits::default(), metrics, TaskTracker::new());
        let (mut room, mut readers) = (Room::default(), Vec::new());
        for n in 0..members {
            let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            reader.set_nonblocking(true).unwrap();
            readers.push(reader);
            let (_, half) = listener.accept().await.unwrap().0.into_split();
            half.writable().await.unwrap();
            let outbox = Outbox::socket(&outboxes, half, WEBSOCKET.farewell);
            let id = ConnectionId(Uuid::from_u128(n as u128));
            let info = ClientInfo { user: UserId::parse("reader").unwrap(), client: id, info: None };
            let claims = Arc::new(Claims::of(info.user.clone(), u64::MAX));
            let client = Arc::new(Client::new(info, &WEBSOCKET, outbox, claims));
            room.add(Member::held(client, Subscription::new(false, false), None));
            assert!(matches!(room.open(id, Seq(0), None), Opening::Open(_)));
        }
        (room, readers)
    }

    /// What the feed and the hub do with a record from Redis.
    fn deliver(&self) {
        let event = decode_live(&self.conversation, &self.record).unwrap();
        let delivered = self.room.deliver(&self.conversation, &[event]);
        assert_eq!(delivered, self.readers.len() as u64);
    }

    /// Takes what was delivered, so that no socket is ever full.
    fn drain(&mut self) {
        for reader in &mut self.readers {
            match reader.read(&mut self.scrap) {
                Ok(bytes) => assert!(bytes > 0),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }
}

/// What a client's message is to the protocol: a frame's text.
fn send_command() -> String {
    let body = "x".repeat(BODY_BYTES - 2);
    format!(
        r#"{{"id":7,"rpc":{{"method":"send","data":{{"conversation":"conv_1_2","client_id":"m-1","body":"{body}"}}}}}}"#
    )
}

/// Does one kind of work for so many messages.
fn work(workload: &str, messages: usize) {
    match workload {
        "decode" => {
            let command = send_command();
            for _ in 0..messages {
                assert_eq!(black_box(decode(command.as_bytes())).map(|commands| commands.len()), Ok(1));
            }
        }
        members => {
            let mut hall = Hall::new(members.parse().unwrap());
            for at in 0..messages {
                hall.deliver();
                if at % 20 == 19 {
                    hall.drain();
                }
            }
        }
    }
}

/// The costs by name, from a count of each workload: of decoding, of a message, and of each delivery of it.
fn costs(unit: &str, count: impl Fn(&str) -> f64) -> BTreeMap<String, f64> {
    let (decode, one, many) = (count("decode"), count("1"), count(&MEMBERS.to_string()));
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    let delivery = (many - one) / (MEMBERS - 1) as f64;
    let named = [("decode", decode), ("message", one - delivery), ("delivery", delivery)];
    named.into_iter().map(|(name, cost)| (format!("{unit} {name}"), cost)).collect()
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cost.txt")
}

/// Lines of the form `unit name count`; others are comments.
fn baseline() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(baseline_path()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
        .collect()
}

fn hold_against_baseline(costs: &BTreeMap<String, f64>) {
    let _one_at_a_time = UPDATING.lock();
    let mut known = baseline();
    if std::env::var_os(UPDATE).is_some() {
        known.extend(costs.iter().map(|(name, cost)| (name.clone(), *cost)));
        let comment = "# What a message costs, counted by tests/cost.rs, which says how to change this.\n";
        let lines = known.iter().map(|(name, cost)| format!("{name} {cost:.2}\n"));
        std::fs::write(baseline_path(), comment.to_owned() + &lines.collect::<String>()).unwrap();
        return;
    }
    for (name, cost) in costs {
        let before = known.get(name).unwrap_or_else(|| panic!("{name} is not in cost.txt"));
        eprintln!("{name}: {cost:.2}, baseline {before:.2}");
        // A hundredth more than nothing is not a growth.
        let most = (before * GROWTH_MAX).max(before + 0.01);
        assert!(
            *cost <= most,
            "{name} has grown from {before:.2} to {cost:.2}: see the top of tests/cost.rs"
        );
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "a few hundred allocations")]
fn a_message_allocates_no_more_than_it_did() {
    let count = |workload: &str| match workload {
        "decode" => {
            let command = send_command();
            let info = allocation_counter::measure(|| drop(black_box(decode(command.as_bytes()))));
            info.count_total as f64
        }
        members => {
            let mut hall = Hall::new(members.parse().unwrap());
            hall.deliver();
            hall.drain();
            allocation_counter::measure(|| hall.deliver()).count_total as f64
        }
    };
    hold_against_baseline(&costs("allocations", count));
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "far fewer instructions than 2^52")]
fn a_message_takes_no_more_instructions_than_it_did() {
    let count = |workload: &str| {
        let [some, more] = [MESSAGES, 2 * MESSAGES].map(|messages| instructions(workload, messages));
        (more - some) as f64 / MESSAGES as f64
    };
    hold_against_baseline(&costs("instructions", count));
}

/// Runs [`workload_under_valgrind`] and returns all instructions of its process.
fn instructions(workload: &str, messages: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "workload_under_valgrind", "--nocapture", "--test-threads=1"])
        .env(WORKLOAD, format!("{workload} {messages}"))
        .output()
        .unwrap_or_else(|error| panic!("valgrind does not run ({error}); `make deps` installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected.unwrap_or_else(|| panic!("valgrind counted nothing: {said}")).1.trim().parse().unwrap()
}

/// The work that valgrind looks at; nothing when nobody asks for it.
#[test]
fn workload_under_valgrind() {
    let Ok(wanted) = std::env::var(WORKLOAD) else { return };
    let (workload, messages) = wanted.split_once(' ').unwrap();
    work(workload, messages.parse().unwrap());
}
