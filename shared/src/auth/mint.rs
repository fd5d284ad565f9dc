//! Tokens for development.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::{clock, domain::UserId};

#[derive(Serialize)]
struct Minted<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Makes HS256 tokens, for development.
pub struct TokenMint {
    key: EncodingKey,
}

impl TokenMint {
    /// Signs with `secret`.
    pub fn hmac(secret: &[u8]) -> Self {
        Self { key: EncodingKey::from_secret(secret) }
    }

    /// A token for `user` that is valid for so many seconds.
    pub fn mint(&self, user: &UserId, ttl_seconds: u64) -> String {
        let now = clock::now_ms() / 1_000;
        let claims = Minted { sub: user.as_str(), iat: now, exp: now + ttl_seconds };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .expect("claims are plain data and any secret signs them")
    }
}
