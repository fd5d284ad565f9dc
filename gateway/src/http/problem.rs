//! Errors as RFC 9457 says them, with a stable `code` that programs compare.

use std::{collections::BTreeMap, fmt};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use shared::domain::Refusal;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, ResponseBuilder, response},
};

use crate::limits::{self, Answer, Limit, Turned};

/// What a client is told to wait, in seconds, before it tries again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error that a client is told.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Seconds after which another try makes sense; told where one does.
    retry_after: u64,
}

/// An error, as RFC 9457 says it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: the code says it all.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What programs compare.
    code: &'static str,
    /// What people read.
    detail: String,
}

impl Problem {
    /// The request makes no sense, for this reason.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::from(Refusal::Invalid) }
    }

    /// No new connection is wanted now.
    pub fn turned(turned: Turned) -> Self {
        let (refusal, detail) = match turned.limit {
            Some(limit) if limit.answer() == Answer::Http(429) => (Refusal::RateLimited, over(limit)),
            Some(limit) => (Refusal::Unavailable, over(limit)),
            None => (Refusal::Unavailable, "this node is going down: come back to another one".to_owned()),
        };
        Self { detail, retry_after: turned.retry_seconds, ..Self::from(refusal) }
    }

    /// What the request brings is over this limit. Counts it.
    pub fn over(limit: Limit) -> Self {
        limits::refused(limit);
        let detail = over(limit);
        match limit.answer() {
            Answer::Http(408) => Self {
                status: StatusCode::REQUEST_TIMEOUT,
                code: TIMEOUT,
                detail,
                ..Refusal::Unavailable.into()
            },
            _ => Self { detail, ..Refusal::TooLarge.into() },
        }
    }

    /// The caller may not, for this reason.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::from(Refusal::Forbidden) }
    }

    /// The error as it is told.
    pub fn body(self) -> ProblemBody {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let status = self.status.as_u16();
        ProblemBody { r#type: "about:blank", title, status, code: self.code, detail: self.detail }
    }
}

fn over(limit: Limit) -> String {
    format!("over the limit {}", limit.name())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

/// The HTTP status of a refusal.
pub fn status_of(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::Unauthorized | Refusal::TokenExpired => StatusCode::UNAUTHORIZED,
        Refusal::Forbidden | Refusal::Muted => StatusCode::FORBIDDEN,
        Refusal::NotFound | Refusal::UnknownMethod => StatusCode::NOT_FOUND,
        Refusal::Invalid | Refusal::UnrecoverablePosition => StatusCode::BAD_REQUEST,
        Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::NotSupported => StatusCode::NOT_IMPLEMENTED,
        Refusal::AlreadySubscribed => StatusCode::CONFLICT,
        Refusal::LimitExceeded | Refusal::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Refusal::BacklogFull | Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: status_of(refusal),
            code: refusal.code(),
            detail: refusal.to_string(),
            retry_after: RETRY_AFTER_SECONDS,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let json = serde_json::to_vec(&self.body()).expect("a problem is plain data");
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], json).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            // What may come of the body yet is no request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if waits(status) {
            headers.insert(header::RETRY_AFTER, retry_after.into());
        }
        response
    }
}

fn waits(status: StatusCode) -> bool {
    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

/// The problems that every operation may answer with, as the document lists them.
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        const NEVER: [Refusal; 4] = [
            Refusal::UnknownMethod,
            Refusal::NotSupported,
            Refusal::AlreadySubscribed,
            Refusal::UnrecoverablePosition,
        ];
        let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for refusal in Refusal::ALL.into_iter().filter(|refusal| !NEVER.contains(refusal)) {
            codes.entry(status_of(refusal).as_u16()).or_default().push(refusal.code());
        }
        codes.entry(StatusCode::REQUEST_TIMEOUT.as_u16()).or_default().push(TIMEOUT);
        let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let describe = |(status, codes): (u16, Vec<&str>)| {
            let described = ResponseBuilder::new()
                .description(format!("`{}`", codes.join("`, `")))
                .content("application/problem+json", content());
            let is_late = StatusCode::from_u16(status).is_ok_and(waits);
            let described = if is_late {
                let seconds = HeaderBuilder::new().description(Some("Seconds to wait before the next try"));
                described.header("Retry-After", seconds.build())
            } else {
                described
            };
            (status.to_string(), described.build().into())
        };
        codes.into_iter().map(describe).collect()
    }
}

/// The answer to a URL that means nothing.
pub async fn no_such_route() -> Problem {
    Problem { detail: "there is nothing at this URL".to_owned(), ..Refusal::NotFound.into() }
}

/// The answer to a method that the URL does not know.
pub async fn no_such_method() -> Problem {
    let detail = "this URL does not know the method".to_owned();
    Problem {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: METHOD_NOT_ALLOWED,
        detail,
        ..Refusal::UnknownMethod.into()
    }
}

/// Codes of problems that only HTTP has.
pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
pub const TIMEOUT: &str = "timeout";

#[cfg(test)]
mod tests {
    use shared::domain::Disconnect;

    use super::*;
    use crate::protocol::centrifuge::{self, Unsubscribe};

    const README: &str = include_str!("../../../README.md");

    /// The rows of the README's table, cell by cell, without its head.
    fn listed() -> Vec<Vec<String>> {
        let section =
            README.split("\n## What a client can be refused\n").nth(1).expect("there is this section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let cells = |row: &str| row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
        rows.map(|row| cells(row.trim_matches('|'))).collect()
    }

    fn row(cells: [&str; 4]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn the_readme_lists_every_refusal() {
        let refusal = |refusal: Refusal| {
            let (code, is_temporary) = centrifuge::error_code(refusal);
            let spelled = format!("error {code}{}", if is_temporary { ", temporary" } else { "" });
            row([refusal.code(), status_of(refusal).as_str(), "–", &spelled])
        };
        let unsubscribe =
            |why: Unsubscribe| row([why.reason(), "–", "–", &format!("unsubscribe {}", why.code())]);
        let disconnect = |why: &Disconnect| {
            let comes_back = (3000..3500).contains(&why.code());
            let spelled = if comes_back { "disconnect, comes back" } else { "disconnect, final" };
            row([why.reason(), "–", &why.code().to_string(), spelled])
        };
        let mut expected: Vec<_> = Refusal::ALL.into_iter().map(refusal).collect();
        expected.push(row([METHOD_NOT_ALLOWED, "405", "–", "–"]));
        expected.push(row([TIMEOUT, "408", "–", "–"]));
        expected.extend([Unsubscribe::Removed, Unsubscribe::InsufficientState].map(unsubscribe));
        let told = Disconnect::ALL.iter().filter(|why| **why != Disconnect::ConnectionClosed);
        expected.extend(told.map(disconnect));
        let text =
            |rows: &[Vec<String>]| rows.iter().map(|row| row.join(" | ")).collect::<Vec<_>>().join("\n");
        assert_eq!(text(&listed()), text(&expected));
    }

    #[test]
    fn who_is_to_come_back_is_told_when() {
        for refusal in Refusal::ALL {
            let response = Problem::from(refusal).into_response();
            let has_time = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(has_time, waits(status_of(refusal)), "{refusal:?}");
        }
    }
}
