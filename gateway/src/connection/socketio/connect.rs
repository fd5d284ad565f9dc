//! How a client gets into a namespace: anew, or as the one that it was before.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{
    clock,
    domain::{
        Catchup, Command, Connect, Connected, ConversationId, Direction, HistoryQuery, Message, Position,
        Refusal, Reply, Seq, Subscribe, Subscribed,
    },
};
use uuid::Uuid;

use super::{
    Service,
    chat::ChatPeer,
    recovery::{Found, Keeper, LOOK_BACK_MESSAGES},
};
use crate::{
    connection::Acknowledgements,
    dialect::Dialect,
    outbox::{Class, Outbox},
    protocol::socketio::{self, Credentials, Offset, Voice},
    session::{Outcome, Session, Source},
};

/// A namespace that a client is about to enter.
pub(super) struct Opening<'a> {
    pub service: &'a Service,
    pub voice: &'static Voice,
    pub dialect: &'static Dialect,
    pub outbox: &'a Arc<Outbox>,
    pub source: &'a Source,
}

impl Opening<'_> {
    /// Lets the client in and tells it so.
    ///
    /// # Errors
    /// Why it is not let in.
    pub async fn connect(&self, credentials: Credentials) -> Result<ChatPeer, Refusal> {
        let lines = &self.service.lines;
        let (node, heartbeat) = (Arc::clone(&lines.node), Arc::clone(&lines.heartbeat));
        let session = Session::new(node, heartbeat, self.dialect, Arc::clone(self.outbox));
        let mut session = session.coming_from(self.source.clone());
        let (names, returns) = (Names::new(), credentials.pid.is_some() && self.voice.recovers);
        let began = Mutex::default();
        let welcome = |reply: &Reply| {
            let Reply::Connected(connected) = reply else { return Bytes::new() };
            *began.lock() = own_rooms(connected);
            if !returns {
                return self.welcome(&names);
            }
            // It is told that it is in once it has what it missed.
            self.voice.restored(
                &connected.subscriptions.iter().map(|(_, subscribed)| subscribed).collect::<Vec<_>>(),
            )
        };
        let offset = credentials.offset.as_deref().filter(|_| returns).and_then(Offset::parse);
        let resume = offset.and_then(|offset| offset.position()).into_iter().collect();
        let connect = Command::Connect(Connect { token: credentials.token, resume });
        match session.handle(connect, &welcome).await {
            Outcome::Done => {}
            Outcome::Reply(Reply::Refused(refusal)) => return Err(refusal),
            // The token is not valid, or valid no more.
            Outcome::Reply(_) | Outcome::Later(_) | Outcome::Close(_) => return Err(Refusal::Unauthorized),
        }
        let began = began.into_inner();
        let mut peer = self.peer(session)?;
        let secret = credentials.pid.filter(|_| returns);
        if !self.take_up(&mut peer, secret, credentials.offset.as_deref(), &began).await {
            if returns {
                self.outbox.send(self.welcome(&names), Class::Durable);
            }
            if self.voice.recovers {
                let mut keeper = self.keeper(&peer, names.secret, names.sid);
                keeper.keep().await;
                keeper.hold(self.outbox);
                peer.keeper = Some(keeper);
            }
        }
        Ok(peer)
    }

    fn welcome(&self, names: &Names) -> Bytes {
        let namespace = &self.voice.namespace;
        if !self.voice.recovers {
            return socketio::connected(namespace, &names.sid, None);
        }
        let connected = socketio::connected(namespace, &names.sid, Some(&names.secret));
        let session = self.voice.session(&Offset { time: clock::now_ms(), message: None });
        [connected, session].concat().into()
    }

    fn peer(&self, session: Session) -> Result<ChatPeer, Refusal> {
        let user = session.client().ok_or(Refusal::Unavailable)?.info.user.clone();
        Ok(ChatPeer {
            session,
            tracker: self.service.lines.tracker.clone(),
            voice: self.voice,
            outbox: Arc::clone(self.outbox),
            user,
            joined: HashSet::new(),
            keeper: None,
            acknowledgements: Acknowledgements::default(),
            strange: None,
            relays: self.service.settings.relays,
        })
    }

    fn keeper(&self, peer: &ChatPeer, secret: String, name: String) -> Keeper {
        let Service { recovery, holders, lines, .. } = self.service;
        Keeper::new(recovery, holders, &lines.tracker, peer.user.clone(), secret, name)
    }

    /// Makes the client who it was before: what it missed first, in order, then the answer, under the names of then. False
    /// when that is not possible; then it is in its own rooms alone.
    async fn take_up(
        &self,
        peer: &mut ChatPeer,
        secret: Option<String>,
        offset: Option<&str>,
        began: &[(ConversationId, Subscribed)],
    ) -> bool {
        let Some(secret) = secret else { return false };
        let found = Found::look(&*self.service.recovery, &peer.user, &secret, offset).await;
        let Some(found) = found else { return false };
        let mut keeper = self.keeper(peer, secret, found.kept.name.clone());
        if peer.restore(&found, began).await.is_none() {
            for conversation in found.kept.rooms.keys() {
                peer.leave(conversation).await;
            }
            return false;
        }
        for (conversation, began) in &found.kept.rooms {
            keeper.joined(conversation.clone(), *began);
        }
        keeper.keep().await;
        keeper.hold(self.outbox);
        keeper.claim(&*self.service.lines.node.broker).await;
        let connected = socketio::connected(&self.voice.namespace, &found.kept.name, Some(&keeper.secret));
        self.outbox.send(connected, Class::Durable);
        peer.keeper = Some(keeper);
        for conversation in found.kept.rooms.into_keys() {
            // An end of the connection shows at its next message.
            let _ = peer.look_around(&conversation).await;
        }
        true
    }
}

/// What a new session is called.
struct Names {
    /// In the client's `id`: others may see it.
    sid: String,
    /// Whoever knows it and has the user's token may take the session up.
    secret: String,
}

impl Names {
    fn new() -> Self {
        let name = || Uuid::new_v4().simple().to_string();
        Self { sid: name(), secret: name() }
    }
}

/// The rooms that the server has put the client into, and where it is in each.
fn own_rooms(connected: &Connected) -> Vec<(ConversationId, Subscribed)> {
    connected.subscriptions.clone()
}

impl ChatPeer {
    /// Brings everything that was missed. `None` when that would be too much, or cannot be.
    async fn restore(&mut self, found: &Found, began: &[(ConversationId, Subscribed)]) -> Option<()> {
        for (room, subscribed) in began {
            match subscribed.catchup {
                Catchup::Complete(_) => {}
                Catchup::Limited => return None,
                Catchup::NotAsked => self.bring(found, room, subscribed.seq).await?,
            }
        }
        let rooms: Vec<_> = found.kept.rooms.iter().map(|(room, began)| (room.clone(), *began)).collect();
        for (room, began) in rooms {
            let position = match found.exact(&room) {
                Some(position) => position,
                None => found.at_least(&self.newest(&room).await?, began)?,
            };
            self.rejoin(room, position).await?;
        }
        Some(())
    }

    /// Sends what came between the last message of the client and `seq`, from where it hears the room already.
    async fn bring(&mut self, found: &Found, room: &ConversationId, seq: Seq) -> Option<()> {
        let mut newest = self.newest(room).await?;
        let Position { seq: known, .. } = found.at_least(&newest, Seq(0))?;
        newest.retain(|message| message.seq > known && message.seq <= seq);
        newest.reverse();
        let missed = Subscribed { epoch: String::new(), seq: known, catchup: Catchup::Complete(newest) };
        self.outbox.send(self.voice.restored(&[&missed]), Class::Durable);
        Some(())
    }

    async fn rejoin(&mut self, room: ConversationId, position: Position) -> Option<()> {
        let voice = self.voice;
        let seal = |reply: &Reply| match reply {
            Reply::Subscribed(subscribed) => voice.restored(&[subscribed]),
            _ => Bytes::new(),
        };
        // Where too much was missed, nothing may come by itself: it would hide the hole before it from a client that joins with
        // the last seq it has seen.
        let request = Subscribe {
            conversation: room.clone(),
            recover: Some(position),
            join_leave: false,
            refuse_unrecoverable: true,
        };
        let entered = self.enter(request, &seal).await;
        self.joined.insert(room);
        entered.ok()?.ok()
    }

    /// The newest messages of a room, newest first.
    async fn newest(&mut self, room: &ConversationId) -> Option<Vec<Message>> {
        let query = HistoryQuery {
            conversation: room.clone(),
            since: None,
            limit: LOOK_BACK_MESSAGES,
            direction: Direction::Backward,
        };
        match self.ask(Command::History(query)).await {
            Ok(Ok(Reply::History(page))) => Some(page.messages),
            _ => None,
        }
    }
}
