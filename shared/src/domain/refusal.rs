//! Definite answers that mean "nothing happened", except for [`Refusal::Unavailable`].

/// Why a request was refused. Each protocol spells it its own way; the code is the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No valid token was shown.
    #[error("unauthorized")]
    Unauthorized,
    /// The token's time is over.
    #[error("token expired")]
    TokenExpired,
    /// Not a member, or the conversation does not exist: a stranger cannot tell the two apart.
    #[error("permission denied")]
    Forbidden,
    /// The member may only read for a while; told to members alone.
    #[error("muted")]
    Muted,
    /// It does not exist; told only to those who may know.
    #[error("not found")]
    NotFound,
    /// The request itself makes no sense.
    #[error("bad request")]
    Invalid,
    /// The body is larger than the limit.
    #[error("too large")]
    TooLarge,
    /// There is no such operation.
    #[error("method not found")]
    UnknownMethod,
    /// The protocol has this feature and Starling does not offer it.
    #[error("not available")]
    NotSupported,
    /// The connection is subscribed to that conversation already.
    #[error("already subscribed")]
    AlreadySubscribed,
    /// A limit of the connection or of the user is reached.
    #[error("limit exceeded")]
    LimitExceeded,
    /// Too many requests in too short a time.
    #[error("too many requests")]
    RateLimited,
    /// The position belongs to another installation's stream, or lies too far back.
    #[error("unrecoverable position")]
    UnrecoverablePosition,
    /// The log is full, since the store does not keep up; nothing was accepted.
    #[error("backlog full")]
    BacklogFull,
    /// Redis or Postgres did not answer: the outcome is unknown, and a retry with the same client message id is safe.
    #[error("unavailable")]
    Unavailable,
}

impl Refusal {
    /// All refusals, for tables.
    pub const ALL: [Self; 15] = [
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Forbidden,
        Self::Muted,
        Self::NotFound,
        Self::Invalid,
        Self::TooLarge,
        Self::UnknownMethod,
        Self::NotSupported,
        Self::AlreadySubscribed,
        Self::LimitExceeded,
        Self::RateLimited,
        Self::UnrecoverablePosition,
        Self::BacklogFull,
        Self::Unavailable,
    ];

    /// The stable code that programs compare.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::Muted => "muted",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::UnknownMethod => "unknown_method",
            Self::NotSupported => "not_supported",
            Self::AlreadySubscribed => "already_subscribed",
            Self::LimitExceeded => "limit_exceeded",
            Self::RateLimited => "rate_limited",
            Self::UnrecoverablePosition => "unrecoverable_position",
            Self::BacklogFull => "backlog_full",
            Self::Unavailable => "unavailable",
        }
    }
}
