//! Who asks, and from which page.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::Response,
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

    /// Lets the page that asked read the answer.
    pub fn open(&self, asked: &HeaderMap, mut response: Response) -> Response {
        let origin = asked.get(header::ORIGIN).filter(|_| self.admit(asked)).cloned();
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, content-type"),
            );
        }
        response
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
