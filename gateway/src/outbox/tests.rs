//! Real loopback sockets with small kernel buffers, so that they block early.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::TaskTracker;

use super::*;

/// Long enough that a test which reaches it has failed.
const NEVER: Duration = Duration::from_mins(10);
const KERNEL_BYTES: u32 = 8 * 1024;

struct Rig {
    context: Arc<OutboxContext>,
    tracker: TaskTracker,
    bytes: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    slow: Arc<AtomicU64>,
}

fn rig(limits: OutboxLimits) -> Rig {
    let tracker = TaskTracker::new();
    let (bytes, dropped, slow) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let metrics = OutboxMetrics {
        bytes: Gauge::from_arc(Arc::clone(&bytes)),
        ephemeral_dropped: Counter::from_arc(Arc::clone(&dropped)),
        closed_slow: Counter::from_arc(Arc::clone(&slow)),
    };
    Rig { context: OutboxContext::new(limits, metrics, tracker.clone()), tracker, bytes, dropped, slow }
}

fn patient(bytes_max: usize) -> OutboxLimits {
    OutboxLimits { bytes_max, farewell_time_max: NEVER, write_time_max: NEVER }
}

impl Rig {
    /// An outbox, the other half of its socket, and the client.
    async fn connect(&self) -> (Arc<Outbox>, OwnedReadHalf, TcpStream) {
        let listener = TcpSocket::new_v4().unwrap();
        listener.set_send_buffer_size(KERNEL_BYTES).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(KERNEL_BYTES).unwrap();
        let (client, server) =
            tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
        let (read, write) = server.unwrap().0.into_split();
        write.writable().await.unwrap();
        (Outbox::socket(&self.context, write, farewell), read, client.unwrap())
    }

    /// Waits until no writer task is left.
    async fn quiet(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        assert_eq!(f64::from_bits(self.bytes.load(Ordering::Relaxed)).to_bits(), 0f64.to_bits());
    }
}

fn farewell(reason: Disconnect) -> Bytes {
    Bytes::from(format!("<{}>", reason.reason()))
}

/// The `n`th chunk of a stream; a reader can tell a whole one.
fn chunk(n: usize) -> Bytes {
    Bytes::from(format!("[{n}:{}]", "x".repeat(500 + n % 700)))
}

/// Sends chunks until one has to wait; gives how many were sent.
fn send_until_blocked(outbox: &Arc<Outbox>) -> usize {
    for n in 0.. {
        outbox.send(chunk(n), Class::Durable);
        if outbox.queued_bytes() > 0 {
            return n + 1;
        }
    }
    unreachable!("a socket that nobody reads blocks");
}

async fn read_all(client: &mut TcpStream) -> String {
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    read
}

fn chunks(range: std::ops::Range<usize>) -> String {
    range.map(|n| String::from_utf8(chunk(n).to_vec()).unwrap()).collect()
}

#[test]
fn an_idle_outbox_is_small() {
    assert!(size_of::<Outbox>() <= 96, "{}", size_of::<Outbox>());
}

#[tokio::test]
async fn a_ready_socket_is_written_directly() {
    let rig = rig(patient(1 << 20));
    let (outbox, _read, mut client) = rig.connect().await;
    outbox.send(Bytes::from_static(b"one"), Class::Durable);
    outbox.send(Bytes::from_static(b"two"), Class::Ephemeral);
    assert_eq!((outbox.queued_bytes(), rig.tracker.len()), (0, 0));
    outbox.close(Disconnect::Shutdown);
    assert!(outbox.is_closed());
    assert_eq!(outbox.closed().await, Disconnect::Shutdown);
    outbox.send(Bytes::from_static(b"late"), Class::Durable);
    assert_eq!(read_all(&mut client).await, "onetwo<shutdown>");
    assert_eq!(rig.tracker.len(), 0);
}

#[tokio::test]
async fn a_blocked_socket_queues_drains_and_is_direct_again() {
    let rig = rig(patient(64 << 20));
    let (outbox, _read, mut client) = rig.connect().await;
    for round in 0..3 {
        let mut sent = send_until_blocked(&outbox);
        assert_eq!(rig.tracker.len(), 1, "round {round}");
        for _ in 0..200 {
            outbox.send(chunk(sent), Class::Durable);
            sent += 1;
        }
        let expected = chunks(0..sent);
        let mut read = vec![0; expected.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), expected);
        rig.quiet().await;
        assert_eq!(outbox.queued_bytes(), 0);
        assert!(matches!(*outbox.state.lock(), State::Direct(_)));
    }
    outbox.send(Bytes::from_static(b"end"), Class::Durable);
    assert_eq!(rig.tracker.len(), 0);
    outbox.close(Disconnect::Shutdown);
    assert_eq!(read_all(&mut client).await, "end<shutdown>");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn chunks_of_several_senders_stay_whole_and_in_order() {
    const SENDERS: usize = 8;
    const CHUNKS: usize = 400;
    let rig = rig(patient(64 << 20));
    let (outbox, _read, mut client) = rig.connect().await;
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let outbox = Arc::clone(&outbox);
            tokio::spawn(async move {
                for n in 0..CHUNKS {
                    let text = format!("{sender} {n} {}\n", "y".repeat((sender * 131 + n * 17) % 900));
                    outbox.send(Bytes::from(text), Class::Durable);
                    if n % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    let reader = tokio::spawn(async move { read_all(&mut client).await });
    for sender in senders {
        sender.await.unwrap();
    }
    outbox.close(Disconnect::Shutdown);
    let read = reader.await.unwrap();
    let mut next = [0; SENDERS];
    for line in read.strip_suffix("<shutdown>").unwrap().lines() {
        let mut words = line.split(' ');
        let sender: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(words.next().unwrap(), next[sender].to_string());
        assert_eq!(words.next().unwrap().len(), (sender * 131 + next[sender] * 17) % 900);
        next[sender] += 1;
    }
    assert_eq!(next, [CHUNKS; SENDERS]);
    rig.quiet().await;
}

#[tokio::test]
async fn overflow_drops_ephemeral_chunks_first_and_then_the_client() {
    let rig = rig(patient(8 * 1024));
    let (outbox, _read, mut client) = rig.connect().await;
    let sent = send_until_blocked(&outbox);
    while rig.dropped.load(Ordering::Relaxed) == 0 {
        outbox.send(Bytes::from_static(b"{ephemeral}"), Class::Ephemeral);
    }
    let room = outbox.queued_bytes();
    outbox.send(chunk(sent), Class::Durable);
    assert!(!outbox.is_closed(), "ephemeral chunks made room");
    assert!(outbox.queued_bytes() < room);
    assert!(rig.dropped.load(Ordering::Relaxed) > 10);
    let mut more = sent + 1;
    while !outbox.is_closed() {
        outbox.send(chunk(more), Class::Durable);
        more += 1;
    }
    assert_eq!(outbox.closed().await, Disconnect::Slow);
    assert_eq!(rig.slow.load(Ordering::Relaxed), 1);
    assert!(outbox.queued_bytes() < 2 * 1024, "what waited was thrown away");
    let read = read_all(&mut client).await;
    let whole = read.strip_suffix("<slow>").expect("the farewell comes last");
    let last = whole.matches('[').count();
    assert!(last <= sent);
    assert_eq!(whole, chunks(0..last), "only whole chunks, and none that waited behind the first");
    rig.quiet().await;
}

#[tokio::test]
async fn a_chunk_over_the_limit_closes_a_blocked_client() {
    let rig = rig(patient(8 * 1024));
    let (outbox, _read, mut client) = rig.connect().await;
    let huge = Bytes::from("z".repeat(8 << 20));
    outbox.send(huge.clone(), Class::Durable);
    assert_eq!(outbox.closed().await, Disconnect::Slow);
    let read = read_all(&mut client).await;
    assert_eq!(read.len(), huge.len() + "<slow>".len(), "what is begun is finished");
    rig.quiet().await;
}

#[tokio::test]
async fn closing_sends_what_waits_and_then_the_farewell() {
    let rig = rig(patient(64 << 20));
    let (outbox, _read, mut client) = rig.connect().await;
    let sent = send_until_blocked(&outbox);
    outbox.send(chunk(sent), Class::Durable);
    outbox.close_with(Disconnect::BadRequest, Bytes::from_static(b"<1002>"));
    outbox.close(Disconnect::Shutdown);
    outbox.send(chunk(0), Class::Durable);
    assert_eq!(outbox.closed().await, Disconnect::BadRequest);
    assert_eq!(read_all(&mut client).await, chunks(0..sent + 1) + "<1002>");
    rig.quiet().await;
    assert_eq!(outbox.closed().await, Disconnect::BadRequest);
}

#[tokio::test]
async fn a_blocked_client_cannot_hold_its_farewell_up() {
    let rig = rig(OutboxLimits { farewell_time_max: Duration::from_millis(20), ..patient(64 << 20) });
    let (outbox, _read, _client) = rig.connect().await;
    send_until_blocked(&outbox);
    outbox.close(Disconnect::Expired);
    rig.quiet().await;
    assert_eq!(outbox.closed().await, Disconnect::Expired);
    assert!(matches!(*outbox.state.lock(), State::Ended(_)));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_slow() {
    let rig = rig(OutboxLimits { write_time_max: Duration::from_millis(20), ..patient(64 << 20) });
    let (outbox, _read, _client) = rig.connect().await;
    send_until_blocked(&outbox);
    // More than the kernel could still take after it has once refused.
    for n in 0..1_000 {
        outbox.send(chunk(n), Class::Durable);
    }
    assert_eq!(outbox.closed().await, Disconnect::Slow);
    rig.quiet().await;
    assert_eq!(rig.slow.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_closed_connection_ends_at_once_and_silently() {
    let rig = rig(patient(64 << 20));
    let (outbox, _read, mut client) = rig.connect().await;
    send_until_blocked(&outbox);
    outbox.close(Disconnect::ConnectionClosed);
    rig.quiet().await;
    assert!(!read_all(&mut client).await.contains('<'));
}

#[tokio::test]
async fn a_client_that_is_gone_closes_the_outbox() {
    let rig = rig(patient(64 << 20));
    let (outbox, _read, client) = rig.connect().await;
    drop(client);
    let waiting = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.closed().await }
    });
    while !outbox.is_closed() {
        outbox.send(chunk(0), Class::Durable);
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap(), Disconnect::ConnectionClosed);
    rig.quiet().await;
}

#[tokio::test]
async fn what_waits_to_be_fetched_has_the_limits_of_a_socket() {
    let rig = rig(patient(3 * (4 + CHUNK_BYTES_OVERHEAD)));
    let outbox = Outbox::fetched(&rig.context, farewell);
    outbox.send(Bytes::from_static(b"eph1"), Class::Ephemeral);
    outbox.send(Bytes::from_static(b"dur1"), Class::Durable);
    outbox.send(Bytes::from_static(b"dur2"), Class::Durable);
    outbox.send(Bytes::from_static(b"dur3"), Class::Durable);
    assert_eq!(rig.dropped.load(Ordering::Relaxed), 1);
    outbox.send(Bytes::from_static(b"dur4"), Class::Durable);
    assert_eq!(outbox.closed().await, Disconnect::Slow);
    let fetched = std::future::poll_fn(|context| outbox.poll_fetch(context)).await;
    assert_eq!(fetched, Fetched::Chunks(vec![Bytes::from_static(b"<slow>")]));
    rig.quiet().await;
}
