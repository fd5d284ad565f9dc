//! Keys that an issuer publishes (RFC 7517): read over HTTP, kept, and read again when they change.
//!
//! What was read last is used for as long as the issuer does not answer. A key that is not known makes it be asked again,
//! but only so often, however many tokens name keys that do not exist.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{Header, jwk::Jwk};
use parking_lot::RwLock;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{
    Key, TokenError,
    verifier::{Rejection, TokenRules, Wire, try_keys},
};

/// Most keys of one issuer; what comes after them is not read.
const KEYS_MAX: usize = 64;
/// Longest set of keys, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest pause between two attempts to read keys for the first time.
const FIRST_READ_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Shortest one.
const FIRST_READ_PAUSE_MIN: Duration = Duration::from_secs(1);

/// How often and for how long an issuer is asked.
#[derive(Debug, Clone)]
pub struct JwksLimits {
    /// Shortest time between two requests that tokens with an unknown key bring about.
    pub unknown_key_pause: Duration,
    /// Time between two requests that nobody has brought about.
    pub refresh_interval: Duration,
    /// Longest time for one request, from the connection to the last byte.
    pub request_timeout: Duration,
}

impl Default for JwksLimits {
    fn default() -> Self {
        Self {
            unknown_key_pause: Duration::from_mins(1),
            refresh_interval: Duration::from_mins(5),
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// Why published keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// It is no URL that keys can be read from.
    #[error("`{0}` is not an http:// or https:// URL")]
    Url(String),
    /// The request failed.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// The answer is not what it should be.
    #[error("{0}")]
    Answer(&'static str),
}

/// The published keys of one issuer.
pub(super) struct Jwks {
    issuer: String,
    url: Url,
    rules: TokenRules,
    limits: JwksLimits,
    client: Client,
    keys: RwLock<Arc<Vec<Key>>>,
    /// Held by whoever asks, so that one request serves all who wait for it.
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// When the last request began.
    last: Option<Instant>,
    /// When the last one began that was answered.
    answered: Option<Instant>,
}

#[derive(Deserialize)]
struct Published {
    /// Each is read by itself: one of a new kind must not make the others unusable.
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    pub fn new(issuer: String, url: &str, rules: TokenRules, limits: JwksLimits) -> Result<Self, JwksError> {
        let no_url = || JwksError::Url(url.to_owned());
        let url = Url::parse(url).map_err(|_| no_url())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(no_url());
        }
        // A redirect could lead to where nobody meant this process to look.
        let client =
            Client::builder().redirect(redirect::Policy::none()).timeout(limits.request_timeout).build()?;
        let (keys, asked) = Default::default();
        Ok(Self { issuer, url, rules, limits, client, keys, asked })
    }

    /// Checks a token with the keys that are known; asks for others when the token names one that is not.
    pub async fn verify(&self, token: &str, header: &Header) -> Result<Wire, TokenError> {
        let arrived = Instant::now();
        match self.try_known(token, header) {
            Err(Rejection::UnknownKey) => {}
            Err(Rejection::Definite(error)) => return Err(error),
            Ok(wire) => return Ok(wire),
        }
        let is_certain = self.ask_for_unknown(arrived).await;
        self.try_known(token, header).map_err(|rejection| match rejection {
            // The issuer was asked after this token came, and has no such key.
            Rejection::UnknownKey if is_certain => TokenError::Invalid,
            // It may have one by now: a client must not be turned away for ever because of that.
            Rejection::UnknownKey => TokenError::Unavailable,
            Rejection::Definite(error) => error,
        })
    }

    fn try_known(&self, token: &str, header: &Header) -> Result<Wire, Rejection> {
        let keys = Arc::clone(&self.keys.read());
        try_keys(&keys, token, header)
    }

    /// Whether the issuer has answered a request that began after `arrived`.
    async fn ask_for_unknown(&self, arrived: Instant) -> bool {
        let mut asked = self.asked.lock().await;
        let is_allowed = asked.last.is_none_or(|last| last.elapsed() >= self.limits.unknown_key_pause);
        if is_allowed {
            self.ask(&mut asked).await;
        }
        asked.answered.is_some_and(|answered| answered >= arrived)
    }

    /// Reads the keys again and again, for ever.
    pub async fn keep_fresh(&self) {
        let mut pause = FIRST_READ_PAUSE_MIN;
        loop {
            let is_known = {
                let mut asked = self.asked.lock().await;
                self.ask(&mut asked).await;
                asked.answered.is_some()
            };
            if is_known {
                sleep(self.limits.refresh_interval).await;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(FIRST_READ_PAUSE_MAX);
            }
        }
    }

    async fn ask(&self, asked: &mut Asked) {
        let began = Instant::now();
        asked.last = Some(began);
        match self.read().await {
            Ok(keys) => {
                tracing::debug!(issuer = self.issuer, keys = keys.len(), "signing keys read");
                *self.keys.write() = Arc::new(keys);
                asked.answered = Some(began);
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "signing keys cannot be read; those known before stay valid");
            }
        }
    }

    async fn read(&self) -> Result<Vec<Key>, JwksError> {
        let asked = self.client.get(self.url.clone()).send().await;
        let mut response = asked.map_err(reqwest::Error::without_url)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(JwksError::Answer("the answer is not 200"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(JwksError::Answer("the answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        let published: Published =
            serde_json::from_slice(&body).map_err(|_| JwksError::Answer("the answer is no set of keys"))?;
        let read = published.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let usable = read.filter_map(|jwk| Key::from_jwk(&jwk)).take(KEYS_MAX);
        let keys: Vec<Key> = usable.map(|key| key.bound(Some(&self.issuer), &self.rules)).collect();
        // An empty set is more likely an accident than the wish to shut everyone out.
        if keys.is_empty() { Err(JwksError::Answer("the set has no usable key")) } else { Ok(keys) }
    }
}
