//! Who a client is: the one place where a token is let in.

use std::sync::Arc;

use shared::{
    auth::{Claims, TokenError},
    domain::Refusal,
};

use super::Node;

/// Why a token does not let its bearer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Its time is over; a new one helps.
    Expired,
    /// It never was valid.
    Invalid,
    /// It was revoked.
    Revoked,
    /// Nobody knows at the moment: its key or what is revoked cannot be read.
    Unavailable,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Expired => Self::TokenExpired,
            // That it was good once is nobody's business.
            Denial::Invalid | Denial::Revoked => Self::Unauthorized,
            Denial::Unavailable => Self::Unavailable,
        }
    }
}

/// What a token says, when it is valid and not revoked.
///
/// # Errors
/// When it is not, or nobody can tell.
pub async fn authenticate(node: &Node, token: &str) -> Result<Arc<Claims>, Denial> {
    let claims = node.tokens.verify(token).await.map_err(|error| match error {
        TokenError::Expired => Denial::Expired,
        TokenError::Invalid => Denial::Invalid,
        TokenError::Unavailable => Denial::Unavailable,
    })?;
    if node.revocable.is_revoked(&claims) {
        return Err(Denial::Revoked);
    }
    if !node.revocable.is_current() {
        return Err(Denial::Unavailable);
    }
    Ok(Arc::new(claims))
}
