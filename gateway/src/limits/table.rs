//! Every limit's name, unit, default, and what is said above it. README.md shows this table, and a test compares.

/// What who is over a limit is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The status of a response, before there is a connection.
    Http(u16),
    /// The code of a close frame.
    Close(u16),
    /// The code of a refusal; the connection goes on.
    Refusal(&'static str),
    /// Nothing: the TCP connection ends.
    Hangup,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(status @ (429 | 503)) => write!(f, "HTTP {status} with `Retry-After`"),
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Close(code) => write!(f, "close {code}"),
            Self::Refusal(code) => write!(f, "`{code}`"),
            Self::Hangup => write!(f, "the connection ends"),
        }
    }
}

/// Name of the metric that counts who was over a limit.
const REFUSALS: &str = "starling_limit_refusals_total";

/// Declares the limits: name, default, unit, answer.
macro_rules! limits {
    ($($(#[doc = $help:literal])+ $limit:ident = $name:literal, $default:literal, $unit:literal, $answer:expr;)*) => {
        /// A limit. What each bounds is its first sentence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Limit {
            $($(#[doc = $help])+ $limit,)*
        }

        impl Limit {
            /// All limits, for tables.
            pub const ALL: &[Self] = &[$(Self::$limit,)*];

            /// The stable name, as settings and metrics have it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$limit => $name,)* }
            }

            /// What it is when nobody sets it, in its unit.
            pub fn default_value(self) -> u64 {
                match self { $(Self::$limit => $default,)* }
            }

            /// What it is counted in.
            pub fn unit(self) -> &'static str {
                match self { $(Self::$limit => $unit,)* }
            }

            /// What it bounds.
            pub fn what(self) -> &'static str {
                match self { $(Self::$limit => concat!($($help),+).trim_ascii().trim_suffix_dot(),)* }
            }

            /// What who is over it is told.
            pub fn answer(self) -> Answer {
                match self { $(Self::$limit => $answer,)* }
            }
        }
    };
}

/// A sentence as the cell of a table.
trait Cell {
    fn trim_suffix_dot(&self) -> &str;
}

impl Cell for str {
    fn trim_suffix_dot(&self) -> &str {
        self.strip_suffix('.').unwrap_or(self)
    }
}

limits! {
    /// TCP connections that are still HTTP, on one node.
    HttpConnections = "http_connections", 10_000, "connections", Answer::Http(503);
    /// The same of one address, where no proxy is trusted.
    HttpConnectionsPerAddress = "http_connections_per_address", 5_000, "connections", Answer::Http(429);
    /// Line and headers of a request.
    HeaderBytes = "header_bytes", 16_384, "bytes", Answer::Http(431);
    /// Time to finish the headers of a request, and time without one.
    HandshakeSeconds = "handshake_seconds", 5, "seconds", Answer::Hangup;
    /// Body of a request; of one that publishes many messages: 1,048,576.
    RequestBytes = "request_bytes", 65_536, "bytes", Answer::Http(413);
    /// Time from the headers of a request to the end of its body.
    BodySeconds = "body_seconds", 30, "seconds", Answer::Http(408);
    /// Connections of one node.
    Connections = "connections", 100_000, "connections", Answer::Http(503);
    /// Connections of one address (IPv6: one /64) on one node.
    ConnectionsPerAddress = "connections_per_address", 10_000, "connections", Answer::Http(429);
    /// New connections of one node; 10,000 at once.
    HandshakesPerSecond = "handshakes_per_second", 2_000, "a second", Answer::Http(503);
    /// Connections of one node that have not said who they are.
    HandshakesPending = "handshakes_pending", 10_000, "connections", Answer::Http(503);
    /// The same of one address.
    HandshakesPendingPerAddress = "handshakes_pending_per_address", 5_000, "connections", Answer::Http(429);
    /// Clients of one node that wait to be greeted.
    ConnectsPending = "connects_pending", 5_000, "clients", Answer::Http(503);
    /// Time to say who one is, once connected.
    AuthenticateSeconds = "authenticate_seconds", 15, "seconds", Answer::Close(3502);
    /// Connections of one user on one node.
    ConnectionsPerUser = "connections_per_user", 200, "connections", Answer::Refusal("limit_exceeded");
    /// Time without an answer to a ping, one ping included.
    IdleSeconds = "idle_seconds", 35, "seconds", Answer::Close(3012);
    /// A frame, and a message with all its fragments.
    MessageBytes = "message_bytes", 65_536, "bytes", Answer::Close(1009);
    /// Fragments of a message.
    MessageFragments = "message_fragments", 64, "frames", Answer::Close(1009);
    /// Time from the first byte of a message to its last.
    MessageSeconds = "message_seconds", 30, "seconds", Answer::Close(1008);
    /// Pings, pongs and the like.
    ControlFrames = "control_frames", 100, "frames in 10 seconds", Answer::Close(1008);
    /// Commands in one message.
    FrameCommands = "frame_commands", 256, "commands", Answer::Close(3501);
    /// Nesting of a message body.
    JsonDepth = "json_depth", 32, "levels", Answer::Refusal("invalid");
    /// Id of a conversation; of a user or a client message: 100.
    IdBytes = "id_bytes", 255, "bytes", Answer::Refusal("invalid");
    /// Body of a message.
    BodyBytes = "body_bytes", 32_768, "bytes", Answer::Refusal("too_large");
    /// Different emojis with which one message is reacted to.
    Emojis = "emojis", 50, "emojis", Answer::Refusal("limit_exceeded");
    /// What may wait for one slow client.
    OutboxBytes = "outbox_bytes", 1_048_576, "bytes", Answer::Close(3008);
    /// Conversations that one connection is in.
    Subscriptions = "subscriptions", 1_000, "conversations", Answer::Refusal("limit_exceeded");
    /// Resumes of one node that wait for their turn.
    ResumesPending = "resumes_pending", 20_000, "resumes", Answer::Refusal("rate_limited");
    /// Questions of one node for nodes that it has not heard of; 500 at once.
    PeerQuestions = "peer_questions", 100, "a second", Answer::Http(503);
    /// Publishes of one user on all nodes, and users that it adds to conversations; 10,000 at once.
    PublishesPerUser = "publishes_per_user", 2_000, "a second", Answer::Refusal("rate_limited");
    /// Publishes to one conversation on all nodes; 20,000 at once.
    PublishesPerConversation = "publishes_per_conversation", 5_000, "a second", Answer::Refusal("rate_limited");
    /// Requests of one user on one node, over HTTP and beside messages; 5,000 at once.
    RequestsPerUser = "requests_per_user", 500, "a second", Answer::Refusal("rate_limited");
    /// Words of one user about typing on one node; 40 at once.
    TypingPerUser = "typing_per_user", 10, "a second", Answer::Refusal("rate_limited");
    /// Signals of one user on one node; 200 at once.
    SignalsPerUser = "signals_per_user", 50, "a second", Answer::Refusal("rate_limited");
}

/// Says what is counted, and starts every count at 0.
pub fn describe() {
    metrics::describe_counter!(
        REFUSALS,
        "Requests, connections and messages that were over a limit, by its name"
    );
    for limit in Limit::ALL {
        metrics::counter!(REFUSALS, "limit" => limit.name()).absolute(0);
    }
}

/// Counts somebody who was over a limit.
pub fn refused(limit: Limit) {
    metrics::counter!(REFUSALS, "limit" => limit.name()).increment(1);
}
