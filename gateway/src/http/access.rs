//! Who asks.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use shared::{
    auth::TokenError,
    domain::{Refusal, UserId},
};

use super::{Routes, problem::Problem};

/// The user of a request's bearer token.
pub struct Bearer(pub UserId);

impl FromRequestParts<Routes> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, routes: &Routes) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let token = token.ok_or(Refusal::Unauthorized)?;
        match routes.lines.node.tokens.verify(token) {
            Ok(claims) => Ok(Self(claims.user)),
            Err(TokenError::Expired) => Err(Refusal::TokenExpired.into()),
            Err(TokenError::Invalid) => Err(Refusal::Unauthorized.into()),
        }
    }
}
