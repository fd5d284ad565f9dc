//! Tokens: who a client is.
//!
//! May use: jsonwebtoken, domain, clock. Deliberately absent: what a user may do, which is the action room's to decide.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    clock,
    domain::{Body, UserId},
};

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Shortest HMAC secret, in bytes: as long as the hash (RFC 7518 §3.2).
pub const HMAC_SECRET_BYTES_MIN: usize = 32;
/// How far the clocks of two machines may differ, in seconds.
const LEEWAY_SECONDS: u64 = 10;

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the user.
    pub user: UserId,
    /// `exp`: the second since 1970 at which the token's time is over.
    pub expires: u64,
    /// `info`: opaque JSON that other members see beside the user.
    pub info: Option<Body>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was valid once.
    #[error("token expired")]
    Expired,
    /// It never was, or not for this deployment.
    #[error("invalid token")]
    Invalid,
}

#[derive(Deserialize)]
struct Wire {
    sub: String,
    exp: u64,
    info: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Minted<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}

/// Checks tokens with one key, which goes with one algorithm: the token's own header never chooses.
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

impl TokenVerifier {
    /// Checks HS256 signatures with a secret of at least [`HMAC_SECRET_BYTES_MIN`] bytes.
    pub fn hmac(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { key: DecodingKey::from_secret(secret), validation }
    }

    /// What the token says, if it is genuine and its time is not over.
    ///
    /// # Errors
    /// When it is not; the reason is never more precise, lest it help to forge one.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let decoded =
            jsonwebtoken::decode::<Wire>(token, &self.key, &self.validation).map_err(|error| match error
                .kind()
            {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?;
        let Wire { sub, exp, info } = decoded.claims;
        let user = UserId::parse(&sub).map_err(|_| TokenError::Invalid)?;
        let info = info.map(|raw| Body::from_json(String::from(Box::<str>::from(raw))));
        Ok(Claims { user, expires: exp, info })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn signed(header: &Header, claims: &serde_json::Value, secret: &[u8]) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn a_minted_token_verifies() {
        let user = UserId::parse("alice").unwrap();
        let token = TokenMint::hmac(SECRET).mint(&user, 60);
        let claims = TokenVerifier::hmac(SECRET).verify(&token).unwrap();
        assert_eq!(claims.user, user);
        assert_eq!(TokenVerifier::hmac(&[b'x'; 32]).verify(&token), Err(TokenError::Invalid));
    }

    #[test]
    fn what_is_missing_forged_or_over_is_refused() {
        let verifier = TokenVerifier::hmac(SECRET);
        let hs256 = Header::new(Algorithm::HS256);
        let far = clock::now_ms() / 1_000 + 600;
        let verify =
            |header: &Header, claims: serde_json::Value| verifier.verify(&signed(header, &claims, SECRET));
        let info =
            verify(&hs256, serde_json::json!({"sub": "a", "exp": far, "info": {"n": 1}})).unwrap().info;
        assert_eq!(info.unwrap().as_bytes(), b"{\"n\":1}");
        for bad in [
            serde_json::json!({"exp": far}),
            serde_json::json!({"sub": "a"}),
            serde_json::json!({"sub": "a", "exp": "9999999999"}),
            serde_json::json!({"sub": "a b", "exp": far}),
            serde_json::json!({"sub": "", "exp": far}),
            serde_json::json!({"sub": "a", "exp": far, "nbf": far}),
        ] {
            assert_eq!(verify(&hs256, bad.clone()), Err(TokenError::Invalid), "{bad}");
        }
        assert_eq!(verify(&hs256, serde_json::json!({"sub": "a", "exp": 1})), Err(TokenError::Expired));
        let other = Header::new(Algorithm::HS512);
        assert_eq!(verify(&other, serde_json::json!({"sub": "a", "exp": far})), Err(TokenError::Invalid));
        for garbage in ["", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ."] {
            assert_eq!(verifier.verify(garbage), Err(TokenError::Invalid), "{garbage}");
        }
    }
}
