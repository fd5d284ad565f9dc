//! The chat as Socket.IO clients know it: one session for each namespace that a client joins.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use shared::domain::{
    ChatCommand, ChatReply, Command, ConversationId, ConversationKind, Disconnect, Position, Receipt,
    Refusal, Reply, Seq, Subscribe, Token, UserId,
};
use tokio_util::task::TaskTracker;

use super::{Peer, Server, Service, connect::Opening, recovery::Keeper};
use crate::{
    connection::Acknowledgements,
    hub::Turn,
    limits::Admitted,
    outbox::{Class, Outbox},
    protocol::socketio::{self, Arguments, Credentials, Request, Voice},
    session::{Outcome, Seal, Session, Source},
};

/// Lets clients into the namespaces of the chat.
pub struct ChatServer {
    service: Arc<Service>,
    outbox: Arc<Outbox>,
    admitted: Admitted,
    source: Source,
    /// What the request showed that began the connection, for clients that show none on joining.
    token: Token,
}

impl ChatServer {
    /// For one connection, which speaks by this outbox.
    pub fn new(
        service: &Arc<Service>,
        outbox: &Arc<Outbox>,
        admitted: Admitted,
        source: Source,
        token: Token,
    ) -> Self {
        Self { service: Arc::clone(service), outbox: Arc::clone(outbox), admitted, source, token }
    }

    fn refuse(&self, namespace: &str, refusal: Refusal) {
        // Apps know one word for a token that does not let in; the code says whether a new one helps.
        let message = match refusal {
            Refusal::TokenExpired => Refusal::Unauthorized.code(),
            other => other.code(),
        };
        let refused = socketio::connect_error(namespace, message, Some(refusal.code()));
        self.outbox.send(refused, Class::Durable);
    }
}

#[async_trait]
impl Server for ChatServer {
    async fn connect(&mut self, namespace: &str, auth: Option<&Bytes>) -> Option<Box<dyn Peer>> {
        let Some((voice, dialect)) = self.service.voice(namespace) else {
            let refused = socketio::connect_error(namespace, "Invalid namespace", None);
            self.outbox.send(refused, Class::Durable);
            return None;
        };
        let mut credentials = Credentials::parse(auth);
        if credentials.token.0.is_empty() {
            credentials.token = self.token.clone();
        }
        let opening =
            Opening { service: &self.service, voice, dialect, outbox: &self.outbox, source: &self.source };
        match opening.connect(credentials).await {
            Ok(peer) => {
                self.admitted.authenticated();
                Some(Box::new(peer))
            }
            Err(refusal) => {
                self.refuse(namespace, refusal);
                None
            }
        }
    }
}

/// One client in one namespace.
pub(super) struct ChatPeer {
    pub(super) session: Session,
    pub(super) tracker: TaskTracker,
    pub(super) voice: &'static Voice,
    pub(super) outbox: Arc<Outbox>,
    pub(super) user: UserId,
    /// What it has joined, without the rooms that go with that.
    pub(super) joined: HashSet<ConversationId>,
    /// Keeps the session, where sessions can be taken up again.
    pub(super) keeper: Option<Keeper>,
    pub(super) acknowledgements: Acknowledgements,
    /// A conversation with somebody who cannot be followed yet.
    pub(super) strange: Option<ConversationId>,
    /// Whether events that are not known are relayed.
    pub(super) relays: bool,
}

impl ChatPeer {
    async fn perform(
        &mut self,
        request: Request,
        answer: Answer,
        turn: Option<Turn>,
    ) -> Result<(), Disconnect> {
        let done = match request {
            Request::Register => Ok(format!(r#"{{"ok":true,"user_id":"{}"}}"#, self.user)),
            Request::Join(conversation, seq) => {
                self.join(conversation, seq, &answer).await?.map(|()| String::new())
            }
            Request::Leave(conversation) => {
                self.leave(&conversation).await;
                Ok(format!(r#"{{"ok":true,"conversation_id":"{conversation}"}}"#))
            }
            Request::Typing(conversation, typing) => {
                self.ask(Command::Typing { conversation, typing }).await?.map(|_| OK.to_owned())
            }
            Request::Signal(signal) => self.ask(Command::Signal(signal)).await?.map(|_| OK.to_owned()),
            Request::MarkRead(conversation, seq) => self.mark_read(conversation, seq, &answer).await?,
            Request::MarkDelivered(conversation, seq) => {
                let mark = ChatCommand::Mark { conversation, seq, read: false };
                self.ask(Command::Chat(mark)).await?.map(|_| OK.to_owned())
            }
            Request::Send(send) => {
                let conversation = send.conversation.clone();
                self.send(Command::Send(send), answer, turn).await?;
                if self.strange.as_ref() == Some(&conversation) {
                    self.look_around(&conversation).await?;
                }
                return Ok(());
            }
            Request::Change(change) => {
                let change = Command::Chat(ChatCommand::Change(change));
                return self.send(change, answer, turn).await;
            }
        };
        match done {
            Ok(json) if json.is_empty() => {}
            Ok(json) => answer.ok(&json),
            Err(refusal) => answer.refuse(refusal),
        }
        Ok(())
    }

    /// Asks for what is answered at once.
    pub(super) async fn ask(&mut self, command: Command) -> Result<Result<Reply, Refusal>, Disconnect> {
        match self.session.handle(command, &|_| Bytes::new()).await {
            Outcome::Reply(Reply::Refused(refusal)) => Ok(Err(refusal)),
            Outcome::Reply(reply) => Ok(Ok(reply)),
            Outcome::Done => Ok(Ok(Reply::Done)),
            Outcome::Later(reply) => Ok(match reply.await {
                Reply::Refused(refusal) => Err(refusal),
                reply => Ok(reply),
            }),
            Outcome::Close(reason) => Err(reason),
        }
    }

    /// The answer goes out behind what was missed and before what comes after it; so it is not given here.
    async fn join(
        &mut self,
        conversation: ConversationId,
        seq: Option<Seq>,
        answer: &Answer,
    ) -> Result<Result<(), Refusal>, Disconnect> {
        if self.joined.contains(&conversation) {
            self.leave(&conversation).await;
        }
        let recover = seq.map(|seq| Position { epoch: String::new(), seq });
        let (voice, id, room) = (self.voice, answer.id, conversation.clone());
        let seal = move |reply: &Reply| match reply {
            Reply::Subscribed(subscribed) => voice.joined(id, &room, subscribed),
            _ => Bytes::new(),
        };
        let began = AtomicU64::new(0);
        let seal = |reply: &Reply| {
            if let Reply::Subscribed(subscribed) = reply {
                began.store(subscribed.seq.0, Ordering::Relaxed);
            }
            seal(reply)
        };
        if let Err(refusal) = self.enter(subscribe(conversation.clone(), recover), &seal).await? {
            return Ok(Err(refusal));
        }
        self.joined.insert(conversation.clone());
        if let Some(keeper) = &mut self.keeper {
            keeper.joined(conversation.clone(), Seq(began.into_inner()));
            keeper.keep().await;
        }
        self.look_around(&conversation).await?;
        Ok(Ok(()))
    }

    /// Joins a room, and sends what `seal` makes of the answer before anything that comes after it.
    pub(super) async fn enter(
        &mut self,
        request: Subscribe,
        seal: Seal<'_>,
    ) -> Result<Result<(), Refusal>, Disconnect> {
        match self.session.handle(Command::Subscribe(request), seal).await {
            Outcome::Done => Ok(Ok(())),
            Outcome::Reply(Reply::Refused(refusal)) => Ok(Err(refusal)),
            Outcome::Close(reason) => Err(reason),
            Outcome::Reply(_) | Outcome::Later(_) => Ok(Err(Refusal::Unavailable)),
        }
    }

    pub(super) async fn leave(&mut self, conversation: &ConversationId) {
        let presence = self.presence_of(conversation);
        for room in presence.into_iter().chain([conversation.clone()]) {
            let _ = self.ask(Command::Unsubscribe(room)).await;
        }
        self.joined.remove(conversation);
        if let Some(keeper) = &mut self.keeper
            && keeper.left(conversation)
        {
            keeper.keep().await;
        }
    }

    /// Where one hears whether the other one in a direct conversation is there.
    fn presence_of(&self, conversation: &ConversationId) -> Option<ConversationId> {
        let ConversationKind::Direct(pair) = conversation.kind() else { return None };
        let other = if pair.smaller == self.user.as_str() { pair.larger } else { pair.smaller };
        Some(ConversationId::presence(&UserId::parse(other).ok()?))
    }

    async fn mark_read(
        &mut self,
        conversation: ConversationId,
        seq: Option<Seq>,
        answer: &Answer,
    ) -> Result<Result<String, Refusal>, Disconnect> {
        // Beyond the end is the end.
        let seq = seq.unwrap_or(Seq(u64::MAX));
        let mark = ChatCommand::Mark { conversation: conversation.clone(), seq, read: true };
        if let Err(refusal) = self.ask(Command::Chat(mark)).await? {
            return Ok(Err(refusal));
        }
        if answer.id.is_none() {
            return Ok(Ok(String::new()));
        }
        // It may have read further before.
        let receipts = self.receipts(&conversation).await?;
        let own = receipts.iter().find(|receipt| receipt.user == self.user);
        let read = own.map_or(Seq(0), |receipt| receipt.read);
        Ok(Ok(format!(r#"{{"ok":true,"conversation_id":"{conversation}","seq":{read}}}"#)))
    }

    async fn receipts(&mut self, conversation: &ConversationId) -> Result<Vec<Receipt>, Disconnect> {
        let asked = Command::Chat(ChatCommand::Receipts(conversation.clone()));
        Ok(match self.ask(asked).await? {
            Ok(Reply::Chat(ChatReply::Receipts(receipts))) => receipts,
            Ok(_) | Err(_) => Vec::new(),
        })
    }

    /// Follows the other one in a direct conversation; how things stand is told at once. Strangers cannot be followed: then
    /// everything but the other's presence works, until something was said.
    pub(super) async fn look_around(&mut self, conversation: &ConversationId) -> Result<(), Disconnect> {
        if let Some(presence) = self.presence_of(conversation) {
            let followed = self.ask(Command::Subscribe(subscribe(presence, None))).await?;
            self.strange = followed.is_err().then(|| conversation.clone());
        }
        Ok(())
    }

    /// What is accepted may be answered later; the client may go on meanwhile.
    async fn send(&mut self, command: Command, answer: Answer, turn: Option<Turn>) -> Result<(), Disconnect> {
        match self.session.handle(command, &|_| Bytes::new()).await {
            Outcome::Reply(reply) => answer.sent(&reply),
            Outcome::Later(reply) => {
                let permit = tokio::select! {
                    permit = self.acknowledgements.place() => permit,
                    // The store may not answer for long, and nobody waits for it here any more.
                    _ = self.outbox.closed() => return Ok(()),
                };
                self.tracker.spawn(async move {
                    let _held = (permit, turn);
                    answer.sent(&reply.await);
                });
            }
            Outcome::Done => {}
            Outcome::Close(reason) => return Err(reason),
        }
        Ok(())
    }
}

const OK: &str = r#"{"ok":true}"#;

fn subscribe(conversation: ConversationId, recover: Option<Position>) -> Subscribe {
    Subscribe { conversation, recover, join_leave: false, refuse_unrecoverable: false }
}

#[async_trait]
impl Peer for ChatPeer {
    async fn event(
        &mut self,
        id: Option<u64>,
        name: Option<&str>,
        arguments: Arguments,
    ) -> Result<(), Disconnect> {
        // Who is being sent away asks again elsewhere.
        let Ok(turn) = self.session.begin() else { return Ok(()) };
        let name = name.unwrap_or_default();
        let answer = Answer {
            voice: self.voice,
            outbox: Arc::clone(&self.outbox),
            id,
            event: name.to_owned(),
            conversation: None,
        };
        match socketio::read(&self.voice.spelling, name, &arguments, self.relays) {
            Some(Ok(request)) => {
                let conversation = socketio::conversation_of(&arguments);
                Box::pin(self.perform(request, Answer { conversation, ..answer }, turn)).await
            }
            Some(Err(refusal)) => {
                let conversation = socketio::conversation_of(&arguments);
                Answer { conversation, ..answer }.refuse(refusal);
                Ok(())
            }
            // As a server without a handler for it would: nothing happens.
            None => Ok(()),
        }
    }

    async fn leave(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.forget().await;
        }
    }
}

/// Where the answer to an event goes.
struct Answer {
    voice: &'static Voice,
    outbox: Arc<Outbox>,
    id: Option<u64>,
    event: String,
    conversation: Option<ConversationId>,
}

impl Answer {
    fn ok(&self, json: &str) {
        if let Some(id) = self.id {
            self.outbox.send(self.voice.ack(id, json), Class::Durable);
        }
    }

    fn refuse(&self, refusal: Refusal) {
        let frame = match self.id {
            Some(id) => self.voice.ack(id, &format!(r#"{{"ok":false,"error":"{}"}}"#, refusal.code())),
            None => self.voice.refused(&self.event, refusal, self.conversation.as_ref()),
        };
        self.outbox.send(frame, Class::Durable);
    }

    fn sent(&self, reply: &Reply) {
        match (reply, self.id) {
            (Reply::Sent(sent), Some(id)) => self.outbox.send(self.voice.sent(id, sent), Class::Durable),
            (Reply::Refused(refusal), _) => self.refuse(*refusal),
            _ => {}
        }
    }
}
