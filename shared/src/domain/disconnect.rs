//! Why the server ends a connection: one table of codes, whose ranges tell the client whether to come back.

/// The reason for which the server closes a connection.
///
/// Codes follow the Centrifuge convention: 3000–3499 come back, 3500–3999 do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disconnect {
    /// The client closed, or the network did; nothing is sent.
    ConnectionClosed,
    /// The node shuts down; another one is ready.
    Shutdown,
    /// Something failed on the server's side.
    ServerError,
    /// The token's time is over and no new one came.
    Expired,
    /// The socket did not take what was sent to it; come back and resume.
    Slow,
    /// A server-side subscription missed something that this node cannot repair; come back and resume.
    InsufficientState,
    /// The application wants the client to come back anew.
    Reconnect,
    /// No pong came within the time allowed.
    NoPong,
    /// The token is not valid.
    InvalidToken,
    /// The client broke the protocol.
    BadRequest,
    /// The token was revoked.
    Revoked,
    /// The application has sent the user away.
    Removed,
    /// The client did not authenticate in time.
    Stale,
    /// A message is larger than the limit.
    TooLarge,
    /// The client asked for a wire format that is not offered.
    InappropriateProtocol,
    /// What the client sent has no meaning here and no way to be answered.
    NotAvailable,
}

impl Disconnect {
    /// All reasons, for tables.
    pub const ALL: [Self; 16] = [
        Self::ConnectionClosed,
        Self::Shutdown,
        Self::ServerError,
        Self::Expired,
        Self::Slow,
        Self::InsufficientState,
        Self::Reconnect,
        Self::NoPong,
        Self::InvalidToken,
        Self::BadRequest,
        Self::Stale,
        Self::Revoked,
        Self::Removed,
        Self::TooLarge,
        Self::InappropriateProtocol,
        Self::NotAvailable,
    ];

    /// The code of the WebSocket close frame.
    pub fn code(self) -> u16 {
        match self {
            Self::ConnectionClosed => 3000,
            Self::Shutdown => 3001,
            Self::ServerError => 3004,
            Self::Expired => 3005,
            Self::Slow => 3008,
            Self::InsufficientState => 3010,
            Self::Reconnect => 3011,
            Self::NoPong => 3012,
            Self::InvalidToken => 3500,
            Self::BadRequest => 3501,
            Self::Stale => 3502,
            Self::Revoked => 3503,
            Self::Removed => 3510,
            Self::TooLarge => 1009,
            Self::InappropriateProtocol => 3506,
            Self::NotAvailable => 3508,
        }
    }

    /// The reason as the close frame says it: never empty, never JSON, at most 123 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ConnectionClosed => "connection closed",
            Self::Shutdown => "shutdown",
            Self::ServerError => "internal server error",
            Self::Expired => "connection expired",
            Self::Slow => "slow",
            Self::InsufficientState => "insufficient state",
            Self::Reconnect => "reconnect",
            Self::NoPong => "no pong",
            Self::InvalidToken => "invalid token",
            Self::BadRequest => "bad request",
            Self::Stale => "stale",
            Self::Revoked => "token revoked",
            Self::Removed => "sent away",
            Self::TooLarge => "message size limit",
            Self::InappropriateProtocol => "inappropriate protocol",
            Self::NotAvailable => "not available",
        }
    }
}
