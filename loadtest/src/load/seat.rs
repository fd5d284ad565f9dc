//! One client: connects, joins its rooms, notes everything that it is given, and comes back when it is cut off.

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
    frame::{self, Frame},
    open::{Ended, OPEN_SECONDS_MAX, open},
    plan::SeatPlan,
    worker::Bench,
};
use crate::{
    dialect::{Dialect, Heard, Place, Signal},
    tally::{Delivered, Ledger, Note},
};

/// Longest wait before another try, in milliseconds.
const BACKOFF_MS_MAX: u64 = 20_000;
/// First wait before another try, in milliseconds; it doubles from try to try, and each is a random part of it.
const BACKOFF_MS_FIRST: u64 = 500;

/// One client.
pub struct Seat {
    pub plan: SeatPlan,
    bench: Rc<Bench>,
    state: RefCell<State>,
    /// Told when a storm cuts the connection.
    cut: Notify,
    /// How long to wait after the cut, in milliseconds.
    pub pause_ms: Cell<u64>,
    /// When the connection was lost, in microseconds of the run; to be taken once all is there again.
    lost_us: Cell<Option<u64>>,
    /// Until when each message that has come back is followed by another.
    pub repeats_until_us: Cell<u64>,
}

#[derive(Default)]
struct State {
    stream: Option<Rc<TcpStream>>,
    /// Bytes that the socket has not taken yet.
    unsent: Vec<u8>,
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    joined: HashSet<u32>,
    is_seated: bool,
    token: String,
    // What is below outlives a connection.
    epochs: HashMap<u32, String>,
    sent: HashMap<u32, u64>,
    ledger: Ledger,
    turn: usize,
}

enum Waiting {
    Join(u32),
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
        let bench = &self.bench;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        bench.counts.borrow_mut().publishes += 1;
        if !state.is_seated {
            *bench.counts.borrow_mut().refused.entry("not connected".to_owned()).or_default() += 1;
            return;
        }
        let Some(&room) = self.plan.rooms.get(state.turn % self.plan.rooms.len().max(1)) else { return };
        state.turn += 1;
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
        let hello = {
            let mut state = self.state.borrow_mut();
            state.stream = Some(Rc::clone(&stream));
            self.bench.plan.dialect.hello(&state.token)
        };
        if let Some(hello) = hello {
            self.write(&mut self.state.borrow_mut(), &hello);
        }
        let seated = async {
            sleep(Duration::from_secs(OPEN_SECONDS_MAX)).await;
            if self.is_seated() { std::future::pending().await } else { Ended::Slow }
        };
        tokio::select! {
            ended = self.read(&stream, ahead, started_us) => ended,
            ended = seated => ended,
            () = self.cut.notified() => Ended::Cut,
        }
    }

    /// Forgets the connection. Returns whether it was in all its rooms.
    fn leave(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.stream = None;
        state.unsent.clear();
        state.waiting.clear();
        state.joined.clear();
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
        let (stream, ahead) = open(url, self.bench.plan.dialect.path(), self.plan.source).await?;
        Ok((Rc::new(stream), ahead))
    }

    async fn read(self: &Rc<Self>, stream: &TcpStream, mut rest: Vec<u8>, started_us: u64) -> Ended {
        if let Err(ended) = self.take(&mut rest, started_us) {
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
            // Most reads bring whole frames, which need no copy.
            let taken = if rest.is_empty() {
                self.frames(&scratch[..read], started_us).map(|used| rest.extend(&scratch[used..read]))
            } else {
                rest.extend(&scratch[..read]);
                self.take(&mut rest, started_us)
            };
            if let Err(ended) = taken {
                return ended;
            }
        }
    }

    fn take(self: &Rc<Self>, rest: &mut Vec<u8>, started_us: u64) -> Result<(), Ended> {
        let used = self.frames(rest, started_us)?;
        rest.drain(..used);
        if rest.is_empty() {
            *rest = Vec::new();
        }
        Ok(())
    }

    /// Takes all whole frames, and says how many bytes they are.
    fn frames(self: &Rc<Self>, bytes: &[u8], started_us: u64) -> Result<usize, Ended> {
        let now_us = self.bench.now_us();
        let mut used = 0;
        while let Some((frame, len)) = frame::parse(&bytes[used..]) {
            used += len;
            match frame {
                Frame::Message(text) => {
                    let mut result = Ok(());
                    let mut hear = |heard| {
                        if result.is_ok() {
                            result = self.hear(heard, now_us, started_us);
                        }
                    };
                    let heard = self.bench.plan.dialect.listen(text, &mut hear);
                    heard.map_err(|error| Ended::Strange(error.to_string()))?;
                    result?;
                }
                Frame::Ping(payload) => {
                    let mut out = Vec::new();
                    frame::pong(payload, &mut out);
                    self.write_bytes(&mut self.state.borrow_mut(), &out);
                }
                Frame::Pong => {}
                Frame::Close(code) => return Err(Ended::Closed(code)),
                Frame::Strange => return Err(Ended::Strange("an unexpected frame".to_owned())),
            }
        }
        Ok(used)
    }

    fn hear(self: &Rc<Self>, heard: Heard<'_>, now_us: u64, started_us: u64) -> Result<(), Ended> {
        let dialect = self.bench.plan.dialect;
        let mut state = self.state.borrow_mut();
        match heard {
            Heard::Message { room, note, place } => {
                let follows = self.deliver(&mut state, room, note, place, now_us);
                drop(state);
                if follows {
                    self.publish(now_us);
                }
            }
            Heard::Ping => self.write(&mut state, dialect.pong()),
            Heard::Opened => {
                let greeting = dialect.greeting(&state.token);
                self.write(&mut state, &greeting);
            }
            Heard::Greeted => {
                for &room in &self.plan.rooms {
                    self.join(&mut state, room);
                }
                self.seat_if_complete(&mut state, started_us);
            }
            Heard::Joined { id, epoch, offset, recovered } => {
                if let Some(Waiting::Join(room)) = state.waiting.remove(&id) {
                    let is_return = state.epochs.insert(room, epoch.to_owned()).is_some();
                    if is_return && !recovered {
                        self.bench.counts.borrow_mut().limited += 1;
                    }
                    state.ledger.begin(room, offset);
                    state.joined.insert(room);
                    self.seat_if_complete(&mut state, started_us);
                }
            }
            Heard::Done { id } => match state.waiting.remove(&id) {
                Some(Waiting::Join(room)) => {
                    state.joined.insert(room);
                    self.seat_if_complete(&mut state, started_us);
                }
                Some(Waiting::Send { due_us, members }) => {
                    let mut counts = self.bench.counts.borrow_mut();
                    counts.accepted += 1;
                    counts.due += members;
                    self.bench.timings.borrow_mut().accept.record(now_us.saturating_sub(due_us));
                }
                Some(Waiting::Signal) | None => {}
            },
            Heard::Refused { id, code } => match state.waiting.remove(&id) {
                Some(Waiting::Send { .. }) => {
                    *self.bench.counts.borrow_mut().refused.entry(code).or_default() += 1;
                }
                Some(Waiting::Signal) => self.bench.signals_refused.set(true),
                Some(Waiting::Join(_)) | None => return Err(Ended::Refused(code)),
            },
            Heard::Unsubscribed(id) => {
                self.bench.counts.borrow_mut().unsubscribed += 1;
                let rooms = &self.bench.plan.rooms;
                if let Some(&room) = self.plan.rooms.iter().find(|&&room| rooms[room as usize].id == id) {
                    self.join(&mut state, room);
                }
            }
            Heard::Event => self.bench.counts.borrow_mut().events += 1,
        }
        Ok(())
    }

    /// Notes a delivery. Returns whether it asks for another message of this seat.
    fn deliver(&self, state: &mut State, room: &str, note: Note, place: u64, now_us: u64) -> bool {
        let mut counts = self.bench.counts.borrow_mut();
        let target = self.bench.plan.rooms.get(note.room as usize);
        let is_meant = target.is_some_and(|target| room.is_empty() || target.id == room);
        if !is_meant || !self.plan.rooms.contains(&note.room) {
            counts.misdelivered += 1;
            return false;
        }
        match state.ledger.enter(&note, place) {
            Delivered::New => counts.delivered += 1,
            Delivered::Late => {
                counts.delivered += 1;
                counts.reordered += 1;
            }
            Delivered::Repeated => {
                counts.repeated += 1;
                return false;
            }
        }
        // What was missed while away says nothing about the delay of a delivery.
        if state.is_seated {
            self.bench.timings.borrow_mut().delivery.record(now_us.saturating_sub(note.time_us));
        }
        note.sender == self.plan.seat && now_us < self.repeats_until_us.get()
    }

    fn join(self: &Rc<Self>, state: &mut State, room: u32) {
        let id = state.next_id(Waiting::Join(room));
        let epoch = state.epochs.get(&room).cloned();
        let from = epoch.map(|epoch| Place { epoch, offset: state.ledger.place(room) });
        let plan = &self.bench.plan;
        self.write(state, &plan.dialect.join(id, &plan.rooms[room as usize].id, from.as_ref()));
    }

    fn seat_if_complete(&self, state: &mut State, started_us: u64) {
        if state.is_seated || state.joined.len() < self.plan.rooms.len() {
            return;
        }
        state.is_seated = true;
        self.bench.counts.borrow_mut().connected += 1;
        let now_us = self.bench.now_us();
        let mut timings = self.bench.timings.borrow_mut();
        timings.connect.record(now_us - started_us);
        if let Some(lost_us) = self.lost_us.take() {
            timings.resume.record(now_us - lost_us);
        }
    }

    fn write(self: &Rc<Self>, state: &mut State, text: &str) {
        let mut out = Vec::with_capacity(text.len() + 14);
        frame::text(text, &mut out);
        self.write_bytes(state, &out);
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
    fn next_id(&mut self, waiting: Waiting) -> u64 {
        // 1 is the greeting's in a protocol that numbers it.
        self.last_id = self.last_id.max(1) + 1;
        self.waiting.insert(self.last_id, waiting);
        self.last_id
    }
}
