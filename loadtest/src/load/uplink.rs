//! The way up for clients whose way down is a response: requests on few connections that all clients of a worker share, so
//! that they cost the server no memory for each client.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, rc::Rc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{
    open::{self, Ended, OPEN_SECONDS_MAX},
    response::Responses,
    worker::Bench,
};
use crate::dialect::Asked;

/// Connections to each node.
const LANES: u32 = 8;
/// Requests that may wait on one of them.
const WAITING_MAX: usize = 10_000;
/// A connection that was idle for so long is not used again: servers close such.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// One way up: a node, from where, and which of its connections.
type Lane = (String, Option<IpAddr>, u32);

/// All ways up of a worker.
#[derive(Default)]
pub struct Uplinks {
    lanes: RefCell<HashMap<Lane, mpsc::Sender<Asked>>>,
}

impl Uplinks {
    /// Sends a request some time soon; those of one client in their order. False when too many wait already.
    pub fn post(
        &self,
        bench: &Rc<Bench>,
        url: &str,
        source: Option<IpAddr>,
        client: u32,
        asked: Asked,
    ) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes.entry((url.to_owned(), source, client % LANES)).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            spawn_local(carry(Rc::clone(bench), url.to_owned(), source, receiver));
            sender
        });
        lane.try_send(asked).is_ok()
    }
}

async fn carry(bench: Rc<Bench>, url: String, source: Option<IpAddr>, mut waiting: mpsc::Receiver<Asked>) {
    let mut last: Option<(TcpStream, Instant)> = None;
    while let Some(asked) = waiting.recv().await {
        let kept = last.take().filter(|(_, used)| used.elapsed() < IDLE_MAX).map(|(stream, _)| stream);
        let limit = Duration::from_secs(OPEN_SECONDS_MAX);
        let was_kept = kept.is_some();
        let exchanged = async {
            match exchange(&url, source, kept, &asked).await {
                // The server may have closed it at that moment.
                Err(Ended::Lost | Ended::Io(_)) if was_kept => exchange(&url, source, None, &asked).await,
                exchanged => exchanged,
            }
        };
        match timeout(limit, exchanged).await.unwrap_or(Err(Ended::Slow)) {
            Ok(stream) => last = Some((stream, Instant::now())),
            Err(ended) => bench.trouble(&ended),
        }
    }
}

/// Sends one request and waits for its answer; returns the connection for the next one.
async fn exchange(
    url: &str,
    source: Option<IpAddr>,
    kept: Option<TcpStream>,
    asked: &Asked,
) -> Result<TcpStream, Ended> {
    let stream = match kept {
        Some(stream) => stream,
        None => open::dial(url, source).await?,
    };
    let request = open::request(url, asked)?;
    let mut unsent = request.as_bytes();
    while !unsent.is_empty() {
        stream.writable().await?;
        match stream.try_write(unsent) {
            Ok(written) => unsent = &unsent[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (mut responses, mut body, mut answer) = (Responses::default(), Vec::new(), Vec::new());
    loop {
        stream.readable().await?;
        answer.clear();
        answer.reserve(1_024);
        match stream.try_read_buf(&mut answer) {
            Ok(0) => return Err(Ended::Lost),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        if responses.take(&answer, &mut body)?.1 {
            return Ok(stream);
        }
    }
}
