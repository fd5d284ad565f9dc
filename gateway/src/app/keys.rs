//! The key that tokens are signed with: the configured one, or one for development that is kept beside the data.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use shared::auth::{TokenMint, TokenVerifier};
use uuid::Uuid;

use crate::config::Config;

/// Where the development key is kept, so that tokens outlive a restart.
const DEVELOPMENT_KEY_FILE: &str = "development.key";

/// The key that tokens are signed with.
pub struct Keys {
    secret: String,
    development: bool,
}

impl Keys {
    /// Takes the configured key, or else the development key, which is made on first use.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        match &config.token_hmac_secret {
            Some(secret) => Ok(Self { secret: secret.clone(), development: false }),
            None => Ok(Self { secret: development_key(&config.data_dir)?, development: true }),
        }
    }

    /// Whether anyone gets a token.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// Checks tokens.
    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier::hmac(self.secret.as_bytes())
    }

    /// Makes tokens; only with the development key.
    pub fn mint(&self) -> Option<Arc<TokenMint>> {
        self.development.then(|| Arc::new(TokenMint::hmac(self.secret.as_bytes())))
    }
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
