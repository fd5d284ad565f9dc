//! What every answer says to browsers: which pages may read it, and what it may do there.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Routes, problem::Problem};

/// How long a browser may remember that a page of another origin may ask, in seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// What pages of other origins may use.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key";
/// Where Socket.IO clients connect.
pub(super) const SOCKETIO: &str = "/socket.io/";
const ANSWER_HEADERS: &str = "retry-after, www-authenticate";

/// Said by every answer that does not say otherwise by itself.
const DEFAULTS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Refuses what does not say whom it asks, answers preflights, and puts the headers on everything else.
pub async fn guard(State(routes): State<Routes>, request: Request, next: Next) -> Response {
    let origin = routes.origins.confirm(request.headers());
    let is_socketio = request.uri().path() == SOCKETIO;
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if !has_host(&request) {
        Problem::invalid("a request has exactly one Host").into_response()
    } else if is_preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let headers = response.headers_mut();
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if routes.hsts_seconds > 0
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={}", routes.hsts_seconds))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        open(headers, origin, is_preflight);
        if is_socketio {
            open_to_socketio(headers, asked.filter(|_| is_preflight));
        }
    }
    response
}

/// RFC 9112 §3.2: one `Host`, which origins are compared with. Of two, a proxy may have looked at the other.
fn has_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}

/// Stock Socket.IO clients may be told to come with credentials, and with headers of their own; neither means anything here,
/// and without these words a browser would not let them come at all.
fn open_to_socketio(headers: &mut HeaderMap, asked: Option<HeaderValue>) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if let Some(asked) = asked {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
}

/// Lets a page of another origin read the answer. Never with cookies: there are none.
fn open(headers: &mut HeaderMap, origin: HeaderValue, is_preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let more: &[(HeaderName, &str)] = if is_preflight {
        &[
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
        ]
    } else {
        &[(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS)]
    };
    for (name, value) in more {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
