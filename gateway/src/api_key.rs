//! Keys of application servers: what each may do, and whether one that is shown is genuine.
//!
//! May use: sha2, rand. Deliberately absent: HTTP, and the keys themselves, of which only hashes are kept.
//!
//! A key is 256 random bits, so one round of SHA-256 hides it; there is nothing to guess that a slow hash would protect.

use std::{fmt, str::FromStr};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// How every key begins, so that it is known from a token, and found where it should not be.
pub const KEY_PREFIX: &str = "sk_";
/// Most keys that a deployment may have at once.
pub const KEYS_MAX: usize = 64;
/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// One kind of thing that a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Publish to conversations and to users.
    Publish,
    /// Make conversations, read and change who is in them.
    Conversations,
    /// Read messages back.
    History,
    /// See which conversations a user is in.
    Users,
    /// See who is online.
    Presence,
    /// See from where users are connected, and send them away.
    Connections,
    /// Take tokens back.
    Revoke,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 7] = [
        Self::Publish,
        Self::Conversations,
        Self::History,
        Self::Users,
        Self::Presence,
        Self::Connections,
        Self::Revoke,
    ];

    /// The scope in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Conversations => "conversations",
            Self::History => "history",
            Self::Users => "users",
            Self::Presence => "presence",
            Self::Connections => "connections",
            Self::Revoke => "revoke",
        }
    }
}

/// One key, as it is configured: `name:scope+scope:sha256hex`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    name: String,
    scopes: Vec<Scope>,
    hash: [u8; 32],
}

impl ApiKey {
    /// Makes a new key: what is configured, and the key itself, which is kept nowhere.
    ///
    /// # Errors
    /// When the name or the scopes are not allowed.
    pub fn generate(name: &str, scopes: &[Scope]) -> anyhow::Result<(Self, String)> {
        let secret = format!("{KEY_PREFIX}{}", hex(&rand::random::<[u8; KEY_BYTES]>()));
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let line = format!("{name}:{}:{}", scopes.join("+"), hex(&digest(&secret)));
        Ok((line.parse()?, secret))
    }

    /// What the key is called, for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the key allows it.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        write!(f, "{}:{}:{}", self.name, scopes.join("+"), hex(&self.hash))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.name)
    }
}

impl FromStr for ApiKey {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let mut parts = line.split(':');
        let (Some(name), Some(scopes), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("an API key is configured as name:scope+scope:sha256hex");
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ensure!(
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_allowed),
            "the name of an API key has 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, `-`, `_` and `.`"
        );
        let known = |text: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        let scopes = scopes
            .split('+')
            .map(|text| known(text).with_context(|| format!("API key {name}: there is no scope `{text}`")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let hash = unhex(hash).with_context(|| {
            format!("API key {name}: what follows its scopes must be the SHA-256 of the key in hex")
        })?;
        Ok(Self { name: name.to_owned(), scopes, hash })
    }
}

/// The keys of a deployment.
#[derive(Debug, Clone, Default)]
pub struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// Reads keys as they are configured.
    ///
    /// # Errors
    /// When a line is none, two have one name, or there are too many.
    pub fn parse(lines: &[String]) -> anyhow::Result<Self> {
        ensure!(lines.len() <= KEYS_MAX, "there are more than {KEYS_MAX} API keys");
        let mut keys: Vec<ApiKey> = Vec::with_capacity(lines.len());
        for line in lines {
            let key: ApiKey = line.trim().parse()?;
            ensure!(keys.iter().all(|other| other.name != key.name), "two API keys are called {}", key.name);
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// The key whose secret this is. Takes as long whether, and where, it finds one.
    pub fn find(&self, secret: &str) -> Option<&ApiKey> {
        let shown = digest(secret);
        let mut found = None;
        for key in &self.0 {
            let difference =
                key.hash.iter().zip(&shown).fold(0_u8, |difference, (one, other)| difference | (one ^ other));
            if std::hint::black_box(difference) == 0 {
                found = Some(key);
            }
        }
        found
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_found_by_its_secret_alone() {
        let (old, old_secret) = ApiKey::generate("backend-1", &[Scope::Publish]).unwrap();
        let (new, new_secret) = ApiKey::generate("backend-2", &Scope::ALL).unwrap();
        assert!(old_secret.starts_with(KEY_PREFIX) && old_secret != new_secret);
        assert!(!old.to_string().contains(&old_secret[KEY_PREFIX.len()..]));
        let keys = ApiKeys::parse(&[old.to_string(), new.to_string()]).unwrap();
        assert_eq!(keys.find(&old_secret), Some(&old));
        assert_eq!(keys.find(&new_secret), Some(&new));
        assert!(old.allows(Scope::Publish) && !old.allows(Scope::Users) && new.allows(Scope::Users));
        for stranger in ["", "sk_", &old_secret[1..], &format!("{old_secret}0"), &hex(&old.hash)] {
            assert_eq!(keys.find(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_reason() {
        let hash = "0".repeat(64);
        for (line, reason) in [
            (format!("a:publish:{hash}:x"), "name:scope"),
            (format!("a b:publish:{hash}"), "name"),
            (format!(":publish:{hash}"), "name"),
            (format!("a:everything:{hash}"), "everything"),
            (format!("a::{hash}"), "scope"),
            ("a:publish:1234".to_owned(), "SHA-256"),
            (format!("a:publish:{}", "é".repeat(32)), "SHA-256"),
        ] {
            let error = ApiKeys::parse(std::slice::from_ref(&line)).unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
        let twice = [format!("a:publish:{hash}"), format!("a:users:{hash}")];
        assert!(ApiKeys::parse(&twice).is_err());
    }
}
