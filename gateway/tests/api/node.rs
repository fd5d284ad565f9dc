//! Nodes in this process, on one store and one memory, and plain requests to them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub use deploy::PATIENCE;
use gateway::{
    action::{self, AckMode, Limits, MembershipCache, Node},
    announcement::Announcement,
    api_key::{ApiKey, ApiKeys, Scope},
    connection::{
        Emulations, Lines,
        socketio::{Service, SocketIoSettings},
    },
    ephemeral::Ephemeral,
    feed::{Feed, FeedConfig},
    frame::FrameLimits,
    heartbeat::Heartbeat,
    http::{Origins, Routes, public_router},
    limits::{Limiter, Settings, Turns},
    metrics::Metrics,
    online::OnlineUsers,
    outbox::{OutboxContext, OutboxLimits, OutboxMetrics},
    peers::Peers,
    pending::Pending,
    revocation::{Revocable, UNREAD_MAX},
    roster::Roster,
    socket::{self, AcceptLimits},
    typing::Typists,
    unread::UnreadCounts,
};
use jsonwebtoken::{EncodingKey, Header};
use loadtest::client::{Client, Push, Pushes};
use serde_json::Value;
use shared::{
    auth::{Key, TokenMint, TokenRules, TokenVerifier},
    broker::{
        Broker, Inbound,
        memory::{Memory, MemoryBroker},
    },
    connections::{Connections, memory::MemoryConnections},
    domain::{Kind, Kinds, NodeId, Permission, Permissions, Role, RoleName, UserId},
    presence::{Presence, memory::MemoryPresence},
    publisher::Publisher,
    rate::memory::MemoryRateLimits,
    recovery::memory::MemoryRecovery,
    revocations::{Revocations, memory::MemoryRevocations},
    store::{Store, sqlite::SqliteStore},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

const SECRET: &str = "only for tests: 0123456789abcdefghij";
const TOKEN_SECONDS: u64 = 3_600;
/// How long a revocation is in force here.
pub const REVOCATION_LIFE: Duration = Duration::from_hours(1);
/// The page that may use the API beside those of its own host.
pub const FRIEND: &str = "https://app.example";

const FEED: FeedConfig =
    FeedConfig { shards: 2, linger: Duration::from_secs(30), position_check: Duration::from_secs(15) };
const LIMITS: Limits = Limits {
    subscriptions_per_connection: 100,
    catchup_messages: 500,
    catchup_bytes: 1 << 20,
    body_bytes: 32 * 1024,
};

/// What all nodes share.
pub struct Site {
    memory: Arc<Memory>,
    store: Arc<dyn Store>,
    presence: Arc<dyn Presence>,
    connections: Arc<dyn Connections>,
    revocations: Arc<dyn Revocations>,
    keys: Arc<ApiKeys>,
    secrets: Vec<(Scope, String)>,
    _dir: TempDir,
}

/// One node.
pub struct TestNode {
    pub node: Arc<Node>,
    pub address: String,
    /// Whether it hears what other nodes announce.
    pub hears: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("starling.db")).unwrap();
        let made = Scope::ALL.map(|scope| (scope, ApiKey::generate(scope.as_str(), &[scope]).unwrap()));
        let lines: Vec<String> = made.iter().map(|(_, (key, _))| key.to_string()).collect();
        Self {
            memory: Memory::new(4, shared::broker::sequence::Limits::default()),
            store: Arc::new(store),
            presence: Arc::new(MemoryPresence::default()),
            connections: Arc::new(MemoryConnections::default()),
            revocations: Arc::new(MemoryRevocations::new(REVOCATION_LIFE)),
            keys: Arc::new(ApiKeys::parse(&lines).unwrap()),
            secrets: made.into_iter().map(|(scope, (_, secret))| (scope, secret)).collect(),
            _dir: dir,
        }
    }

    /// A key that has this scope alone.
    pub fn key(&self, scope: Scope) -> &str {
        &self.secrets.iter().find(|(of, _)| *of == scope).unwrap().1
    }

    /// Starts a node, without a persister: what is published stays in memory.
    pub async fn start(&self, name: &str) -> TestNode {
        self.start_with(name, Arc::clone(&self.revocations), UNREAD_MAX).await
    }

    /// Starts one that reads revocations from there, and lets nobody in once it has not been able to for `unread_max`.
    pub async fn start_with(
        &self,
        name: &str,
        revocations: Arc<dyn Revocations>,
        unread_max: Duration,
    ) -> TestNode {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::register());
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Arc::clone(&self.memory)));
        let feed = Feed::start(&FEED, &broker, &self.store, &metrics, &tracker, &stop);
        let id = NodeId::parse(name).unwrap();
        let (tokens, revocable) = admission(revocations, unread_max, &metrics).await;
        let ephemeral = Arc::new(Ephemeral::new(Arc::clone(&broker), Arc::clone(&metrics)));
        let online = Arc::new(OnlineUsers::new(
            Arc::clone(&self.connections),
            Arc::clone(&self.store),
            Arc::clone(&ephemeral),
            tracker.clone(),
        ));
        let node = Arc::new(Node {
            id: id.clone(),
            installation: self.store.installation().await.unwrap(),
            ack_mode: AckMode::Accepted,
            limits: LIMITS,
            limiter: Arc::new(Limiter::new(Settings::default(), Arc::new(MemoryRateLimits::default()))),
            tokens,
            revocable,
            broker: Arc::clone(&broker),
            store: Arc::clone(&self.store),
            presence: Arc::clone(&self.presence),
            publisher: Publisher::new(Arc::clone(&broker), Arc::clone(&self.store)),
            feed: Arc::clone(&feed),
            pending: Arc::new(Pending::new(broker.partitions(), Arc::clone(&metrics))),
            roster: Arc::new(Roster::new(
                Arc::clone(&self.presence),
                Arc::clone(&ephemeral),
                tracker.clone(),
            )),
            online,
            typists: Arc::new(Typists::new(Arc::clone(&ephemeral), tracker.clone())),
            unread: Arc::new(UnreadCounts::new(Arc::clone(&self.store), Arc::clone(&ephemeral))),
            ephemeral,
            kinds: Arc::new(kinds()),
            memberships: Arc::new(MembershipCache::default()),
            metrics: Arc::clone(&metrics),
        });
        let (emulations, hears) = (Arc::new(Emulations::default()), Arc::new(AtomicBool::new(true)));
        let heartbeat = Arc::new(Heartbeat::new(metrics));
        let peers = Peers::new(node.id.clone(), Arc::clone(&node.broker));
        broker.start(&id, feed.sink(inbound(&node, &heartbeat, &emulations, &peers, &hears)));
        let outboxes =
            OutboxContext::new(OutboxLimits::default(), OutboxMetrics::register(), tracker.clone());
        watch(&node, &heartbeat, &tracker, &stop);
        let (tracked, closing) = (tracker.clone(), stop.clone());
        let lines = Lines { node: Arc::clone(&node), heartbeat, outboxes, tracker: tracked, closing };
        let routes = Routes {
            socketio: socketio(&lines),
            lines,
            peers: Arc::clone(&peers),
            emulations,
            frames: FrameLimits::default(),
            origins: Arc::new(Origins::new(&[FRIEND.to_owned()]).unwrap()),
            keys: Arc::clone(&self.keys),
            hsts_seconds: 60,
            mint: None,
        };
        let address = serve(routes, &tracker, &stop).await;
        peers.listen_at(address.parse().unwrap());
        TestNode { node, address, hears, _stop: stop.drop_guard() }
    }
}

/// Socket.IO as it is without any configuration.
fn socketio(lines: &Lines) -> Arc<Service> {
    let (recovery, settings) = (Arc::new(MemoryRecovery::default()), SocketIoSettings::default());
    let service = Service::new(lines, recovery, FrameLimits::default(), settings);
    let serving = Arc::clone(&service);
    lines.tracker.spawn(async move { serving.run().await });
    service
}

/// Serves on a free port, and returns the address.
async fn serve(routes: Routes, tracker: &TaskTracker, stop: &CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = public_router(routes);
    let served = socket::serve(
        listener,
        router,
        AcceptLimits::default(),
        Turns::default(),
        stop.clone(),
        tracker.clone(),
    );
    tracker.spawn(served);
    address
}

/// Starts what a node does by itself.
fn watch(node: &Arc<Node>, heartbeat: &Arc<Heartbeat>, tracker: &TaskTracker, stop: &CancellationToken) {
    let (node, heartbeat, stop) = (Arc::clone(node), Arc::clone(heartbeat), stop.clone());
    tracker.spawn(async move {
        let all = async {
            tokio::join!(
                node.online.sweep(),
                node.typists.run(),
                action::watch_members(&node),
                node.revocable.follow(&heartbeat)
            )
        };
        stop.run_until_cancelled(all).await;
    });
}

/// Who is let in: whoever has a token of [`token`], as long as it is not revoked on this node.
async fn admission(
    revocations: Arc<dyn Revocations>,
    unread_max: Duration,
    metrics: &Arc<Metrics>,
) -> (Arc<TokenVerifier>, Arc<Revocable>) {
    let key = Key::new("HS256", None, SECRET).unwrap();
    let tokens = TokenVerifier::new(TokenRules::default()).with_keys(None, vec![key]);
    let revocable = Revocable::new(revocations, REVOCATION_LIFE, unread_max, Arc::clone(metrics));
    revocable.read_all().await.unwrap();
    (Arc::new(tokens), Arc::new(revocable))
}

fn inbound(
    node: &Arc<Node>,
    heartbeat: &Arc<Heartbeat>,
    emulations: &Arc<Emulations>,
    peers: &Arc<Peers>,
    hears: &Arc<AtomicBool>,
) -> impl Fn(Inbound) + Send + Sync + 'static {
    let (node, emulations, hears) = (Arc::clone(node), Arc::clone(emulations), Arc::clone(hears));
    let (heartbeat, peers) = (Arc::clone(heartbeat), Arc::clone(peers));
    move |inbound| {
        let Inbound::Announcement(bytes) = inbound else { return };
        match Announcement::decode(&bytes).unwrap() {
            Announcement::MembersChanged(change) if hears.load(Ordering::SeqCst) => {
                let node = Arc::clone(&node);
                tokio::spawn(async move { action::members_changed(&node, &change).await });
            }
            Announcement::MembersChanged(_) | Announcement::TakenUp { .. } => {}
            Announcement::WhereAreYou { asked_by } => {
                let peers = Arc::clone(&peers);
                tokio::spawn(async move { peers.asked(asked_by).await });
            }
            Announcement::Here { node, address } => peers.here(node, address),
            Announcement::SendAway(away) => action::send_away(&node, &heartbeat, &away),
            Announcement::Emulation { session, data } => {
                emulations.hand_over(&session, data.into());
            }
        }
    }
}

/// The kinds of the site's conversations: with one that a role is told of.
fn kinds() -> Kinds {
    let (client, mut kind) = (Role::parse("client").unwrap(), Kind::default());
    kind.roles.insert(client.clone(), Permissions::of(&[Permission::Send, Permission::React]));
    kind.maker_role = client;
    kind.notify_role = Some(RoleName::parse("moderator").unwrap());
    let mut kinds = Kinds::default();
    assert!(kinds.set("dispute", kind));
    kinds
}

/// A token of a user.
pub fn token(user: &str) -> String {
    TokenMint::hmac(SECRET.as_bytes()).mint(&UserId::parse(user).unwrap(), TOKEN_SECONDS)
}

/// A token with these claims.
pub fn token_of(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Status and code of a problem.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json()["status"], self.status, "{self:?}");
        (self.status, self.json()["code"].as_str().unwrap().to_owned())
    }
}

impl TestNode {
    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request; `bearer` may be empty.
    pub async fn ask(&self, method: &str, path: &str, bearer: &str, body: Option<Value>) -> Answer {
        self.ask_with(method, path, bearer, &[], body).await
    }

    /// Sends a request with more headers.
    pub async fn ask_with(
        &self,
        method: &str,
        path: &str,
        bearer: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method, path, bearer, headers, &body).await
    }

    /// Sends a request whose body is any text.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        bearer: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let more: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let more = more.concat();
        let credentials =
            if bearer.is_empty() { String::new() } else { format!("authorization: Bearer {bearer}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{credentials}{more}content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let headers = headers.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        });
        Answer {
            status: status.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    /// A WebSocket client.
    pub async fn connect(&self, user: &str) -> (Client, Pushes) {
        Client::connect(&self.url(), &token(user)).await.unwrap()
    }

    /// Makes a group of alice's, and returns its id.
    pub async fn group(&self, members: &[&str]) -> String {
        let body = serde_json::json!({ "kind": "group", "members": members });
        let made = self.ask("POST", "/v1/conversations", &token("alice"), Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Sends a message as a user or a server.
    pub async fn send(&self, bearer: &str, conversation: &str, text: &str) -> Answer {
        let body = serde_json::json!({ "body": { "text": text } });
        self.ask("POST", &format!("/v1/conversations/{conversation}/messages"), bearer, Some(body)).await
    }
}

/// The next push that is a message, or the end of something.
pub async fn next(pushes: &mut Pushes) -> Push {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, pushes.next()).await.expect("nothing came").unwrap() {
            Push::Join(..) | Push::Leave(..) | Push::Stored(_) | Push::Event(..) => {}
            // What a user is told of conversations and their members has tests of its own.
            Push::Publication(_, publication)
                if publication
                    .tags
                    .get("kind")
                    .is_some_and(|kind| kind == "conversation" || kind == "members") => {}
            push => return push,
        }
    }
}

/// The text of the next publication, and where it was.
pub async fn next_text(pushes: &mut Pushes) -> (String, String) {
    match next(pushes).await {
        Push::Publication(channel, publication) => {
            let body: Value = serde_json::from_str(publication.data.get()).unwrap();
            (channel, body["text"].as_str().unwrap().to_owned())
        }
        push => panic!("{push:?}"),
    }
}
