//! Takes tokens back, on every node.

use shared::{
    auth::JTI_BYTES_MAX,
    clock,
    domain::{Refusal, UserId},
    revocations::{Revocation, RevokeError},
};

use super::Node;

/// How far ahead of this machine's clock the time before which tokens are revoked may be, in seconds.
const AHEAD_SECONDS_MAX: u64 = 60;

/// What is to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoke {
    /// The token of this `jti`.
    Token(String),
    /// The tokens of a user that were issued before this second since 1970; without it, all that were issued up to now,
    /// this second included.
    User(UserId, Option<u64>),
}

/// Revokes tokens: within 5 s every node that reaches Redis closes their connections and takes them no more; one that does
/// not, within 5 s after it does again, and until then it refuses everybody new once it has been cut off for 30 s.
///
/// Whoever calls must have made sure that the caller may: no client's token is enough.
///
/// # Errors
/// [`Refusal::Invalid`] for a `jti` that no token can have and for a time in the future, [`Refusal::LimitExceeded`] when too
/// many are in force, [`Refusal::Unavailable`] when Redis does not answer: then it may be tried again.
pub async fn revoke(node: &Node, what: Revoke) -> Result<(), Refusal> {
    let now = clock::now_ms() / 1_000;
    let revocation = match what {
        Revoke::Token(jti) if jti.is_empty() || jti.len() > JTI_BYTES_MAX => return Err(Refusal::Invalid),
        Revoke::Token(jti) => Revocation::Token(jti),
        Revoke::User(_, Some(before)) if before > now + AHEAD_SECONDS_MAX => return Err(Refusal::Invalid),
        Revoke::User(user, before) => Revocation::User(user, before.unwrap_or(now + 1)),
    };
    node.revocable.revoke(&revocation).await.map_err(|error| match error {
        RevokeError::Full => Refusal::LimitExceeded,
        RevokeError::Unavailable(error) => {
            tracing::warn!(%error, "a revocation has an unknown outcome");
            Refusal::Unavailable
        }
    })
}
