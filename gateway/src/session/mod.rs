//! One client's session: what it may say when, and what it is in.
//!
//! May use: domain, action, hub, heartbeat. Deliberately absent: protocols (an answer is sealed by a function given from
//! outside), sockets, the broker and the store.

mod chat;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use shared::{
    auth::{Claims, Identity},
    clock,
    domain::{
        ChatCommand, ClientInfo, Command, Connect, Connected, ConnectionId, ConnectionRecord, ConversationId,
        ConversationKind, Disconnect, MessageKind, Position, Refusal, Reply, Send, Sent, Subscribe,
        Subscribed, Token, UserId,
    },
};
use uuid::Uuid;

use crate::{
    action::{self, Acknowledgement, Actor, Denial, Node, ServerRoom},
    dialect::Dialect,
    heartbeat::Heartbeat,
    hub::{Client, Subscription, Turn},
    limits::{self, Limit, Seat},
    outbox::{Class, Outbox},
};

/// Turns an answer to the command at hand into bytes for the socket.
pub type Seal<'a> = &'a (dyn Fn(&Reply) -> Bytes + Sync);

/// What is to be done after a command.
pub enum Outcome {
    /// Answer this.
    Reply(Reply),
    /// Answer what this comes to; the client may go on meanwhile.
    Later(BoxFuture<'static, Reply>),
    /// It is answered already, or needs no answer.
    Done,
    /// End the connection.
    Close(Disconnect),
}

/// Where a client comes from, as its user and operators see it.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its address, as far as trusted proxies tell.
    pub address: String,
    /// What it calls itself.
    pub user_agent: String,
}

/// Most conversations in which one connection is remembered to type. The others end by themselves after some seconds.
const TYPING_MAX: usize = 16;

/// The client is being sent away, so that nothing new is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving;

/// One client's session, from the first byte to the last.
pub struct Session {
    node: Arc<Node>,
    heartbeat: Arc<Heartbeat>,
    dialect: &'static Dialect,
    outbox: Arc<Outbox>,
    client: Option<Arc<Client>>,
    /// Its place among the user's connections.
    seat: Option<Seat<UserId>>,
    /// What it is in. Mostly a few, and never more than the limit.
    subscriptions: Vec<(ConversationId, Arc<Subscription>)>,
    /// Where it types.
    typing: Vec<ConversationId>,
    /// Until it has said who it is.
    source: Option<Box<Source>>,
}

impl Session {
    /// A session whose client has not said yet who it is.
    pub fn new(
        node: Arc<Node>,
        heartbeat: Arc<Heartbeat>,
        dialect: &'static Dialect,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            node,
            heartbeat,
            dialect,
            outbox,
            client: None,
            seat: None,
            subscriptions: Vec::new(),
            typing: Vec::new(),
            source: None,
        }
    }

    /// Says where the client comes from, before it says who it is.
    #[must_use]
    pub fn coming_from(mut self, source: Source) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The client, once it has said who it is.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_deref()
    }

    /// Whether the client has said who it is.
    pub fn is_authenticated(&self) -> bool {
        self.client.is_some()
    }

    /// Begins something that will be answered, where the client has said who it is.
    ///
    /// # Errors
    /// When it is being sent away.
    pub fn begin(&self) -> Result<Option<Turn>, Leaving> {
        self.client.as_ref().map(|client| client.begin().ok_or(Leaving)).transpose()
    }

    /// Does what the client asks.
    pub async fn handle(&mut self, command: Command, seal: Seal<'_>) -> Outcome {
        let Some(client) = self.client.clone() else {
            return match command {
                Command::Connect(connect) => {
                    let node = Arc::clone(&self.node);
                    node.limiter.coming().of(self.connect(connect, seal)).await
                }
                _ => Outcome::Close(Disconnect::BadRequest),
            };
        };
        let who = &client.claims().identity;
        if is_request(&command)
            && let Err(refusal) = self.node.limiter.request_by(&who.user)
        {
            return self.answer(Err(refusal));
        }
        let done = match command {
            Command::Pong if client.pong() => return Outcome::Done,
            Command::Pong | Command::Connect(_) => return Outcome::Close(Disconnect::BadRequest),
            Command::Refresh { token } => return self.refresh(&client, &token).await,
            Command::Subscribe(request) => {
                let node = Arc::clone(&self.node);
                return node.limiter.coming().of(self.subscribe(&client, &request, seal)).await;
            }
            Command::Unsubscribe(conversation) => {
                self.unsubscribe(&client, &conversation);
                Ok(Reply::Unsubscribed)
            }
            Command::Publish { conversation, body } => {
                let kind = MessageKind::TEXT;
                let send = Send { conversation, client_id: None, reply_to: None, kind, body, retry: false };
                return self.send(&client, send, |_| Reply::Published).await;
            }
            Command::Send(send) => return self.send(&client, send, Reply::Sent).await,
            Command::Chat(command) => return self.chat(&client, command).await,
            Command::History(query) => action::history(&self.node, who, &query).await.map(Reply::History),
            Command::Presence(conversation) => {
                action::presence(&self.node, who, &conversation).await.map(Reply::Presence)
            }
            Command::PresenceStats(conversation) => {
                let stats = action::presence_stats(&self.node, who, &conversation).await;
                stats.map(|stats| Reply::PresenceStats { clients: stats.clients, users: stats.users })
            }
            Command::Typing { conversation, typing } => self.typing(&client, conversation, typing).await,
            Command::Signal(signal) => {
                let actor = Actor::User(who.clone());
                action::signal(&self.node, &actor, signal).await.map(|()| Reply::Done)
            }
            Command::UserPresence(users) => {
                let actor = Actor::User(who.clone());
                action::user_presence(&self.node, &actor, &users).await.map(Reply::UserPresence)
            }
            Command::Connections => action::connections(&self.node, &who.user).await.map(Reply::Connections),
            Command::Unsupported(refusal) => Err(refusal),
        };
        self.answer(done)
    }

    fn answer(&self, done: Result<Reply, Refusal>) -> Outcome {
        Outcome::Reply(done.unwrap_or_else(|refusal| {
            self.node.metrics.refusals.increment(1);
            Reply::Refused(refusal)
        }))
    }

    async fn connect(&mut self, connect: Connect, seal: Seal<'_>) -> Outcome {
        if connect.token.0.is_empty() {
            return self.answer(Err(Refusal::Unauthorized));
        }
        let claims = match action::authenticate(&self.node, &connect.token.0).await {
            Ok(claims) => claims,
            Err(denial) => return self.deny(denial),
        };
        let seat = match self.node.limiter.seat(&claims.identity.user) {
            Ok(seat) => seat,
            Err(refusal) => return self.answer(Err(refusal)),
        };
        let node = Arc::clone(&self.node);
        let _turn = node.limiter.turn_to_connect().await;
        let id = ConnectionId(Uuid::new_v4());
        let info = ClientInfo { user: claims.identity.user.clone(), client: id, info: claims.info.clone() };
        let ttl = Some(seconds_until(claims.expires));
        let client = Arc::new(Client::new(info, self.dialect, Arc::clone(&self.outbox), claims));
        let welcome = |subscriptions: Vec<(ConversationId, Subscribed)>| {
            seal(&Reply::Connected(Connected { client: id, ttl, subscriptions }))
        };
        if let Err(refusal) = self.enter_rooms(&client, &connect.resume, &welcome).await {
            return self.answer(Err(refusal));
        }
        self.heartbeat.watch(&client);
        let record = self.record(&client);
        self.node.online.enter(record);
        self.close_if_revoked(&client, &client.claims());
        self.node.metrics.connections.increment(1.0);
        self.node.metrics.connections_opened.increment(1);
        self.client = Some(client);
        self.seat = Some(seat);
        Outcome::Done
    }

    /// Puts the client into the rooms of its user and of its roles.
    async fn enter_rooms(
        &mut self,
        client: &Arc<Client>,
        resume: &[(ConversationId, Position)],
        welcome: &(dyn Fn(Vec<(ConversationId, Subscribed)>) -> Bytes + Sync),
    ) -> Result<(), Refusal> {
        let room = |conversation: ConversationId| -> ServerRoom {
            let position = resume.iter().find(|(id, _)| *id == conversation);
            let recover = position.map(|(_, position)| position.clone());
            let request = Subscribe { conversation, recover, join_leave: false, refuse_unrecoverable: false };
            (request, Subscription::new(false, true))
        };
        let personal = room(ConversationId::personal(&client.info.user));
        let claims = client.claims();
        let roles: Vec<ServerRoom> =
            claims.identity.roles.iter().map(ConversationId::role).map(room).collect();
        action::begin(&self.node, client, &personal, &roles, welcome).await?;
        let rooms = roles.into_iter().chain([personal]);
        self.subscriptions =
            rooms.map(|(request, subscription)| (request.conversation, subscription)).collect();
        Ok(())
    }

    /// The connection as its user and operators see it, which knows from now on where it comes from.
    fn record(&mut self, client: &Client) -> ConnectionRecord {
        let Source { address, user_agent } = self.source.take().map(|source| *source).unwrap_or_default();
        ConnectionRecord {
            client: client.info.client,
            user: client.info.user.clone(),
            node: self.node.id.clone(),
            address,
            user_agent,
            protocol: self.dialect.name.into(),
            since: clock::now_ms(),
        }
    }

    async fn typing(
        &mut self,
        client: &Client,
        conversation: ConversationId,
        typing: bool,
    ) -> Result<Reply, Refusal> {
        let (who, id) = (&client.claims().identity, Some(client.info.client));
        action::typing(&self.node, who, id, &conversation, typing).await?;
        self.typing.retain(|known| *known != conversation);
        if typing && self.typing.len() < TYPING_MAX {
            self.typing.push(conversation);
        }
        Ok(Reply::Done)
    }

    /// What a client is told whose first token does not let it in.
    fn deny(&self, denial: Denial) -> Outcome {
        match denial {
            Denial::Invalid => Outcome::Close(Disconnect::InvalidToken),
            Denial::Revoked => Outcome::Close(Disconnect::Revoked),
            Denial::Expired | Denial::Unavailable => self.answer(Err(denial.into())),
        }
    }

    /// Whoever reads revocations closes the clients that are watched, so after a client is watched, or has a new token, it
    /// has to be looked whether the revocation came before.
    fn close_if_revoked(&self, client: &Client, claims: &Claims) {
        if self.node.revocable.is_revoked(claims) {
            client.close(Disconnect::Revoked);
        }
    }

    async fn refresh(&mut self, client: &Arc<Client>, token: &Token) -> Outcome {
        let claims = match action::authenticate(&self.node, &token.0).await {
            Ok(claims) if claims.identity.user == client.info.user => claims,
            // A client never gets to be somebody else.
            Ok(_) => return Outcome::Close(Disconnect::InvalidToken),
            Err(Denial::Expired) => return Outcome::Close(Disconnect::Expired),
            Err(denial) => return self.deny(denial),
        };
        let before = client.renew(Arc::clone(&claims));
        self.heartbeat.expect(client);
        self.close_if_revoked(client, &claims);
        if before.identity != claims.identity {
            self.review(client, &claims.identity).await;
        }
        let ttl = Some(seconds_until(claims.expires));
        Outcome::Reply(Reply::Refreshed { client: client.info.client, ttl })
    }

    /// Takes the client out of what its new token no longer lets it be in. It is told to ask again, and then why not.
    async fn review(&mut self, client: &Arc<Client>, who: &Identity) {
        let of_client = |(_, subscription): &&(ConversationId, Arc<Subscription>)| !subscription.server_side;
        let joined: Vec<ConversationId> = self
            .subscriptions
            .iter()
            .filter(of_client)
            .map(|(conversation, _)| conversation.clone())
            .collect();
        for role in self.roles_lost(who) {
            self.forget(&role);
            action::unsubscribe(&self.node, client, &role);
            client.send((client.dialect.removed)(&role), Class::Durable);
        }
        for conversation in joined {
            if action::authorize(&self.node, who, &conversation).await.is_err() {
                self.unsubscribe(client, &conversation);
                let resubscribe = (client.dialect.resubscribe)(&conversation);
                let told = if resubscribe.is_empty() {
                    (client.dialect.removed)(&conversation)
                } else {
                    resubscribe
                };
                client.send(told, Class::Durable);
            }
        }
    }

    /// The rooms of roles that the client is in and its token no longer gives.
    fn roles_lost(&self, who: &Identity) -> Vec<ConversationId> {
        let has = |name: &str| who.roles.iter().any(|role| role.as_str() == name);
        let is_lost =
            |room: &&ConversationId| matches!(room.kind(), ConversationKind::Role(name) if !has(name));
        let rooms = self.subscriptions.iter().filter(|(_, subscription)| subscription.server_side);
        rooms.map(|(room, _)| room).filter(is_lost).cloned().collect()
    }

    async fn subscribe(&mut self, client: &Arc<Client>, request: &Subscribe, seal: Seal<'_>) -> Outcome {
        // The room has let the client go by itself; whoever looks at the presence should not see it there for ever.
        let ended = self.subscriptions.extract_if(.., |(_, subscription)| subscription.has_ended());
        for (conversation, _) in ended {
            action::unsubscribe(&self.node, client, &conversation);
        }
        if self.subscription(&request.conversation).is_some() {
            return self.answer(Err(Refusal::AlreadySubscribed));
        }
        if self.subscriptions.len() >= self.node.limits.subscriptions_per_connection {
            limits::refused(Limit::Subscriptions);
            return self.answer(Err(Refusal::LimitExceeded));
        }
        let seal_subscribed = |subscribed: Subscribed| seal(&Reply::Subscribed(subscribed));
        match action::subscribe(&self.node, client, request, &seal_subscribed).await {
            Ok(subscription) => {
                self.subscriptions.push((request.conversation.clone(), subscription));
                Outcome::Done
            }
            Err(refusal) => self.answer(Err(refusal)),
        }
    }

    fn unsubscribe(&mut self, client: &Client, conversation: &ConversationId) {
        // What the server has put the client into, only the server takes it out of.
        if self.subscription(conversation).is_some_and(|subscription| !subscription.server_side) {
            self.forget(conversation);
            action::unsubscribe(&self.node, client, conversation);
            self.node.typists.left(conversation, &client.info.user, client.info.client);
        }
    }

    fn subscription(&self, conversation: &ConversationId) -> Option<&Subscription> {
        let found = self.subscriptions.iter().find(|(id, _)| id == conversation);
        found.map(|(_, subscription)| &**subscription)
    }

    fn forget(&mut self, conversation: &ConversationId) {
        self.subscriptions.retain(|(id, _)| id != conversation);
    }

    async fn send(&self, client: &Arc<Client>, send: Send, reply: fn(Sent) -> Reply) -> Outcome {
        let accepted = action::send(&self.node, &client.claims().identity, Some(client), send).await;
        self.acknowledge(accepted, reply)
    }

    async fn chat(&self, client: &Arc<Client>, command: ChatCommand) -> Outcome {
        match chat::chat(&self.node, client, command).await {
            Ok(chat::Done::Reply(reply)) => self.answer(Ok(reply)),
            Ok(chat::Done::Accepted(accepted)) => self.acknowledge(Ok(accepted), Reply::Sent),
            Err(refusal) => self.answer(Err(refusal)),
        }
    }

    /// Answers when the answer is due.
    fn acknowledge(&self, accepted: Result<Acknowledgement, Refusal>, reply: fn(Sent) -> Reply) -> Outcome {
        match accepted {
            Ok(Acknowledgement::Now(sent)) => Outcome::Reply(reply(sent)),
            Ok(Acknowledgement::Once(sent, stored)) => Outcome::Later(Box::pin(async move {
                match stored.await {
                    Ok(()) => reply(sent),
                    Err(_) => Reply::Refused(Refusal::Unavailable),
                }
            })),
            Err(refusal) => self.answer(Err(refusal)),
        }
    }
}

impl Drop for Session {
    /// The connection is over: the client is nowhere any more.
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        for (conversation, _) in &self.subscriptions {
            action::unsubscribe(&self.node, &client, conversation);
        }
        for conversation in &self.typing {
            self.node.typists.left(conversation, &client.info.user, client.info.client);
        }
        self.node.online.leave(client.info.client);
        self.node.metrics.connections.decrement(1.0);
    }
}

/// Whether a command counts against the rate of requests: those that have no rate of their own, and that no client says
/// again for each conversation when it comes back.
fn is_request(command: &Command) -> bool {
    match command {
        Command::Chat(ChatCommand::Change(_)) => false,
        Command::Chat(_)
        | Command::History(_)
        | Command::Presence(_)
        | Command::PresenceStats(_)
        | Command::UserPresence(_)
        | Command::Connections => true,
        _ => false,
    }
}

/// At least 1: a client that must refresh has to be told when.
fn seconds_until(expires: u64) -> u32 {
    let left = expires.saturating_sub(clock::now_ms() / 1_000);
    u32::try_from(left).unwrap_or(u32::MAX).max(1)
}
