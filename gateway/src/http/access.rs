//! Who asks.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
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
        self.identity().map(|who| who.user)
    }

    /// For what only users may do, as whom they are.
    pub fn identity(self) -> Result<Identity, Problem> {
        match self {
            Self::User(who) => Ok(who),
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
        routes.lines.node.limiter.request_by(&claims.identity.user)?;
        Ok(Self::User(claims.identity.clone()))
    }
}
