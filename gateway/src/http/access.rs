//! Who asks, and from which page.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use shared::{
    auth::Identity,
    domain::{Refusal, UserId},
};

use super::{Routes, problem::Problem};
use crate::{
    action::{self, Actor},
    api_key::{ApiKey, KEY_PREFIX, Scope},
};

/// Who asks, by the `Authorization` header: a user with a token, or an application server with a key.
pub enum Caller {
    User(Identity),
    Server(ApiKey),
}

impl Caller {
    /// On whose behalf something is done that users may do, and servers whose key has the scope.
    pub fn actor(self, scope: Scope) -> Result<Actor, Problem> {
        match self {
            Self::User(who) => Ok(Actor::User(who)),
            Self::Server(_) => self.server(scope).map(|()| Actor::Server),
        }
    }

    /// For what only servers may do, whose key has the scope.
    pub fn server(&self, scope: Scope) -> Result<(), Problem> {
        match self {
            Self::Server(key) if key.allows(scope) => Ok(()),
            Self::Server(_) => {
                Err(Problem::forbidden(format!("this key does not have the scope `{}`", scope.as_str())))
            }
            Self::User(_) => {
                Err(Problem::forbidden("this is for application servers, which have an API key"))
            }
        }
    }

    /// For what only users may do.
    pub fn user(self) -> Result<UserId, Problem> {
        match self {
            Self::User(who) => Ok(who.user),
            Self::Server(_) => Err(Problem::forbidden("this is for users, who have a token")),
        }
    }
}

impl FromRequestParts<Routes> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, routes: &Routes) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let token = token.ok_or(Refusal::Unauthorized)?;
        if token.starts_with(KEY_PREFIX) {
            let key = routes.keys.find(token).ok_or(Refusal::Unauthorized)?;
            tracing::debug!(key = key.name(), method = %parts.method, path = parts.uri.path(), "server API");
            return Ok(Self::Server(key.clone()));
        }
        let claims = action::authenticate(&routes.lines.node, token).await.map_err(Refusal::from)?;
        Ok(Self::User(claims.identity.clone()))
    }
}

/// Which web pages may talk to this server: those it serves itself, and those that are listed.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<String>,
}

impl Origins {
    /// Allows these origins, each written as a browser sends it (`https://app.example`), beside the server's own.
    pub fn new(allowed: Vec<String>) -> Self {
        Self { allowed }
    }

    /// Whether a request may be answered. One without an `Origin` does not come from a page, and shows a token anyway.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        let own_host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_own = own_host.is_some() && origin.split_once("://").map(|(_, host)| host) == own_host;
        is_own || self.allowed.iter().any(|allowed| allowed == origin)
    }

    /// The page's origin, if the page may read answers: as a browser wants to have it confirmed.
    pub fn confirm(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(header::ORIGIN).filter(|_| self.admit(headers)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_page_and_listed_ones_are_admitted() {
        let origins = Origins::new(vec!["https://app.example".to_owned()]);
        let admit = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("chat.example:8000"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            origins.admit(&headers)
        };
        for good in [None, Some("http://chat.example:8000"), Some("https://app.example")] {
            assert!(admit(good), "{good:?}");
        }
        for bad in [
            "https://app.example.evil",
            "https://evil",
            "null",
            "http://chat.example",
            "https://app.example:1",
        ] {
            assert!(!admit(Some(bad)), "{bad}");
        }
    }
}
