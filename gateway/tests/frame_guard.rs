//! Hostile bytes against the production frame path, in a process of its own so that its memory can be measured.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway::frame::FrameLimits;
use gateway::socket::echo;
use loadtest::raw::{CLOSE, RawClient, TEXT, frame};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "the_server_half";
const SERVER_VARIABLE: &str = "FRAME_GUARD_SERVER";
/// How far the server's resident memory may grow under attack.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
const OPEN_FILES_DEFAULT: u32 = 1024;

/// Not a test: what [`Server::start`] runs in a process of its own. Does nothing in an ordinary run.
#[test]
fn the_server_half() {
    if std::env::var_os(SERVER_VARIABLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("\nlistening {}", listener.local_addr().unwrap());
        echo::serve(listener, FrameLimits::default(), CancellationToken::new()).await;
    });
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        Self::start_with(OPEN_FILES_DEFAULT)
    }

    /// Starts with a limit on open files, that is, on sockets.
    fn start_with(open_files: u32) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", "ulimit -n $0 && exec \"$@\"", &open_files.to_string()])
            .arg(std::env::current_exe().unwrap())
            .args([SERVER, "--exact", "--nocapture"])
            .env(SERVER_VARIABLE, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let address = output
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("listening ").map(str::to_owned))
            .expect("the server says where it listens");
        Self { process, address }
    }

    fn client(&self) -> RawClient {
        RawClient::open(&self.address, "/", b"").unwrap()
    }

    fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE_BYTES
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn each_offence_is_answered_with_its_close_code() {
    let server = Server::start();
    let mut long_form = vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0];
    long_form.extend(b"hello");
    let offences: [(&str, Vec<u8>, u16); 14] = [
        ("unmasked", b"\x81\x05hello".to_vec(), 1002),
        ("oversize pong", frame(0x8a, &[0; 126]), 1002),
        ("oversize ping", frame(0x89, &[0; 4000]), 1002),
        ("length not minimal", long_form, 1002),
        ("reserved bit", frame(0xc1, b"x"), 1002),
        ("reserved opcode", frame(0x83, b"x"), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("message in a message", [frame(0x01, b"a"), frame(TEXT, b"b")].concat(), 1002),
        ("oversize frame", frame(0x82, &vec![0; 65_537]), 1009),
        ("endless length", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(), 1009),
        ("empty fragments", [frame(0x01, b""), frame(0x00, b"").repeat(64)].concat(), 1009),
        ("not text", frame(TEXT, b"\xff"), 1007),
        ("flood of pongs", frame(0x8a, b"").repeat(101), 1008),
    ];
    for (name, bytes, code) in offences {
        let mut client = server.client();
        client.write(&frame(TEXT, b"before")).unwrap();
        assert_eq!(client.read_frame().unwrap(), (TEXT, b"before".to_vec()), "{name}");
        client.write(&bytes).unwrap();
        assert_eq!(client.close_code().unwrap(), code, "{name}");
        assert!(client.has_ended(), "{name}");
    }
}

#[test]
fn close_frames_are_answered_as_they_deserve() {
    let server = Server::start();
    for (payload, answer) in [
        (&b""[..], &b""[..]),
        (b"\x03\xe8bye", b"\x03\xe8"),
        (b"\x0f\xa0", b"\x0f\xa0"),
        (b"\x03\xed", b"\x03\xea"),
        (b"\x03", b"\x03\xea"),
        (b"\x03\xe8\xff", b"\x03\xef"),
    ] {
        let mut client = server.client();
        client.write(&frame(CLOSE, payload)).unwrap();
        let (first, answered) = client.read_frame().unwrap();
        assert_eq!((first, &answered[..answered.len().min(2)]), (0x88, answer), "{payload:?}");
        assert!(client.has_ended());
    }
}

#[test]
fn pings_are_answered_also_inside_a_message() {
    let server = Server::start();
    let mut client = server.client();
    client.write(&frame(0x01, b"one ")).unwrap();
    client.write(&frame(0x89, b"there?")).unwrap();
    assert_eq!(client.read_frame().unwrap(), (0x8a, b"there?".to_vec()));
    client.write(&frame(0x80, b"two")).unwrap();
    assert_eq!(client.read_frame().unwrap(), (TEXT, b"one two".to_vec()));
}

#[test]
fn a_client_may_speak_before_it_is_answered() {
    let server = Server::start();
    let mut client =
        RawClient::open(&server.address, "/", &[frame(TEXT, b"early"), frame(TEXT, b"bird")].concat())
            .unwrap();
    assert_eq!(client.read_frame().unwrap(), (TEXT, b"early".to_vec()));
    assert_eq!(client.read_frame().unwrap(), (TEXT, b"bird".to_vec()));
}

#[test]
fn a_server_out_of_sockets_accepts_again_when_it_has_some() {
    const OPEN_FILES: u32 = 40;
    let server = Server::start_with(OPEN_FILES);
    let crowd: Vec<_> = (0..2 * OPEN_FILES).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    drop(crowd);
    let mut client = server.client();
    client.write(&frame(TEXT, b"still here")).unwrap();
    assert_eq!(client.read_frame().unwrap(), (TEXT, b"still here".to_vec()));
}

#[test]
fn endless_fragments_cost_no_memory() {
    const TOTAL_BYTES: usize = 600 << 20;
    let server = Server::start();
    let before = {
        let mut client = server.client();
        client.write(&frame(CLOSE, b"")).unwrap();
        assert!(client.read_frame().unwrap().1.is_empty());
        server.resident_bytes()
    };
    for size in [1000, 60_000] {
        let mut client = server.client();
        client.write(&frame(0x02, &vec![0; size])).unwrap();
        let poured = client.pour(&frame(0x00, &vec![0; size]), TOTAL_BYTES);
        assert!(poured < TOTAL_BYTES, "the server hangs up long before");
        assert!(server.resident_bytes() < before + GROWTH_BYTES_MAX);
        assert_eq!(client.close_code().unwrap(), 1009);
    }
}

#[test]
fn declared_lengths_cost_no_memory() {
    const CLIENTS: usize = 200;
    let server = Server::start();
    drop(server.client());
    let before = server.resident_bytes();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &mut clients {
        client.write(&[0x82, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.close_code().unwrap(), 1009);
    }
    assert!(server.resident_bytes() < before + GROWTH_BYTES_MAX);
}
