//! What a client does about what it hears: notes deliveries, joins, and reads up what it missed.

use std::{rc::Rc, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::{
    open::Ended,
    seat::{Seat, State, Waiting},
};
use crate::{
    dialect::{Dialect, Heard, Missed, Place, Session},
    http,
    tally::{Delivered, Entered, Note},
};

/// Messages on a page of the history that is read over HTTP.
const PAGE_MESSAGES: u32 = 100;
/// How long a publisher that is refused waits before it sends something else.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Messages of one room that may wait until the history before them is read; what comes on top is lost, and counts so.
const HELD_MESSAGES_MAX: usize = 100_000;

/// A room whose history is being read, since more was missed than a resume brings.
pub struct CatchUp {
    /// Up to where the history is read; what comes after it comes by itself.
    upto: u64,
    /// From where the last page was asked for.
    asked_from: u64,
    /// What has come by itself meanwhile, with its place and when: it is later than what is read.
    held: Vec<(Note, u64, u64)>,
    started_us: u64,
}

impl Seat {
    pub fn hear(self: &Rc<Self>, heard: Heard<'_>, now_us: u64, started_us: u64) -> Result<(), Ended> {
        let dialect = self.bench.plan.dialect;
        let mut state = self.state.borrow_mut();
        match heard {
            Heard::Message { room, note, place } => {
                // Only Centrifuge's answers bring messages without naming their room.
                let is_read_up = room.is_empty() && dialect == Dialect::Centrifuge;
                if !is_read_up && state.hold(&note, place, now_us) {
                    return Ok(());
                }
                let follows = self.deliver(&mut state, room, note, place, now_us);
                drop(state);
                if follows {
                    self.publish(now_us);
                }
            }
            Heard::Ping => self.write(&mut state, dialect.pong()),
            Heard::Opened { session } => {
                session.clone_into(&mut state.session);
                let (id, offset) = &state.resume;
                let greeting = dialect.greeting(Session { token: &state.token, id, offset });
                self.write(&mut state, &greeting);
            }
            Heard::Greeted { session, node } => self.greeted(&mut state, session, node, started_us),
            Heard::Offset(offset) => {
                if !state.resume.0.is_empty() {
                    offset.clone_into(&mut state.resume.1);
                }
            }
            Heard::Joined { id, epoch, offset, missed } => {
                if let Some(Waiting::Join(room)) = state.waiting.remove(&id) {
                    self.joined(
                        &mut state,
                        room,
                        &Place { epoch: epoch.to_owned(), offset },
                        missed,
                        started_us,
                    );
                }
            }
            Heard::Page { id } => {
                if let Some(Waiting::Page(room)) = state.waiting.remove(&id) {
                    self.paged(&mut state, room);
                }
            }
            Heard::Done { id } => self.done(&mut state, id, now_us, started_us),
            Heard::Refused { id, code } => match state.waiting.remove(&id) {
                Some(Waiting::Send { .. }) => {
                    *self.bench.counts.borrow_mut().refused.entry(code).or_default() += 1;
                    if now_us < self.repeats_until_us.get() {
                        tokio::task::spawn_local(Rc::clone(self).publish_later());
                    }
                }
                Some(Waiting::Signal) => self.bench.signals_refused.set(true),
                Some(Waiting::Join(_) | Waiting::Page(_)) | None => return Err(Ended::Refused(code)),
            },
            Heard::Unsubscribed(id) => {
                self.bench.counts.borrow_mut().unsubscribed += 1;
                let rooms = &self.bench.plan.rooms;
                if let Some(&room) = self.plan.rooms.iter().find(|&&room| rooms[room as usize].id == id) {
                    self.join(&mut state, room);
                }
            }
            Heard::Event => self.bench.counts.borrow_mut().events += 1,
            Heard::Damaged => {
                self.bench.counts.borrow_mut().damaged += 1;
                self.bench.trouble(&"a body came otherwise than it was sent");
            }
            Heard::Closed(code) => return Err(Ended::Closed(code)),
        }
        Ok(())
    }

    /// Takes the place of a message that was refused, so that as many as before are under way.
    async fn publish_later(self: Rc<Self>) {
        sleep(REFUSED_PAUSE).await;
        let now_us = self.bench.now_us();
        if now_us < self.repeats_until_us.get() {
            self.publish(now_us);
        }
    }

    /// A request was done, and its answer says nothing more.
    fn done(self: &Rc<Self>, state: &mut State, id: u64, now_us: u64, started_us: u64) {
        match state.waiting.remove(&id) {
            // A server that says nothing of places keeps nothing.
            Some(Waiting::Join(room)) => {
                let nowhere = Place { epoch: String::new(), offset: 0 };
                self.joined(state, room, &nowhere, Missed::Gone, started_us);
            }
            Some(Waiting::Send { due_us, members }) => {
                let mut counts = self.bench.counts.borrow_mut();
                counts.accepted += 1;
                counts.due += members;
                self.bench.timings.borrow_mut().accept.record(now_us.saturating_sub(due_us));
            }
            Some(Waiting::Page(_) | Waiting::Signal) | None => {}
        }
    }

    /// The client is known: joins its rooms, unless its session was taken up again with them.
    fn greeted(self: &Rc<Self>, state: &mut State, session: &str, node: &str, started_us: u64) {
        state.is_greeted = true;
        if self.bench.plan.dialect == Dialect::Socketio {
            let is_recovered = !session.is_empty() && state.resume.0 == session;
            if is_recovered && state.epochs.len() == self.plan.rooms.len() {
                state.joined.extend(&self.plan.rooms);
            } else {
                state.resume = (session.to_owned(), String::new());
            }
        } else {
            session.clone_into(&mut state.session);
            node.clone_into(&mut state.node);
        }
        for &room in &self.plan.rooms {
            if !state.joined.contains(&room) {
                self.join(state, room);
            }
        }
        self.seat_if_complete(state, started_us);
    }

    fn join(self: &Rc<Self>, state: &mut State, room: u32) {
        let id = state.next_id(Waiting::Join(room));
        let epoch = state.epochs.get(&room).cloned();
        let from = epoch.map(|epoch| Place { epoch, offset: state.ledger.place(room) });
        let plan = &self.bench.plan;
        let text = plan.dialect.join(id, &plan.rooms[room as usize].id, from.as_ref(), &state.token);
        self.write(state, &text);
    }

    fn joined(
        self: &Rc<Self>,
        state: &mut State,
        room: u32,
        Place { epoch, offset }: &Place,
        missed: Missed,
        started_us: u64,
    ) {
        let is_return = state.epochs.insert(room, epoch.clone()).is_some();
        match missed {
            Missed::Limited if is_return && state.ledger.place(room) < *offset => {
                self.bench.counts.borrow_mut().limited += 1;
                let catch_up = CatchUp { upto: *offset, asked_from: 0, held: Vec::new(), started_us };
                state.catching_up.insert(room, catch_up);
                return self.read_page(state, room);
            }
            Missed::Gone if is_return => {
                self.bench.counts.borrow_mut().unrecoverable += 1;
                state.ledger.forgive(room);
            }
            _ => {}
        }
        state.ledger.begin(room, *offset);
        state.joined.insert(room);
        self.seat_if_complete(state, started_us);
    }

    /// Asks for the next page of what was missed.
    fn read_page(self: &Rc<Self>, state: &mut State, room: u32) {
        let from = Place {
            epoch: state.epochs.get(&room).cloned().unwrap_or_default(),
            offset: state.ledger.place(room),
        };
        if let Some(catch_up) = state.catching_up.get_mut(&room) {
            catch_up.asked_from = from.offset;
        }
        let plan = &self.bench.plan;
        let id = state.next_id(Waiting::Page(room));
        match plan.dialect.history(id, &plan.rooms[room as usize].id, &from) {
            Some(text) => self.write(state, &text),
            None => {
                tokio::task::spawn_local(Rc::clone(self).read_page_over_http(id, room, from.offset));
            }
        }
    }

    async fn read_page_over_http(self: Rc<Self>, id: u64, room: u32, after: u64) {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<Message>,
        }
        #[derive(Deserialize)]
        struct Message {
            seq: u64,
            body: Box<RawValue>,
        }
        let (token, connection) = {
            let state = self.state.borrow();
            (state.token.clone(), state.connections)
        };
        let conversation = &self.bench.plan.rooms[room as usize].id;
        let (url, limit) = (&self.plan.url, PAGE_MESSAGES);
        let address = format!("{url}/v1/conversations/{conversation}/messages?after={after}&limit={limit}");
        let page = http::get::<Page>(&address, Some(&token)).await;
        let now_us = self.bench.now_us();
        let mut state = self.state.borrow_mut();
        // The page is of no use to another connection, which asks for its own.
        if state.connections != connection || state.waiting.remove(&id).is_none() {
            return;
        }
        match page {
            Ok(page) => {
                for Message { seq, body } in page.messages {
                    match Note::find(body.get().as_bytes()) {
                        Some((Some(note), _)) => {
                            self.deliver(&mut state, "", note, seq, now_us);
                        }
                        // Entries of other kinds have places, too.
                        _ => state.ledger.begin(room, seq),
                    }
                }
                self.paged(&mut state, room);
            }
            Err(error) => {
                self.bench.trouble(&error);
                // Comes back, and asks again.
                drop(state);
                self.cut(0);
            }
        }
    }

    /// A page is read: asks for the next, or lets in what has come meanwhile.
    fn paged(self: &Rc<Self>, state: &mut State, room: u32) {
        let Some(catch_up) = state.catching_up.get(&room) else { return };
        let place = state.ledger.place(room);
        if place < catch_up.upto && place > catch_up.asked_from {
            return self.read_page(state, room);
        }
        let Some(CatchUp { upto, held, started_us, .. }) = state.catching_up.remove(&room) else { return };
        state.ledger.begin(room, upto);
        for (note, place, came_us) in held {
            self.deliver(state, "", note, place, came_us);
        }
        state.joined.insert(room);
        self.seat_if_complete(state, started_us);
    }

    /// Notes a delivery. Returns whether it asks for another message of this seat.
    fn deliver(&self, state: &mut State, room: &str, note: Note, place: u64, now_us: u64) -> bool {
        // What the history has beyond that comes by itself, too.
        if state.catching_up.get(&note.room).is_some_and(|catch_up| place > catch_up.upto) {
            return false;
        }
        let mut counts = self.bench.counts.borrow_mut();
        let target = self.bench.plan.rooms.get(note.room as usize);
        let is_meant = target.is_some_and(|target| room.is_empty() || target.id == room);
        if !is_meant || !self.plan.rooms.contains(&note.room) {
            counts.misdelivered += 1;
            return false;
        }
        let Entered { delivered, not_recovered } = state.ledger.enter(&note, place);
        counts.not_recovered += not_recovered;
        match delivered {
            Delivered::New => counts.delivered += 1,
            Delivered::Late => {
                counts.delivered += 1;
                counts.reordered += 1;
            }
            Delivered::Repeated if state.is_greeted => {
                counts.repeated += 1;
                return false;
            }
            // A session that is taken up may begin a little before its end.
            Delivered::Repeated => {
                counts.resent += 1;
                return false;
            }
        }
        // What was missed while away says nothing about the delay of a delivery.
        if state.is_seated {
            self.bench.timings.borrow_mut().delivery.record(now_us.saturating_sub(note.time_us));
        }
        note.sender == self.plan.seat && now_us < self.repeats_until_us.get()
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
}

impl State {
    /// Keeps a message back while the history before it is being read.
    fn hold(&mut self, note: &Note, place: u64, now_us: u64) -> bool {
        let Some(catch_up) = self.catching_up.get_mut(&note.room) else { return false };
        if catch_up.held.len() < HELD_MESSAGES_MAX {
            catch_up.held.push((*note, place, now_us));
        }
        true
    }
}
