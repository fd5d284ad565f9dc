//! Tokens: who a client is, and what its token alone lets it do.
//!
//! May use: jsonwebtoken, domain, clock; the network in `jwks.rs` alone. Deliberately absent: what a user may do, which is
//! the action room's to decide; revocation, which is a port of its own; and any way not to check something. A key goes
//! with exactly one algorithm: a token's header may name a key, and never chooses how it is used. No address is ever
//! made from what a token says.

mod grants;
mod jwks;
mod key;
mod mint;
mod verifier;

pub use grants::{GRANTS_MAX, Grants};
pub use jwks::{JwksError, JwksLimits};
pub use key::{HMAC_SECRET_BYTES_MIN, Key, KeyError};
pub use mint::TokenMint;
pub use verifier::{TokenRules, TokenVerifier};

use crate::domain::{Body, RoleName, UserId};

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far ahead a token may expire, in seconds, unless the deployment says otherwise: thirty days.
pub const TOKEN_SECONDS_MAX: u64 = 30 * 24 * 3_600;
/// Most roles that a token gives.
pub const ROLES_MAX: usize = 16;
/// Longest `jti`, in bytes.
pub const JTI_BYTES_MAX: usize = 255;

/// Who asks, as far as authorisation needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// What the token allows beside the user's memberships.
    pub grants: Grants,
    /// The roles that the token gives, each once, in order: the user is in the room of each.
    pub roles: Vec<RoleName>,
}

impl From<UserId> for Identity {
    /// A user with nothing but memberships.
    fn from(user: UserId) -> Self {
        Self { user, grants: Grants::default(), roles: Vec::new() }
    }
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`, `conversations`, and `roles` with `role`.
    pub identity: Identity,
    /// `exp`: the second since 1970 at which the token's time is over.
    pub expires: u64,
    /// `iat`: the second since 1970 at which it was made; 0 where the token does not say, so that every revocation of its
    /// user covers it.
    pub issued: u64,
    /// `jti`: the token's own name.
    pub jti: Option<String>,
    /// `info`: opaque JSON that other members see beside the user.
    pub info: Option<Body>,
}

impl Claims {
    /// What a token says that has nothing but `sub` and `exp`.
    pub fn of(user: UserId, expires: u64) -> Self {
        Self { identity: user.into(), expires, issued: 0, jti: None, info: None }
    }
}

/// Why a token is refused. Ordered by how much is known: whichever key could say most is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum TokenError {
    /// It never was valid, or not for this deployment.
    #[error("invalid token")]
    Invalid,
    /// Its key is not known and its issuer's keys cannot be read at the moment: try again.
    #[error("the issuer's keys cannot be read")]
    Unavailable,
    /// It was valid once.
    #[error("token expired")]
    Expired,
}
