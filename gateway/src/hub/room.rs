//! The members of one conversation on this node, and the write to each of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use shared::domain::{ClientInfo, ConnectionId, ConversationId, Disconnect, Event, Message, Seq, UserId};

use super::{
    client::{Client, Subscription},
    held::Held,
};
use crate::{
    dialect::{DIALECTS_MAX, Dialect},
    outbox::{Class, Outbox},
};

/// Members among whom one is looked for one by one. Most rooms are personal ones, and need no index for one member.
const UNINDEXED_MEMBERS_MAX: usize = 8;

/// One client in one conversation.
#[derive(Debug)]
pub struct Member {
    client: Arc<Client>,
    subscription: Arc<Subscription>,
    // What every delivery needs stands here once more: each pointer that it would have to follow to a client that was
    // not spoken to for a while is a cache miss, and they were a tenth of a delivery's cost.
    outbox: Arc<Outbox>,
    dialect: &'static Dialect,
    wants_all: bool,
    gate: Gate,
}

impl Member {
    /// Whether its token lets it in, member or not.
    fn is_granted(&self, conversation: &ConversationId) -> bool {
        self.client.claims().identity.grants.allow(conversation)
    }

    /// A member that has joined and gets nothing yet, since it still reads what it missed. It has not begun to read, and
    /// the others have been given everything up to `last`.
    pub fn held(client: Arc<Client>, subscription: Arc<Subscription>, last: Option<Seq>) -> Self {
        let (outbox, dialect) = (Arc::clone(&client.outbox), client.dialect);
        let wants_all = subscription.join_leave;
        Self { client, subscription, outbox, dialect, wants_all, gate: Gate::Held { since: last } }
    }

    fn id(&self) -> ConnectionId {
        self.client.info.client
    }

    fn is_held(&self) -> bool {
        matches!(self.gate, Gate::Held { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Live events wait in the room's [`Held`]. When the member began to read, the others had been given everything up to
    /// `since`; what it did not find of that has not survived.
    Held { since: Option<Seq> },
    /// Gets every event above this seq.
    Open { after: Seq },
}

/// What became of a member that has read up to somewhere.
#[derive(Debug)]
pub enum Opening {
    /// It gets live events from now on. These arrived meanwhile, lie above what it has read, and are not yet sent to it.
    Open(Vec<Arc<Message>>),
    /// Too much has happened meanwhile: it must read again.
    Behind,
    /// It has left, or was opened before.
    Gone,
}

/// The members of one conversation on this node.
#[derive(Debug, Default)]
pub struct Room {
    members: Vec<Member>,
    /// Where each member is, once they were many.
    #[expect(clippy::box_collection, reason = "most rooms have none, and are many")]
    index: Option<Box<HashMap<ConnectionId, usize>>>,
    held: Option<Box<Held>>,
    held_members: usize,
}

impl Room {
    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many are here.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether somebody here wants to see others join and leave.
    pub fn wants_comings_and_goings(&self) -> bool {
        self.members.iter().any(|member| member.wants_all)
    }

    /// Lets a member in; one that is here already is replaced.
    pub fn add(&mut self, member: Member) {
        self.remove(member.id());
        self.held_members += usize::from(member.is_held());
        self.held.get_or_insert_default();
        if self.members.is_empty() {
            // Most rooms never have more than this one.
            self.members.reserve_exact(1);
        }
        let at = self.members.len();
        match &mut self.index {
            Some(index) => {
                index.insert(member.id(), at);
            }
            None if at < UNINDEXED_MEMBERS_MAX => {}
            None => {
                let all = self.members.iter().chain([&member]).map(Member::id).zip(0..);
                self.index = Some(Box::new(all.collect()));
            }
        }
        self.members.push(member);
    }

    /// Where a member is.
    fn place(&self, id: ConnectionId) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&id).copied(),
            None => self.members.iter().position(|member| member.id() == id),
        }
    }

    /// Lets a member out; false when it was not here.
    pub fn remove(&mut self, id: ConnectionId) -> bool {
        let Some(at) = self.place(id) else { return false };
        let gone = self.members.swap_remove(at);
        if let Some(index) = &mut self.index {
            index.remove(&id);
            if let Some(moved) = self.members.get(at) {
                index.insert(moved.id(), at);
            }
        }
        self.release(gone.gate);
        true
    }

    /// Opens a member's gate after it has read up to `up_to`; the room as a whole has been given everything up to `last`.
    pub fn open(&mut self, id: ConnectionId, up_to: Seq, last: Option<Seq>) -> Opening {
        let Some(at) = self.place(id) else { return Opening::Gone };
        let member = &mut self.members[at];
        let Gate::Held { since } = member.gate else { return Opening::Gone };
        let missed = match &self.held {
            Some(held) => held.after(up_to),
            None => Some(Vec::new()),
        };
        // Others may have read what was never received here, and so was not kept for this one.
        let falls_short = |missed: &Vec<Arc<Message>>| {
            let end = missed.last().map_or(up_to, |message| message.seq);
            since.max(Some(end)) < last
        };
        let Some(missed) = missed.filter(|missed| !falls_short(missed)) else {
            member.gate = Gate::Held { since: last };
            return Opening::Behind;
        };
        let was = std::mem::replace(&mut member.gate, Gate::Open { after: up_to });
        self.release(was);
        Opening::Open(missed)
    }

    /// A member's gate is gone; when it was the last one held, nothing needs to be kept any more.
    fn release(&mut self, gate: Gate) {
        self.held_members -= usize::from(matches!(gate, Gate::Held { .. }));
        if self.held_members == 0 {
            self.held = None;
        }
    }

    /// Keeps a message for those who are still reading.
    pub fn hold(&mut self, message: &Arc<Message>) {
        if let Some(held) = &mut self.held {
            held.push(message);
        }
    }

    /// Writes a batch to every open member: encoded once for each dialect, one write for each socket, no waiting.
    /// Returns how many events were handed to sockets.
    pub fn deliver(&self, conversation: &ConversationId, events: &[Event]) -> u64 {
        let mut batch = Batch::new(conversation, events);
        self.members.iter().map(|member| batch.write(member)).sum()
    }

    /// Writes messages to one member; those at or below its gate are left out.
    pub fn deliver_to(&self, id: ConnectionId, conversation: &ConversationId, messages: &[Arc<Message>]) {
        if let Some(at) = self.place(id) {
            let events: Vec<Event> = messages.iter().cloned().map(Event::Message).collect();
            Batch::new(conversation, &events).write(&self.members[at]);
        }
    }

    /// Writes bytes that are for one member alone.
    pub fn send_to(&self, id: ConnectionId, frame: Bytes) {
        if let Some(at) = self.place(id) {
            self.members[at].client.send(frame, Class::Durable);
        }
    }

    /// The users who are here as members; those whom a token lets in are not asked for a membership.
    pub fn users(&self, conversation: &ConversationId) -> BTreeSet<UserId> {
        let members = self.members.iter().filter(|member| !member.is_granted(conversation));
        members.map(|member| member.client.info.user.clone()).collect()
    }

    /// Ends the subscriptions of users who may be here no longer, for good. Returns whose they were.
    pub fn expel(&mut self, conversation: &ConversationId, users: &[UserId]) -> Vec<ClientInfo> {
        let is_meant =
            |member: &&Member| users.contains(&member.client.info.user) && !member.is_granted(conversation);
        let expelled: Vec<ClientInfo> =
            self.members.iter().filter(is_meant).map(|member| member.client.info.clone()).collect();
        for info in &expelled {
            let Some(at) = self.place(info.client) else { continue };
            let Member { client, subscription, .. } = &self.members[at];
            subscription.end();
            client.send((client.dialect.removed)(conversation), Class::Durable);
            self.remove(info.client);
        }
        expelled
    }

    /// Sends every open member away because something was missed that cannot be repaired here: each comes back and
    /// catches up by itself. Members that are still reading stay. Returns how many were sent away.
    pub fn fail(&mut self, conversation: &ConversationId) -> usize {
        let open: Vec<ConnectionId> =
            self.members.iter().filter(|member| !member.is_held()).map(Member::id).collect();
        for &id in &open {
            let Some(at) = self.place(id) else { continue };
            let Member { client, subscription, .. } = &self.members[at];
            subscription.end();
            let resubscribe = (client.dialect.resubscribe)(conversation);
            if subscription.server_side || resubscribe.is_empty() {
                client.close(Disconnect::InsufficientState);
            } else {
                client.send(resubscribe, Class::Durable);
            }
            self.remove(id);
        }
        open.len()
    }
}

/// One batch of events, encoded at most once for each dialect and each set of events that some member is to get.
struct Batch<'a> {
    conversation: &'a ConversationId,
    events: &'a [Event],
    first: Seq,
    /// How many of the events are messages.
    messages: u64,
    /// How many of the events are for every member.
    for_all: u64,
    /// By dialect, for members that want to see others come and go and for those that do not.
    encoded: [[Option<Bytes>; 2]; DIALECTS_MAX],
}

impl<'a> Batch<'a> {
    fn new(conversation: &'a ConversationId, events: &'a [Event]) -> Self {
        let (mut messages, mut for_all) = (0, 0);
        let mut first = Seq(u64::MAX);
        for event in events {
            for_all += u64::from(!event.is_presence());
            if let Event::Message(message) = event {
                messages += 1;
                first = first.min(message.seq);
            }
        }
        Self { conversation, events, first, messages, for_all, encoded: Default::default() }
    }

    fn write(&mut self, member: &Member) -> u64 {
        let Gate::Open { after } = member.gate else { return 0 };
        let events = if member.wants_all { self.events.len() as u64 } else { self.for_all };
        if after >= self.first {
            return self.write_some(member, after);
        }
        if events == 0 {
            return 0;
        }
        let bytes = self.whole(member.dialect, member.wants_all);
        let class = if self.messages == 0 { Class::Ephemeral } else { Class::Durable };
        member.outbox.send(bytes, class);
        events
    }

    /// The whole batch, for members that need all of it: nearly everyone, nearly always.
    fn whole(&mut self, dialect: &'static Dialect, wants_all: bool) -> Bytes {
        let slot = &mut self.encoded[dialect.index][usize::from(wants_all)];
        if let Some(bytes) = slot {
            return bytes.clone();
        }
        let bytes = if wants_all || self.for_all == self.events.len() as u64 {
            (dialect.batch)(self.conversation, self.events)
        } else {
            let for_all: Vec<Event> =
                self.events.iter().filter(|event| !event.is_presence()).cloned().collect();
            (dialect.batch)(self.conversation, &for_all)
        };
        slot.insert(bytes).clone()
    }

    /// For a member that has read some of the batch by itself.
    fn write_some(&self, member: &Member, after: Seq) -> u64 {
        let is_new = |event: &&Event| match event {
            Event::Message(message) => message.seq > after,
            other => member.wants_all || !other.is_presence(),
        };
        let events: Vec<Event> = self.events.iter().filter(is_new).cloned().collect();
        if !events.is_empty() {
            member.outbox.send((member.dialect.batch)(self.conversation, &events), Class::Durable);
        }
        events.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::client;

    #[tokio::test]
    async fn members_are_found_however_many_they_are() {
        let mut room = Room::default();
        let many = 3 * UNINDEXED_MEMBERS_MAX;
        let clients: Vec<_> = (0..many).map(|n| client(n as u128, u64::MAX)).collect();
        for (client, _) in clients.iter().chain(&clients) {
            room.add(Member::held(Arc::clone(client), Subscription::new(false, false), None));
            assert!(matches!(room.open(client.info.client, Seq(0), None), Opening::Open(_)));
        }
        for (gone, (client, _)) in clients.iter().enumerate() {
            assert_eq!(room.len(), many - gone);
            for (here, _) in &clients[gone..] {
                assert_eq!(
                    room.place(here.info.client).map(|at| room.members[at].id()),
                    Some(here.info.client)
                );
            }
            assert!(room.remove(client.info.client));
            assert!(!room.remove(client.info.client));
        }
        assert!(room.is_empty());
    }
}
