//! One conversation on this node: its room, and how far the node has followed it.

use std::sync::Arc;

use shared::domain::{ConversationId, Event, Message, Seq};
use tokio::{sync::oneshot, time::Instant};

use crate::{hub::Room, metrics::Metrics};

/// Most bytes of events that wait for one conversation's repair; above it they are let go and found again by their gap.
const REPAIR_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether events flow to the room, or wait.
#[derive(Debug)]
pub enum Line {
    /// Events are delivered as they come.
    Flowing,
    /// Something is missing and being read; what comes meanwhile waits here, in order.
    Repairing {
        /// What has come since.
        waiting: Vec<Event>,
        /// Bytes of what has come.
        bytes: usize,
    },
}

/// One conversation on this node.
#[derive(Debug)]
pub struct Topic {
    /// Its members here.
    pub room: Room,
    /// Whether Redis has confirmed the subscription.
    pub confirmed: bool,
    /// When the subscription was last asked for.
    pub asked: Instant,
    /// Joins that wait for the confirmation.
    pub joining: Vec<oneshot::Sender<()>>,
    /// Since when nobody is here.
    pub idle_since: Option<Instant>,
    /// Up to where every open member has everything; `None` until the first member has opened.
    last: Option<Seq>,
    line: Line,
    /// How many repairs in a row brought nothing.
    fruitless: u32,
}

impl Topic {
    /// A conversation that somebody wants to join; not subscribed yet.
    pub fn new() -> Self {
        Self {
            room: Room::default(),
            confirmed: false,
            asked: Instant::now(),
            joining: Vec::new(),
            idle_since: None,
            last: None,
            line: Line::Flowing,
            fruitless: 0,
        }
    }

    /// Up to where every open member has everything.
    pub fn last(&self) -> Option<Seq> {
        self.last
    }

    /// Whether events are delivered as they come.
    pub fn is_flowing(&self) -> bool {
        matches!(self.line, Line::Flowing)
    }

    /// How many repairs in a row brought nothing.
    pub fn fruitless(&self) -> u32 {
        self.fruitless
    }

    /// Takes events in the order in which they arrived. Returns the position to repair from when one of them shows that
    /// something is missing; from then on events wait until [`Topic::repaired`].
    pub fn take(
        &mut self,
        conversation: &ConversationId,
        events: Vec<Event>,
        metrics: &Metrics,
    ) -> Option<Seq> {
        if let Line::Repairing { .. } = self.line {
            for event in events {
                self.wait(event);
            }
            return None;
        }
        let mut ready = Vec::with_capacity(events.len());
        let mut events = events.into_iter();
        let mut gap = None;
        for event in events.by_ref() {
            match event {
                Event::Message(message) => match self.place(&message) {
                    Place::Next => ready.push(Event::Message(message)),
                    Place::Known => metrics.repeats_dropped.increment(1),
                    Place::Held => {}
                    Place::Beyond(last) => {
                        gap = Some((last, message));
                        break;
                    }
                },
                ephemeral => ready.push(ephemeral),
            }
        }
        if !ready.is_empty() {
            // Ephemeral events are no sign that what is missing comes.
            if !ready.iter().all(Event::is_ephemeral) {
                self.fruitless = 0;
            }
            metrics.deliveries.increment(self.room.deliver(conversation, &ready));
        }
        let (last, message) = gap?;
        self.start_repair();
        self.wait(Event::Message(message));
        for event in events {
            self.wait(event);
        }
        Some(last)
    }

    /// Where a message belongs, and the step forward when it is the next one.
    fn place(&mut self, message: &Arc<Message>) -> Place {
        match self.last {
            // Nobody is open yet: who opens will know what it has read.
            None => {
                self.room.hold(message);
                Place::Held
            }
            Some(last) if message.seq <= last => Place::Known,
            // A `prev` below `last` means that what was seen in between did not survive; nothing is missing after it.
            Some(last) if message.prev <= last => {
                self.last = Some(message.seq);
                self.room.hold(message);
                Place::Next
            }
            Some(last) => Place::Beyond(last),
        }
    }

    /// From now on events wait.
    pub fn start_repair(&mut self) {
        self.line = Line::Repairing { waiting: Vec::new(), bytes: 0 };
        self.fruitless += 1;
    }

    fn wait(&mut self, event: Event) {
        let Line::Repairing { waiting, bytes } = &mut self.line else { return };
        *bytes += match &event {
            Event::Message(message) => message.body.as_bytes().len() + size_of::<Message>(),
            _ => size_of::<Event>(),
        };
        if *bytes <= REPAIR_BYTES_MAX {
            waiting.push(event);
        }
    }

    /// What was missing is here: delivers it and all that has waited. Returns the position of the next gap, if any.
    pub fn repaired(
        &mut self,
        conversation: &ConversationId,
        missing: Vec<Message>,
        metrics: &Metrics,
    ) -> Option<Seq> {
        let Line::Repairing { waiting, .. } = std::mem::replace(&mut self.line, Line::Flowing) else {
            return None;
        };
        let mut events: Vec<Event> =
            missing.into_iter().map(|message| Event::Message(Arc::new(message))).collect();
        events.extend(waiting);
        self.take(conversation, events, metrics)
    }

    /// What is missing cannot be had: everyone who is open is sent away to catch up alone. Returns how many were.
    pub fn give_up(&mut self, conversation: &ConversationId) -> usize {
        let waiting = std::mem::replace(&mut self.line, Line::Flowing);
        self.last = None;
        self.fruitless = 0;
        let sent_away = self.room.fail(conversation);
        // Members that are still reading may need what has waited.
        if let Line::Repairing { waiting, .. } = waiting {
            for event in &waiting {
                if let Event::Message(message) = event {
                    self.room.hold(message);
                }
            }
        }
        sent_away
    }

    /// The first member has opened, having read up to `seq`.
    pub fn starts_at(&mut self, seq: Seq) {
        self.last = Some(seq);
    }

    /// Nobody is here any more, so nobody needs what is missing.
    pub fn forget_position(&mut self) {
        self.last = None;
        self.line = Line::Flowing;
        self.fruitless = 0;
    }
}

enum Place {
    Next,
    Known,
    Held,
    Beyond(Seq),
}

#[cfg(test)]
mod tests {
    use shared::domain::{Body, ClientInfo, ConnectionId, Message, MessageId, MessageKind, UserId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_join_is_no_sign_that_a_repair_has_brought_something() {
        let (metrics, conversation) = (Metrics::register(), ConversationId::parse("general").unwrap());
        let alice = UserId::parse("alice").unwrap();
        let mut topic = Topic::new();
        topic.starts_at(Seq(1));
        for repairs in 1..4 {
            topic.start_repair();
            let who = ClientInfo { user: alice.clone(), client: ConnectionId(Uuid::nil()), info: None };
            assert_eq!(topic.take(&conversation, vec![Event::Join(who)], &metrics), None);
            assert_eq!(topic.repaired(&conversation, Vec::new(), &metrics), None);
            assert_eq!(topic.fruitless(), repairs);
        }
        topic.start_repair();
        let message = Message {
            id: MessageId(Uuid::nil()),
            conversation: conversation.clone(),
            seq: Seq(2),
            prev: Seq(1),
            time: 0,
            sender: alice,
            client_id: None,
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json("1"),
        };
        assert_eq!(topic.repaired(&conversation, vec![message], &metrics), None);
        assert_eq!((topic.fruitless(), topic.last()), (0, Some(Seq(2))));
    }
}
