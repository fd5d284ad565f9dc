//! What a message costs, counted and not timed: allocations and instructions of codec and hub; and how many bytes an idle
//! connection holds. Fails when a count has grown by more than a tenth over `cost.txt`, which is committed.
//!
//! Counts do not depend on what else the machine does. Instructions are counted by valgrind, in a run of this same program
//! with some messages and one with more, whose difference is what the messages cost. Both counts are of a build without
//! optimiser, as tests are: they show that the code does more, not what a release build spends (`cargo bench` does).
//!
//! After a change that is worth its cost: `STARLING_COST_UPDATE=1 cargo test -p gateway --test cost`.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "api/node.rs"]
#[expect(dead_code, reason = "other tests ask a node for more")]
mod node;

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
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
/// Connections whose bytes are counted, with as many there before.
const CONNECTIONS: usize = 128;
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

/// What an idle client has sent, and what it has heard once it is there.
struct Comer {
    name: &'static str,
    request: fn(&str) -> Vec<u8>,
    greeting: &'static str,
}

const COMERS: [Comer; 4] = [
    Comer { name: "websocket", request: by_websocket, greeting: r#""connect":{"# },
    Comer { name: "sse", request: by_sse, greeting: r#""connect":{"# },
    Comer { name: "http_stream", request: by_http_stream, greeting: r#""connect":{"# },
    Comer { name: "socketio", request: by_socketio, greeting: r#"40{"sid":"# },
];

fn by_websocket(user: &str) -> Vec<u8> {
    upgraded("/connection/websocket", &connect(user))
}

fn by_socketio(user: &str) -> Vec<u8> {
    let token = node::token(user);
    upgraded("/socket.io/?EIO=4&transport=websocket", &format!(r#"40{{"token":"{token}"}}"#))
}

fn by_sse(user: &str) -> Vec<u8> {
    let escaped: Vec<String> = connect(user).bytes().map(|byte| format!("%{byte:02x}")).collect();
    let escaped = escaped.concat();
    format!("GET /connection/sse?cf_connect={escaped} HTTP/1.1\r\nhost: a\r\n\r\n").into()
}

fn by_http_stream(user: &str) -> Vec<u8> {
    let connect = connect(user);
    let head = "POST /connection/http_stream HTTP/1.1\r\nhost: a\r\ncontent-length:";
    format!("{head} {}\r\n\r\n{connect}", connect.len()).into()
}

fn connect(user: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, node::token(user))
}

/// A WebSocket's handshake, and a first message right behind it.
fn upgraded(path: &str, message: &str) -> Vec<u8> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    // Long enough for two bytes of length, and with a mask that changes nothing.
    let [high, low] = u16::try_from(message.len()).unwrap().to_be_bytes();
    request.extend([0x81, 0x80 | 0x7e, high, low, 0, 0, 0, 0]);
    request.extend(message.as_bytes());
    request
}

impl Comer {
    fn come(&self, address: &str, user: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(node::PATIENCE)).unwrap();
        stream.write_all(&(self.request)(user)).unwrap();
        let (mut heard, mut scrap) = (String::new(), [0; 4096]);
        while !heard.contains(self.greeting) {
            let read = stream.read(&mut scrap).unwrap();
            assert!(read > 0, "{}: {heard}", self.name);
            heard.push_str(&String::from_utf8_lossy(&scrap[..read]));
        }
        stream
    }

    /// Bytes for each of [`CONNECTIONS`] on a node of its own, which runs on this thread, whose allocations are counted. Its
    /// clients are on another.
    fn bytes(&'static self) -> f64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let site = node::Site::new();
        let node = runtime.block_on(site.start("n1"));
        let come = |from: usize| {
            let address = node.address.clone();
            let coming = thread::spawn(move || -> Vec<TcpStream> {
                let users = (from..from + CONNECTIONS).map(|n| format!("user-{n:03}"));
                users.map(|user| self.come(&address, &user)).collect()
            });
            runtime.block_on(async {
                while !coming.is_finished() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                // What comes after the greeting is done as well.
                tokio::time::sleep(Duration::from_millis(200)).await;
            });
            coming.join().unwrap()
        };
        let mut clients = come(0);
        let held = allocation_counter::measure(|| clients.append(&mut come(CONNECTIONS)));
        #[expect(clippy::cast_precision_loss, reason = "some hundred KiB")]
        let each = held.bytes_current as f64 / CONNECTIONS as f64;
        each
    }
}

#[test]
fn an_idle_connection_holds_no_more_bytes_than_it_did() {
    let named = COMERS.iter().map(|comer| (format!("bytes {}", comer.name), comer.bytes()));
    hold_against_baseline(&named.collect());
}
