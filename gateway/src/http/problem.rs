//! Errors as RFC 9457 says them, with a stable `code` that programs compare.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use shared::domain::Refusal;

use crate::limits::{Answer, Turned};

/// After how many seconds a refusal that may pass is tried again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error that a client is told.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Seconds after which another try makes sense.
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
}

impl Problem {
    /// The request makes no sense, for this reason.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::from(Refusal::Invalid) }
    }

    /// No new connection is wanted now.
    pub fn turned(turned: Turned) -> Self {
        let (refusal, detail) = match turned.limit {
            Some(limit) => match limit.answer() {
                Answer::Http(429) => (Refusal::RateLimited, format!("over the limit {}", limit.name())),
                _ => (Refusal::Unavailable, format!("over the limit {}", limit.name())),
            },
            None => (Refusal::Unavailable, "this node is going down: come back to another one".to_owned()),
        };
        Self { detail, retry_after: Some(turned.retry_seconds), ..Self::from(refusal) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Unauthorized | Refusal::TokenExpired => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden => StatusCode::FORBIDDEN,
            Refusal::Invalid | Refusal::UnrecoverablePosition => StatusCode::BAD_REQUEST,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::UnknownMethod => StatusCode::NOT_FOUND,
            Refusal::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Refusal::AlreadySubscribed => StatusCode::CONFLICT,
            Refusal::LimitExceeded | Refusal::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Refusal::BacklogFull | Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let retry_after = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER_SECONDS),
            _ => None,
        };
        Self { status, code: refusal.code(), detail: refusal.to_string(), retry_after }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = Body {
            r#type: "about:blank",
            title,
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let json = serde_json::to_vec(&body).expect("a problem is plain data");
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/problem+json")], json).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The answer to a URL that means nothing.
pub async fn no_such_route() -> Problem {
    Problem {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        detail: "there is nothing at this URL".to_owned(),
        retry_after: None,
    }
}
