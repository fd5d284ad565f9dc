//! The keys that tokens are signed with: those that are configured, or one for development that is kept beside the data.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use shared::auth::{JwksLimits, Key, TokenMint, TokenVerifier};
use uuid::Uuid;

use crate::config::Config;

/// Where the development key is kept, so that tokens outlive a restart.
const DEVELOPMENT_KEY_FILE: &str = "development.key";

/// What tokens are checked with.
pub struct Keys {
    verifier: Arc<TokenVerifier>,
    /// There only where no real key is configured.
    mint: Option<Arc<TokenMint>>,
}

impl Keys {
    /// Takes the configured keys, or else the development key, which is made on first use.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let mut keys = config
            .token_keys
            .iter()
            .map(|setting| configured_key(setting))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(secret) = &config.token_hmac_secret {
            keys.push(Key::new("HS256", None, secret).context("STARLING_TOKEN_HMAC_SECRET")?);
        }
        let mut mint = None;
        if keys.is_empty() && config.token_jwks.is_empty() {
            let secret = development_key(&config.data_dir)?;
            mint = Some(Arc::new(TokenMint::hmac(secret.as_bytes())));
            keys.push(Key::new("HS256", None, &secret).context("the development key")?);
        }
        let verifier = TokenVerifier::new(config.token_rules.clone());
        let mut verifier = verifier.with_keys(config.token_issuer.clone(), keys);
        for setting in &config.token_jwks {
            let (issuer, url) = setting
                .trim()
                .split_once(' ')
                .with_context(|| format!("STARLING_TOKEN_JWKS: `{setting}` is not `ISSUER URL`"))?;
            verifier = verifier
                .with_jwks(issuer.to_owned(), url.trim(), JwksLimits::default())
                .context("STARLING_TOKEN_JWKS")?;
        }
        Ok(Self { verifier: Arc::new(verifier), mint })
    }

    /// Whether anyone gets a token.
    pub fn is_development(&self) -> bool {
        self.mint.is_some()
    }

    /// Checks tokens.
    pub fn verifier(&self) -> Arc<TokenVerifier> {
        Arc::clone(&self.verifier)
    }

    /// Makes tokens; only with the development key.
    pub fn mint(&self) -> Option<Arc<TokenMint>> {
        self.mint.clone()
    }
}

/// Reads `ALGORITHM[:KID]=KEY`. What is at fault is said without the key.
fn configured_key(setting: &str) -> anyhow::Result<Key> {
    let (name, material) =
        setting.split_once('=').context("STARLING_TOKEN_KEYS: a key is not `ALGORITHM[:KID]=KEY`")?;
    let (algorithm, kid) = match name.trim().split_once(':') {
        Some((algorithm, kid)) => (algorithm, Some(kid.to_owned())),
        None => (name.trim(), None),
    };
    let material = match material.strip_prefix('@') {
        // An editor ends the last line; no key does.
        Some(path) => fs::read_to_string(path)
            .with_context(|| format!("STARLING_TOKEN_KEYS: cannot read {path}"))?
            .trim_end()
            .to_owned(),
        None => material.to_owned(),
    };
    Key::new(algorithm, kid, &material).with_context(|| format!("STARLING_TOKEN_KEYS: {}", name.trim()))
}

fn development_key(dir: &Path) -> anyhow::Result<String> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let path = dir.join(DEVELOPMENT_KEY_FILE);
    match fs::read_to_string(&path) {
        Ok(key) => return Ok(key),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    // Written aside and then linked, so that several gateways that start in one directory agree on a whole key.
    let key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let draft = dir.join(format!("{DEVELOPMENT_KEY_FILE}.{}", Uuid::new_v4().simple()));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
    written
        .and_then(|mut file| file.write_all(key.as_bytes()))
        .with_context(|| format!("cannot write {}", draft.display()))?;
    // Another gateway may have been first; then its key is the one.
    let _ = fs::hard_link(&draft, &path);
    fs::remove_file(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "for tests only: 0123456789abcdef";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
                          -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_is_given_as_it_is_or_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(&path, PUBLIC).unwrap();
        for good in [
            format!("HS256={SECRET}"),
            format!("HS256:2026-11={SECRET}=="),
            format!("EdDSA:a:b={PUBLIC}"),
            format!("EdDSA=@{}", path.display()),
        ] {
            assert!(configured_key(&good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_the_key() {
        for (bad, names) in [
            (SECRET.to_owned(), "ALGORITHM[:KID]=KEY"),
            (format!("HS512:new={SECRET}"), "HS512:new"),
            (format!("RS256={SECRET}"), "RS256"),
            (format!("none={SECRET}"), "none"),
            ("RS256=@/no/such/file".to_owned(), "/no/such/file"),
        ] {
            let error = format!("{:#}", configured_key(&bad).err().unwrap());
            assert!(error.contains(names) && !error.contains(SECRET), "{error}");
        }
    }
}
