//! Hostile bytes against the production frame path, in a process of its own so that its memory can be measured.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway::frame::FrameLimits;
use gateway::socket::echo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "the_server_half";
const SERVER_VARIABLE: &str = "FRAME_GUARD_SERVER";
/// How far the server's resident memory may grow under attack.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
const OPEN_FILES_DEFAULT: u32 = 1024;
const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// After this long a test has failed.
const NEVER: Duration = Duration::from_mins(1);

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
    address: SocketAddr,
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
        Self { process, address: address.parse().unwrap() }
    }

    fn client(&self) -> TcpStream {
        self.client_saying(b"")
    }

    /// A client that sends these bytes along with its handshake.
    fn client_saying(&self, first: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(NEVER)).unwrap();
        client.set_write_timeout(Some(NEVER)).unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(&[HANDSHAKE, first].concat()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        client
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

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 + u8::try_from(short).unwrap()),
        middle @ 126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0xff);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Reads one short server frame: first byte and payload.
fn read_frame(client: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    assert!(head[1] < 126, "no long frame is expected here");
    let mut payload = vec![0; usize::from(head[1])];
    client.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

fn close_code(client: &mut TcpStream) -> u16 {
    let (first, payload) = read_frame(client);
    assert_eq!(first, 0x88, "a close frame");
    u16::from_be_bytes([payload[0], payload[1]])
}

/// Whether nothing but the end follows.
fn has_ended(client: &mut TcpStream) -> bool {
    match client.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
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
        ("message in a message", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        ("oversize frame", frame(0x82, &vec![0; 65_537]), 1009),
        ("endless length", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(), 1009),
        ("empty fragments", [frame(0x01, b""), frame(0x00, b"").repeat(64)].concat(), 1009),
        ("not text", frame(0x81, b"\xff"), 1007),
        ("flood of pongs", frame(0x8a, b"").repeat(101), 1008),
    ];
    for (name, bytes, code) in offences {
        let mut client = server.client();
        client.write_all(&frame(0x81, b"before")).unwrap();
        assert_eq!(read_frame(&mut client), (0x81, b"before".to_vec()), "{name}");
        client.write_all(&bytes).unwrap();
        assert_eq!(close_code(&mut client), code, "{name}");
        assert!(has_ended(&mut client), "{name}");
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
        client.write_all(&frame(0x88, payload)).unwrap();
        let (first, answered) = read_frame(&mut client);
        assert_eq!((first, &answered[..answered.len().min(2)]), (0x88, answer), "{payload:?}");
        assert!(has_ended(&mut client));
    }
}

#[test]
fn pings_are_answered_also_inside_a_message() {
    let server = Server::start();
    let mut client = server.client();
    client.write_all(&frame(0x01, b"one ")).unwrap();
    client.write_all(&frame(0x89, b"there?")).unwrap();
    assert_eq!(read_frame(&mut client), (0x8a, b"there?".to_vec()));
    client.write_all(&frame(0x80, b"two")).unwrap();
    assert_eq!(read_frame(&mut client), (0x81, b"one two".to_vec()));
}

#[test]
fn a_client_may_speak_before_it_is_answered() {
    let server = Server::start();
    let mut client = server.client_saying(&[frame(0x81, b"early"), frame(0x81, b"bird")].concat());
    assert_eq!(read_frame(&mut client), (0x81, b"early".to_vec()));
    assert_eq!(read_frame(&mut client), (0x81, b"bird".to_vec()));
}

#[test]
fn a_server_out_of_sockets_accepts_again_when_it_has_some() {
    const OPEN_FILES: u32 = 40;
    let server = Server::start_with(OPEN_FILES);
    let crowd: Vec<_> = (0..2 * OPEN_FILES).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    drop(crowd);
    let mut client = server.client();
    client.write_all(&frame(0x81, b"still here")).unwrap();
    assert_eq!(read_frame(&mut client), (0x81, b"still here".to_vec()));
}

/// Writes the same bytes again and again until this many are out or the server will have no more.
fn pour(client: &mut TcpStream, bytes: &[u8], total: usize) -> usize {
    let mut written = 0;
    while written < total && client.write_all(bytes).is_ok() {
        written += bytes.len();
    }
    written
}

#[test]
fn endless_fragments_cost_no_memory() {
    const TOTAL_BYTES: usize = 600 << 20;
    let server = Server::start();
    let before = {
        let mut client = server.client();
        client.write_all(&frame(0x88, b"")).unwrap();
        assert!(read_frame(&mut client).1.is_empty());
        server.resident_bytes()
    };
    for size in [1000, 60_000] {
        let mut client = server.client();
        client.write_all(&frame(0x02, &vec![0; size])).unwrap();
        let poured = pour(&mut client, &frame(0x00, &vec![0; size]), TOTAL_BYTES);
        assert!(poured < TOTAL_BYTES, "the server hangs up long before");
        assert!(server.resident_bytes() < before + GROWTH_BYTES_MAX);
        assert_eq!(close_code(&mut client), 1009);
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
        client.write_all(&[0x82, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    }
    for client in &mut clients {
        assert_eq!(close_code(client), 1009);
    }
    assert!(server.resident_bytes() < before + GROWTH_BYTES_MAX);
}
