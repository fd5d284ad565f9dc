//! One client: connects, sends, and comes back when it is cut off. What it hears is taken in by [`super::hear`].

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    frame,
    hear::CatchUp,
    inbox::{Inbox, Piece},
    open::{Ended, OPEN_SECONDS_MAX, dial, open, request},
    plan::{Assignment as Plan, SeatPlan},
    worker::Bench,
};
use crate::{
    dialect::{Asked, Dialect, HEARTBEAT_SECONDS, Heard, Signal, Transport},
    tally::{Ledger, Note},
};

/// Longest wait before another try, in milliseconds.
const BACKOFF_MS_MAX: u64 = 20_000;
/// First wait before another try, in milliseconds; it doubles from try to try, and each is a random part of it.
const BACKOFF_MS_FIRST: u64 = 500;
/// What may wait for a socket that takes no more, in bytes; messages beyond are refused by the tester itself.
const UNSENT_BYTES_MAX: usize = 1_048_576;

/// Why a message was not even sent.
pub const NOT_CONNECTED: &str = "not connected";

/// One client.
pub struct Seat {
    pub plan: SeatPlan,
    pub bench: Rc<Bench>,
    pub state: RefCell<State>,
    /// Told when a storm cuts the connection.
    cut: Notify,
    /// How long to wait after the cut, in milliseconds.
    pub pause_ms: Cell<u64>,
    /// When the connection was lost, in microseconds of the run; to be taken once all is there again.
    pub lost_us: Cell<Option<u64>>,
    /// Until when each message that has come back is followed by another.
    pub repeats_until_us: Cell<u64>,
}

#[derive(Default)]
pub struct State {
    stream: Option<Rc<TcpStream>>,
    /// Bytes that the socket has not taken yet.
    unsent: Vec<u8>,
    last_id: u64,
    pub waiting: HashMap<u64, Waiting>,
    pub joined: HashSet<u32>,
    pub is_greeted: bool,
    pub is_seated: bool,
    /// Names the connection and its node in the requests that go up beside it.
    pub session: String,
    pub node: String,
    /// Rooms whose history is being read.
    pub catching_up: HashMap<u32, CatchUp>,
    /// How many connections there were before.
    pub connections: u64,
    // What is below outlives a connection.
    pub token: String,
    /// Takes a session up again: its secret, and where it stood.
    pub resume: (String, String),
    /// The rooms that it was in, with the stream of each.
    pub epochs: HashMap<u32, String>,
    sent: HashMap<u32, u64>,
    pub ledger: Ledger,
    turn: usize,
}

/// What an answer is waited for.
pub enum Waiting {
    Join(u32),
    Page(u32),
    Send { due_us: u64, members: u64 },
    Signal,
}

impl Seat {
    pub fn new(plan: SeatPlan, bench: Rc<Bench>) -> Self {
        Self {
            plan,
            bench,
            state: RefCell::default(),
            cut: Notify::new(),
            pause_ms: Cell::new(0),
            lost_us: Cell::new(None),
            repeats_until_us: Cell::new(0),
        }
    }

    /// Connects, and again whenever the connection ends.
    pub async fn live(self: Rc<Self>) {
        let mut backoff_ms = BACKOFF_MS_FIRST;
        loop {
            let ended = self.session().await;
            let was_seated = self.leave();
            match ended {
                Ended::Cut => {
                    sleep(Duration::from_millis(self.pause_ms.get())).await;
                    continue;
                }
                ended if was_seated => {
                    self.bench.counts.borrow_mut().disconnected += 1;
                    self.bench.trouble(&ended);
                    backoff_ms = BACKOFF_MS_FIRST;
                }
                ended => {
                    self.bench.counts.borrow_mut().connect_failed += 1;
                    if ended.is_final() {
                        self.bench.hopeless(&ended);
                    }
                    self.bench.trouble(&ended);
                }
            }
            sleep(Duration::from_millis(rand::random_range(backoff_ms / 4..=backoff_ms))).await;
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
        }
    }

    /// Breaks the connection; the client comes back after a pause.
    pub fn cut(&self, pause_ms: u64) {
        self.pause_ms.set(pause_ms);
        self.cut.notify_one();
    }

    /// Whether it is in all its rooms.
    pub fn is_seated(&self) -> bool {
        self.state.borrow().is_seated
    }

    /// Sends a message to the next of its rooms; `due_us` is when it should have been sent.
    pub fn publish(self: &Rc<Self>, due_us: u64) {
        let mut state = self.state.borrow_mut();
        let Some(&room) = self.plan.rooms.get(state.turn % self.plan.rooms.len().max(1)) else { return };
        if self.send(&mut state, room, due_us) {
            state.turn += 1;
        }
    }

    /// Sends one more message to each room that it has sent to, so that whoever misses the one before can tell.
    pub fn last_word(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let rooms: Vec<u32> = state.sent.keys().copied().collect();
        for room in rooms {
            self.send(&mut state, room, self.bench.now_us());
        }
    }

    /// Returns whether it could be sent.
    fn send(self: &Rc<Self>, state: &mut State, room: u32, due_us: u64) -> bool {
        let bench = &self.bench;
        bench.counts.borrow_mut().publishes += 1;
        let obstacle = match state {
            State { is_seated: false, .. } => Some(NOT_CONNECTED),
            State { unsent, .. } if unsent.len() > UNSENT_BYTES_MAX => Some("the server does not read"),
            _ => None,
        };
        if let Some(obstacle) = obstacle {
            *bench.counts.borrow_mut().refused.entry(obstacle.to_owned()).or_default() += 1;
            return false;
        }
        let number = state.sent.entry(room).or_default();
        let note = Note { sender: self.plan.seat, room, number: *number, time_us: due_us };
        let client_id = format!("{}-{}-{room}-{number}", bench.plan.run, self.plan.seat);
        *number += 1;
        let target = &bench.plan.rooms[room as usize];
        let id = state.next_id(Waiting::Send { due_us, members: target.members });
        let body = note.body(bench.plan.body_bytes);
        bench.timings.borrow_mut().late.record(bench.now_us().saturating_sub(due_us));
        let dialect = bench.plan.dialect;
        let send = if bench.plan.tokens.is_some() { Dialect::send } else { Dialect::send_plainly };
        let text = send(dialect, id, &target.id, &client_id, &body);
        self.write(state, &text);
        true
    }

    /// Tells that it types, or what it has read, in the room that it speaks in next.
    pub fn signal(self: &Rc<Self>, is_receipt: bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.is_seated || self.bench.signals_refused.get() {
            return;
        }
        let Some(&room) = self.plan.rooms.get(state.turn % self.plan.rooms.len().max(1)) else { return };
        let signal = if is_receipt { Signal::Read(state.ledger.place(room)) } else { Signal::Typing };
        if signal == Signal::Read(0) {
            return;
        }
        self.bench.counts.borrow_mut().signals += 1;
        let id = state.next_id(Waiting::Signal);
        let text = self.bench.plan.dialect.signal(id, &self.bench.plan.rooms[room as usize].id, signal);
        self.write(state, &text);
    }

    async fn session(self: &Rc<Self>) -> Ended {
        let started_us = self.bench.now_us();
        let opening = timeout(Duration::from_secs(OPEN_SECONDS_MAX), self.connect());
        let (stream, ahead) = match opening.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(ended)) => return ended,
            Err(_) => return Ended::Slow,
        };
        self.state.borrow_mut().stream = Some(Rc::clone(&stream));
        if let Err(ended) = self.begin(started_us) {
            return ended;
        }
        let seated = async {
            sleep(Duration::from_secs(OPEN_SECONDS_MAX)).await;
            if self.is_seated() { std::future::pending().await } else { Ended::Slow }
        };
        tokio::select! {
            ended = self.read(&stream, &ahead, started_us) => ended,
            ended = seated => ended,
            ended = self.beat() => ended,
            () = self.cut.notified() => Ended::Cut,
        }
    }

    /// Says what the client says first.
    fn begin(self: &Rc<Self>, started_us: u64) -> Result<(), Ended> {
        let plan = &self.bench.plan;
        if let Some((method, path, body)) = {
            let state = self.state.borrow();
            plan.transport.open(&state.token)
        } {
            return self.ask(&mut self.state.borrow_mut(), &(method, path, body));
        }
        if plan.dialect.is_greeted_by_opening() {
            let greeted = Heard::Greeted { session: "", node: "" };
            return self.hear(greeted, self.bench.now_us(), started_us);
        }
        let mut state = self.state.borrow_mut();
        if let Some(hello) = plan.dialect.hello(&state.token) {
            self.write(&mut state, &hello);
        }
        Ok(())
    }

    /// Shows from time to time that it is there, where the protocol has the client do that.
    async fn beat(self: &Rc<Self>) -> Ended {
        let dialect = self.bench.plan.dialect;
        while dialect.heartbeat(0).is_some() {
            sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
            let mut state = self.state.borrow_mut();
            let id = state.next_id(Waiting::Signal);
            let heartbeat = dialect.heartbeat(id).unwrap_or_default();
            self.write(&mut state, &heartbeat);
        }
        std::future::pending().await
    }

    /// Forgets the connection. Returns whether it was in all its rooms.
    fn leave(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.stream = None;
        state.unsent.clear();
        state.waiting.clear();
        state.joined.clear();
        state.catching_up.clear();
        state.is_greeted = false;
        state.connections += 1;
        let was_seated = std::mem::take(&mut state.is_seated);
        if was_seated {
            self.bench.counts.borrow_mut().connected -= 1;
            self.lost_us.set(Some(self.bench.now_us()));
        }
        was_seated
    }

    async fn connect(&self) -> Result<(Rc<TcpStream>, Vec<u8>), Ended> {
        let url = &self.plan.url;
        if let Some(tokens) = &self.bench.plan.tokens
            && self.state.borrow().token.is_empty()
        {
            let token = tokens.token(url, &self.plan.user).await?;
            self.state.borrow_mut().token = token;
        }
        let Plan { dialect, transport, .. } = &self.bench.plan;
        if *transport != Transport::WebSocket {
            return Ok((Rc::new(dial(url, self.plan.source).await?), Vec::new()));
        }
        let path = dialect.path(&self.state.borrow().token);
        let (stream, ahead) = open(url, &path, self.plan.source).await?;
        Ok((Rc::new(stream), ahead))
    }

    async fn read(self: &Rc<Self>, stream: &TcpStream, ahead: &[u8], started_us: u64) -> Ended {
        let mut inbox = Inbox::new(self.bench.plan.transport);
        if let Err(ended) = self.take(&mut inbox, ahead, started_us) {
            return ended;
        }
        loop {
            if stream.readable().await.is_err() {
                return Ended::Lost;
            }
            let mut scratch = self.bench.scratch.borrow_mut();
            let read = match stream.try_read(&mut scratch) {
                Ok(0) => return Ended::Lost,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return error.into(),
            };
            if let Err(ended) = self.take(&mut inbox, &scratch[..read], started_us) {
                return ended;
            }
        }
    }

    fn take(self: &Rc<Self>, inbox: &mut Inbox, bytes: &[u8], started_us: u64) -> Result<(), Ended> {
        let now_us = self.bench.now_us();
        let Plan { dialect, transport, .. } = &self.bench.plan;
        inbox.take(bytes, &mut |piece| match piece {
            Piece::Text(text) => {
                let mut result = Ok(());
                let mut hear = |heard| {
                    if result.is_ok() {
                        result = self.hear(heard, now_us, started_us);
                    }
                };
                let heard = dialect.listen(text, &mut hear);
                heard.map_err(|error| Ended::Strange(error.to_string()))?;
                result
            }
            Piece::Ping(payload) => {
                let mut out = Vec::new();
                frame::pong(payload, &mut out);
                self.write_bytes(&mut self.state.borrow_mut(), &out);
                Ok(())
            }
            Piece::Fetched => {
                let mut state = self.state.borrow_mut();
                let next = transport.fetch(&state.session);
                next.map_or(Ok(()), |next| self.ask(&mut state, &next))
            }
        })
    }

    /// Asks on the connection itself.
    fn ask(self: &Rc<Self>, state: &mut State, asked: &Asked) -> Result<(), Ended> {
        let request = request(&self.plan.url, asked)?;
        self.write_bytes(state, request.as_bytes());
        Ok(())
    }

    /// Says something, by the transport's way up.
    pub fn write(self: &Rc<Self>, state: &mut State, text: &str) {
        let transport = self.bench.plan.transport;
        if transport == Transport::WebSocket {
            let mut out = Vec::with_capacity(text.len() + 14);
            frame::text(text, &mut out);
            return self.write_bytes(state, &out);
        }
        let SeatPlan { url, source, seat, .. } = &self.plan;
        let asked = transport.bring(&state.session, &state.node, text);
        if !self.bench.uplinks.post(&self.bench, url, *source, *seat, asked) {
            self.bench.trouble(&"too many requests wait on the way up; what is not sent remains unknown");
        }
    }

    /// Gives bytes to the socket, and what it does not take to a task that waits for it.
    fn write_bytes(self: &Rc<Self>, state: &mut State, bytes: &[u8]) {
        let Some(stream) = &state.stream else { return };
        if !state.unsent.is_empty() {
            return state.unsent.extend(bytes);
        }
        // An error shows itself to the reader, too.
        let written = stream.try_write(bytes).unwrap_or(0);
        if written < bytes.len() {
            state.unsent.extend(&bytes[written..]);
            let (seat, stream) = (Rc::clone(self), Rc::clone(stream));
            tokio::task::spawn_local(async move { seat.flush(&stream).await });
        }
    }

    async fn flush(&self, stream: &TcpStream) {
        while stream.writable().await.is_ok() {
            let mut state = self.state.borrow_mut();
            match stream.try_write(&state.unsent) {
                Ok(written) => drop(state.unsent.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            if state.unsent.is_empty() {
                return;
            }
        }
    }
}

impl State {
    pub fn next_id(&mut self, waiting: Waiting) -> u64 {
        // 1 is the greeting's in a protocol that numbers it.
        self.last_id = self.last_id.max(1) + 1;
        self.waiting.insert(self.last_id, waiting);
        self.last_id
    }
}
