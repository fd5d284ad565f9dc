//! Checks tokens with the keys of every issuer that is configured.

use futures_util::future::join_all;
use jsonwebtoken::{Header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Number, Value, value::RawValue};

use super::{
    Claims, Grants, Identity, JTI_BYTES_MAX, Key, ROLES_MAX, TOKEN_BYTES_MAX, TOKEN_SECONDS_MAX, TokenError,
    jwks::{Jwks, JwksError, JwksLimits},
};
use crate::{
    clock,
    domain::{Body, RoleName, UserId},
};

/// What is asked of every token, whoever has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// One of these must be in `aud`; empty when it is not looked at.
    pub audiences: Vec<String>,
    /// How far in the future a token may expire, in seconds. Revocations are kept as long, and no longer.
    pub lifetime_seconds_max: u64,
}

impl Default for TokenRules {
    /// Thirty days, and `aud` is not looked at.
    fn default() -> Self {
        Self { audiences: Vec::new(), lifetime_seconds_max: TOKEN_SECONDS_MAX }
    }
}

/// Checks tokens.
pub struct TokenVerifier {
    rules: TokenRules,
    issuers: Vec<Issuer>,
}

struct Issuer {
    /// `iss` of its tokens; `None` takes every token whose `iss` is no other's.
    name: Option<String>,
    keys: Keys,
}

enum Keys {
    Fixed(Vec<Key>),
    Published(Box<Jwks>),
}

/// Why a set of keys does not accept a token.
pub(super) enum Rejection {
    /// None of the keys is the one that the token names.
    UnknownKey,
    Definite(TokenError),
}

/// The claims that are read. Numbers may have a fraction; a text in their place is refused.
#[derive(Deserialize)]
pub(super) struct Wire {
    sub: String,
    exp: Number,
    iat: Option<Number>,
    jti: Option<String>,
    conversations: Option<Vec<String>>,
    #[serde(default)]
    roles: Value,
    #[serde(default)]
    role: Value,
    info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Unverified {
    iss: Option<String>,
}

impl TokenVerifier {
    /// One without keys, which refuses everything.
    pub fn new(rules: TokenRules) -> Self {
        Self { rules, issuers: Vec::new() }
    }

    /// Adds keys whose tokens must come from `issuer`, or, without one, from nobody else's.
    #[must_use]
    pub fn with_keys(mut self, issuer: Option<String>, keys: Vec<Key>) -> Self {
        let keys = keys.into_iter().map(|key| key.bound(issuer.as_deref(), &self.rules)).collect();
        self.issuers.push(Issuer { name: issuer, keys: Keys::Fixed(keys) });
        self
    }

    /// Adds an issuer that publishes its keys at `url`.
    ///
    /// # Errors
    /// When the URL is none, or not one of HTTP.
    pub fn with_jwks(mut self, issuer: String, url: &str, limits: JwksLimits) -> Result<Self, JwksError> {
        let published = Jwks::new(issuer.clone(), url, self.rules.clone(), limits)?;
        self.issuers.push(Issuer { name: Some(issuer), keys: Keys::Published(Box::new(published)) });
        Ok(self)
    }

    /// Reads published keys before they are needed and keeps them fresh, for ever. Returns at once where there are none.
    pub async fn keep_fresh(&self) {
        let published = self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            Keys::Published(published) => Some(published.keep_fresh()),
            Keys::Fixed(_) => None,
        });
        join_all(published).await;
    }

    /// What the token says, if it is genuine and its time is not over. Waits for an issuer's keys if they are not known.
    ///
    /// # Errors
    /// When it is not; the reason is never more precise, lest it help to forge one.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // RFC 7515 §4.1.11: who does not understand a critical extension must refuse, and none is understood here.
        if header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        let iss = self.named_issuer(token)?;
        let mut refusal = TokenError::Invalid;
        for issuer in self.issuers_of(iss.as_deref()) {
            let verified = match &issuer.keys {
                Keys::Fixed(keys) => try_keys(keys, token, &header).map_err(|rejection| match rejection {
                    Rejection::UnknownKey => TokenError::Invalid,
                    Rejection::Definite(error) => error,
                }),
                Keys::Published(published) => published.verify(token, &header).await,
            };
            match verified {
                Ok(wire) => return self.claims(wire).ok_or(TokenError::Invalid),
                Err(error) => refusal = refusal.max(error),
            }
        }
        Err(refusal)
    }

    /// The issuer that the token names. Nothing is believed yet: the name only picks among the issuers that are configured,
    /// whose keys then decide. Where none of them has a name, it is not looked at.
    fn named_issuer(&self, token: &str) -> Result<Option<String>, TokenError> {
        if self.issuers.iter().all(|issuer| issuer.name.is_none()) {
            return Ok(None);
        }
        let claims = jsonwebtoken::dangerous::insecure_decode_claims(token);
        claims.map(|Unverified { iss }| iss).map_err(|_| TokenError::Invalid)
    }

    fn issuers_of<'a>(&'a self, iss: Option<&'a str>) -> impl Iterator<Item = &'a Issuer> {
        let is_known = iss.is_some() && self.issuers.iter().any(|issuer| issuer.name.as_deref() == iss);
        let wanted = if is_known { iss } else { None };
        self.issuers.iter().filter(move |issuer| issuer.name.as_deref() == wanted)
    }

    fn claims(&self, wire: Wire) -> Option<Claims> {
        let Wire { sub, exp, iat, jti, conversations, roles, role, info } = wire;
        let (now, expires) = (clock::now_ms() / 1_000, seconds(&exp)?);
        let is_short = jti.as_ref().is_none_or(|jti| !jti.is_empty() && jti.len() <= JTI_BYTES_MAX);
        if expires > now.saturating_add(self.rules.lifetime_seconds_max) || !is_short {
            return None;
        }
        let grants = Grants::parse(&conversations.unwrap_or_default())?;
        Some(Claims {
            identity: Identity { user: UserId::parse(&sub).ok()?, grants, roles: read_roles(&roles, &role) },
            expires,
            issued: iat.as_ref().map_or(Some(0), seconds)?,
            jti,
            info: info.map(|raw| Body::from_json(String::from(Box::<str>::from(raw)))),
        })
    }
}

/// The first [`ROLES_MAX`] roles, each once. Issuers have used these claims for purposes of their own for long: what is no
/// role's name here is none of ours, and does not spoil the token.
fn read_roles(roles: &Value, role: &Value) -> Vec<RoleName> {
    let named = roles.as_array().into_iter().flatten().chain([role]).filter_map(Value::as_str);
    let mut read = named.filter_map(|name| RoleName::parse(name).ok()).take(ROLES_MAX).collect::<Vec<_>>();
    read.sort();
    read.dedup();
    read
}

/// Whole seconds; `None` for what is no point in time since 1970.
fn seconds(number: &Number) -> Option<u64> {
    let fraction = || std::time::Duration::try_from_secs_f64(number.as_f64()?).ok();
    number.as_u64().or_else(|| Some(fraction()?.as_secs()))
}

/// Tries the keys that the token may mean: those of the `kid` that it names, or else those that have none; all of them
/// where it names none. The algorithm in its header has to be the key's, so it can exclude a key and never bend one.
pub(super) fn try_keys(keys: &[Key], token: &str, header: &Header) -> Result<Wire, Rejection> {
    let kid = header.kid.as_deref();
    let is_named = kid.is_some() && keys.iter().any(|key| key.kid() == kid);
    let fits = |key: &&Key| kid.is_none() || if is_named { key.kid() == kid } else { key.kid().is_none() };
    let mut rejection = Rejection::UnknownKey;
    for key in keys.iter().filter(fits) {
        let refused = if key.algorithm() == header.alg {
            match key.decode(token) {
                Ok(wire) => return Ok(wire),
                Err(error) => error.into_kind(),
            }
        } else {
            ErrorKind::InvalidAlgorithm
        };
        match refused {
            ErrorKind::ExpiredSignature => return Err(Rejection::Definite(TokenError::Expired)),
            // A key that was only a guess proves nothing when it does not fit.
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm if !is_named => {}
            _ => rejection = Rejection::Definite(TokenError::Invalid),
        }
    }
    Err(rejection)
}
