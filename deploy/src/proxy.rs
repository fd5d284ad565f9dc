//! A TCP proxy that can be told to misbehave: the network between two parts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// All that is kept of a stalled connection, for each direction. What its ends send beyond that stays in their kernels' buffers, as
/// with a network that has stopped.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// How much of what a client has sent is remembered for [`TcpProxy::stall_connections_that_sent`]: this much of its beginning,
/// and at least this much of its end.
const HISTORY_BYTES_MAX: usize = 64 * 1024;

/// What the connections are to do now.
#[derive(Debug, Clone, Default)]
struct Mode {
    stall: Stall,
    refuse: bool,
    /// Counts the cuts.
    cuts: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Stall {
    #[default]
    None,
    All,
    SentByClient(Vec<u8>),
}

/// Forwards connections to a target until it is told otherwise. Dropping it resets them all.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    acceptor: JoinHandle<()>,
}

impl TcpProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target` (`host:port`), which need not be up yet. It lives on
    /// the runtime of the caller.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(target: impl Into<String>) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the proxy cannot listen")?;
        let address = listener.local_addr().context("a listener has an address")?;
        let (mode, watched) = watch::channel(Mode::default());
        let acceptor = tokio::spawn(accept(listener, target.into(), watched));
        Ok(Self { address, mode, acceptor })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops forwarding, in both directions, on all connections, present and future. They stay open, and nothing is lost.
    pub fn stall_all(&self) {
        self.mode.send_modify(|mode| mode.stall = Stall::All);
    }

    /// The same, but only for connections on which the client has sent `needle` (`SSUBSCRIBE`, say), or sends it while the stall
    /// is on; in that case the needle itself is held back too.
    pub fn stall_connections_that_sent(&self, needle: &[u8]) {
        self.mode.send_modify(|mode| mode.stall = Stall::SentByClient(needle.to_vec()));
    }

    /// Ends a stall: everything held back goes on, in order.
    pub fn resume(&self) {
        self.mode.send_modify(|mode| mode.stall = Stall::None);
    }

    /// Resets all present connections. New ones are forwarded.
    pub fn cut_all(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// While on, new connections are accepted and reset at once. Present ones go on.
    pub fn refuse(&self, on: bool) {
        self.mode.send_modify(|mode| mode.refuse = on);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// The connections are in its set, so that they end with it.
async fn accept(listener: TcpListener, target: String, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        // A socket that is closed without lingering sends a reset: an honest picture of a crash, and no port stays in use.
        let _ = client.set_zero_linger();
        if !mode.borrow().refuse {
            connections.spawn(forward(client, target.clone(), mode.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, target: String, mode: watch::Receiver<Mode>) {
    let cuts = mode.borrow().cuts;
    let mut cut = mode.clone();
    let both_ways = async {
        let mut server = TcpStream::connect(target).await?;
        server.set_zero_linger()?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        // Borrowed halves: an owned one says an orderly good-bye when it is dropped, and a cut must not.
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let gate = Gate { mode, history: Arc::default() };
        let upstream = pump(from_client, to_server, gate.clone(), true);
        let downstream = pump(from_server, to_client, gate, false);
        tokio::try_join!(upstream, downstream).map(drop)
    };
    tokio::select! {
        _ = cut.wait_for(|mode| mode.cuts != cuts) => {}
        // An error of either end resets the other one; there is nobody to tell.
        _ = both_ways => {}
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut gate: Gate,
    is_client: bool,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    loop {
        let length = from.read(&mut chunk).await?;
        if is_client {
            gate.remember(&chunk[..length]);
        }
        gate.open().await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}

/// Decides, for one connection, whether anything may pass.
#[derive(Clone)]
struct Gate {
    mode: watch::Receiver<Mode>,
    history: Arc<Mutex<Vec<u8>>>,
}

impl Gate {
    /// Returns when there is no stall for this connection, or no proxy any more.
    async fn open(&mut self) {
        let history = Arc::clone(&self.history);
        let passes = |mode: &Mode| match &mode.stall {
            Stall::None => true,
            Stall::All => false,
            Stall::SentByClient(needle) => !contains(&lock(&history), needle),
        };
        let _ = self.mode.wait_for(passes).await;
    }

    fn remember(&self, bytes: &[u8]) {
        let mut history = lock(&self.history);
        history.extend_from_slice(bytes);
        if history.len() > 3 * HISTORY_BYTES_MAX {
            let end = history.len() - HISTORY_BYTES_MAX;
            history.drain(HISTORY_BYTES_MAX..end);
        }
    }
}

fn lock(history: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    history.lock().expect("nothing panics while it holds the history")
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Time for a byte to cross the loopback if nothing holds it back. A wait that is too short could only make a test miss a
    /// defect, never fail without one.
    const CROSSING: Duration = Duration::from_millis(100);
    /// Far above what a byte takes; only a failure waits for it.
    const ARRIVAL: Duration = Duration::from_mins(2);

    /// Sends back all it gets.
    async fn echo() -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        (address, task)
    }

    async fn expect(stream: &mut TcpStream, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        tokio::time::timeout(ARRIVAL, stream.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, expected);
    }

    async fn expect_silence(stream: &mut TcpStream) {
        assert!(tokio::time::timeout(CROSSING, stream.read_u8()).await.is_err(), "a byte came through");
    }

    #[tokio::test]
    async fn a_stall_holds_everything_back_and_loses_nothing() {
        let (target, echo) = echo().await;
        let proxy = TcpProxy::start(target).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"one").await.unwrap();
        expect(&mut stream, b"one").await;
        proxy.stall_all();
        stream.write_all(b"two").await.unwrap();
        expect_silence(&mut stream).await;
        stream.write_all(b"three").await.unwrap();
        expect_silence(&mut stream).await;
        proxy.resume();
        expect(&mut stream, b"twothree").await;
        echo.abort();
    }

    #[tokio::test]
    async fn a_stalled_connection_is_not_read() {
        let (target, echo) = echo().await;
        let proxy = TcpProxy::start(target).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.stall_all();
        // Far more than the kernel's buffers: if the proxy read on, it would take all of it.
        let data: Vec<u8> = (0..64u32 * 1024 * 1024).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = stream.split();
        assert!(tokio::time::timeout(CROSSING * 10, write.write_all(&data[..])).await.is_err());
        proxy.resume();
        let mut byte = [0; 1];
        read.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte[0], data[0]);
        echo.abort();
    }

    #[tokio::test]
    async fn only_the_connections_that_sent_the_needle_stall() {
        let (target, echo) = echo().await;
        let proxy = TcpProxy::start(target).await.unwrap();
        let mut before = TcpStream::connect(proxy.addr()).await.unwrap();
        let mut after = TcpStream::connect(proxy.addr()).await.unwrap();
        let mut other = TcpStream::connect(proxy.addr()).await.unwrap();
        before.write_all(b"xxSSUBSCRIBE").await.unwrap();
        expect(&mut before, b"xxSSUBSCRIBE").await;
        // The needle may come in two pieces.
        after.write_all(b"SSUB").await.unwrap();
        expect(&mut after, b"SSUB").await;
        proxy.stall_connections_that_sent(b"SSUBSCRIBE");
        after.write_all(b"SCRIBE").await.unwrap();
        before.write_all(b"PING").await.unwrap();
        other.write_all(b"PING").await.unwrap();
        expect(&mut other, b"PING").await;
        expect_silence(&mut before).await;
        expect_silence(&mut after).await;
        proxy.resume();
        expect(&mut before, b"PING").await;
        expect(&mut after, b"SCRIBE").await;
        echo.abort();
    }

    #[tokio::test]
    async fn cut_and_refused_connections_are_reset() {
        let (target, echo) = echo().await;
        let proxy = TcpProxy::start(target).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"one").await.unwrap();
        expect(&mut stream, b"one").await;
        // A stall does not protect from a cut.
        proxy.stall_all();
        proxy.cut_all();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        proxy.resume();

        proxy.refuse(true);
        let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(refused.read_u8().await.is_err());
        proxy.refuse(false);
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"two").await.unwrap();
        expect(&mut stream, b"two").await;
        echo.abort();
    }

    #[test]
    fn the_history_keeps_both_ends() {
        let gate = Gate { mode: watch::channel(Mode::default()).1, history: Arc::default() };
        gate.remember(b"first");
        for _ in 0..20 {
            gate.remember(&[b'.'; CHUNK_BYTES_MAX]);
        }
        gate.remember(b"last");
        let history = lock(&gate.history);
        assert!(contains(&history, b"first") && contains(&history, b"last"));
        assert!(history.len() <= 3 * HISTORY_BYTES_MAX);
    }
}
