//! Where connections get their tokens: signed here with the deployment's secret, or asked from the dev endpoint.

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde::{Deserialize, Serialize};

use crate::http::{self, HttpError};

/// How long a token that is signed here lives, in seconds: longer than any run.
pub const TOKEN_SECONDS: u64 = 24 * 3600;

/// Where tokens come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum TokenSource {
    /// Signed here: HS256 with this secret.
    Secret(String),
    /// `GET /dev/token?user=…` of the node that is connected to.
    Dev,
}

impl TokenSource {
    /// A token for the user, good at the node with this base URL.
    ///
    /// # Errors
    /// When the dev endpoint does not answer with a token.
    pub async fn token(&self, url: &str, user: &str) -> Result<String, HttpError> {
        match self {
            Self::Secret(secret) => Ok(mint(secret, user, TOKEN_SECONDS)),
            Self::Dev => {
                #[derive(Deserialize)]
                struct Answer {
                    token: String,
                }
                let answer: Answer = http::get(&format!("{url}/dev/token?user={user}"), None).await?;
                Ok(answer.token)
            }
        }
    }
}

/// Signs a token for the user that expires after `seconds`.
pub fn mint(secret: &str, user: &str, seconds: u64) -> String {
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a str,
        exp: u64,
    }
    let claims = Claims { sub: user, exp: get_current_timestamp() + seconds };
    encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("two plain claims are JSON, and HMAC takes a key of any length")
}
