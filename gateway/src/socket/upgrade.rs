//! From an HTTP request to the raw socket of a WebSocket connection.
//!
//! `fastwebsockets` answers an upgrade without looking at the method, `Connection`, `Upgrade` or the key's form, so that
//! is checked here first. `Origin` is the caller's concern.

use std::io;

use axum::body::Body;
use axum::http::header::{
    ALLOW, CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use axum::response::IntoResponse;
use bytes::Bytes;
use fastwebsockets::upgrade::UpgradeFut;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::Reader;
use super::progress::Progressing;
use crate::frame::FrameLimits;

/// The only version of the protocol (RFC 6455).
const VERSION: &str = "13";
/// A key is 16 bytes in base64: 22 characters and padding.
const KEY_CHARACTERS: usize = 22;

/// Why a request does not become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// Not a GET.
    #[error("a WebSocket begins with GET")]
    Method,
    /// Not HTTP/1.1.
    #[error("a WebSocket begins with HTTP/1.1")]
    HttpVersion,
    /// `Connection` does not say `upgrade`, or `Upgrade` does not say `websocket`.
    #[error("not a WebSocket request")]
    NotAnUpgrade,
    /// `Sec-WebSocket-Version` is not 13; the answer says that 13 is.
    #[error("WebSocket version 13 is needed")]
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, there more than once, or not 16 bytes in base64.
    #[error("bad Sec-WebSocket-Key")]
    Key,
    /// The subprotocol chosen by the caller cannot be a header's value.
    #[error("bad subprotocol")]
    Subprotocol,
}

impl IntoResponse for UpgradeRefusal {
    fn into_response(self) -> Response<Body> {
        let text = self.to_string();
        match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")], text).into_response(),
            Self::HttpVersion => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, text).into_response(),
            Self::WebSocketVersion => {
                (StatusCode::UPGRADE_REQUIRED, [(SEC_WEBSOCKET_VERSION, VERSION)], text).into_response()
            }
            Self::NotAnUpgrade | Self::Key => (StatusCode::BAD_REQUEST, text).into_response(),
            Self::Subprotocol => (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
        }
    }
}

/// A WebSocket's TCP stream, out of the HTTP server's hands.
#[derive(Debug)]
pub struct RawSocket {
    /// The stream, at the first byte after `read_ahead`.
    pub stream: TcpStream,
    /// What the client sent behind its request and the HTTP server has already read.
    pub read_ahead: Bytes,
}

impl RawSocket {
    /// A reader, and the half that an [`Outbox`](crate::outbox::Outbox) writes to.
    pub fn split(self, limits: FrameLimits) -> (Reader, OwnedWriteHalf) {
        let (read, write) = self.stream.into_split();
        (Reader::new(read, self.read_ahead, limits), write)
    }
}

/// The connection of an accepted upgrade, once the response has been sent.
#[derive(Debug)]
pub struct UpgradeHandle {
    upgrade: UpgradeFut,
}

impl UpgradeHandle {
    /// Waits until the 101 response is sent and takes the stream. Await it in a task of its own: the response is sent
    /// only after the handler has returned.
    ///
    /// # Errors
    /// When the client is gone before that, or the request did not come through [`accept::serve`](super::serve).
    pub async fn raw(self) -> io::Result<RawSocket> {
        let socket = self.upgrade.await.map_err(io::Error::other)?;
        let upgraded = socket.into_inner().into_inner();
        let parts = upgraded
            .downcast::<TokioIo<Progressing>>()
            .map_err(|_| io::Error::other("the connection was not accepted by this server"))?;
        // Copied, since the HTTP server's buffer is far larger than what a client sends ahead.
        let read_ahead = Bytes::copy_from_slice(&parts.read_buf);
        Ok(RawSocket { stream: parts.io.into_inner().into_inner(), read_ahead })
    }
}

/// Answers a WebSocket handshake with 101, choosing `subprotocol` if one is given: the caller has seen that the client
/// offers it.
///
/// # Errors
/// [`UpgradeRefusal`], itself a response, when the request is not a proper handshake.
pub fn upgrade<B>(
    request: &mut Request<B>,
    subprotocol: Option<&str>,
) -> Result<(Response<Body>, UpgradeHandle), UpgradeRefusal> {
    check(request.method(), request.version(), request.headers())?;
    let chosen =
        subprotocol.map(HeaderValue::from_str).transpose().map_err(|_| UpgradeRefusal::Subprotocol)?;
    let (response, upgrade) =
        fastwebsockets::upgrade::upgrade(request).map_err(|_| UpgradeRefusal::NotAnUpgrade)?;
    let mut response = response.map(Body::new);
    if let Some(chosen) = chosen {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    Ok((response, UpgradeHandle { upgrade }))
}

fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), UpgradeRefusal> {
    if method != Method::GET {
        return Err(UpgradeRefusal::Method);
    }
    if version != Version::HTTP_11 {
        return Err(UpgradeRefusal::HttpVersion);
    }
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(UpgradeRefusal::NotAnUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(UpgradeRefusal::WebSocketVersion);
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => Ok(()),
        _ => Err(UpgradeRefusal::Key),
    }
}

/// Whether a header that lists tokens has this one, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|key| {
        key.len() == KEY_CHARACTERS
            && key.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn handshake() -> Request<()> {
        Request::get("/")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEY)
            .body(())
            .unwrap()
    }

    fn refusal(change: impl FnOnce(&mut Request<()>)) -> Option<UpgradeRefusal> {
        let mut request = handshake();
        change(&mut request);
        upgrade(&mut request, None).err()
    }

    fn set(name: &'static str, value: &'static str) -> Option<UpgradeRefusal> {
        refusal(|request| {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        })
    }

    #[test]
    fn a_proper_handshake_is_answered() {
        let (response, _) = upgrade(&mut handshake(), Some("centrifuge-json")).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["Sec-WebSocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "centrifuge-json");
        let (response, _) = upgrade(&mut handshake(), None).unwrap();
        assert!(!response.headers().contains_key("Sec-WebSocket-Protocol"));
    }

    #[test]
    fn what_is_not_a_handshake_is_refused() {
        assert_eq!(refusal(|request| *request.method_mut() = Method::POST), Some(UpgradeRefusal::Method));
        assert_eq!(
            refusal(|request| *request.version_mut() = Version::HTTP_10),
            Some(UpgradeRefusal::HttpVersion)
        );
        assert_eq!(set("connection", "keep-alive"), Some(UpgradeRefusal::NotAnUpgrade));
        assert_eq!(set("upgrade", "h2c"), Some(UpgradeRefusal::NotAnUpgrade));
        for name in ["connection", "upgrade"] {
            let without = refusal(|request| drop(request.headers_mut().remove(name)));
            assert_eq!(without, Some(UpgradeRefusal::NotAnUpgrade));
        }
    }

    #[test]
    fn the_key_is_sixteen_bytes() {
        for key in
            ["", "c2hvcnQ=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=!", "dGhlIHNhbX!sZSBub25jZQ=="]
        {
            assert_eq!(set("sec-websocket-key", key), Some(UpgradeRefusal::Key), "{key}");
        }
        let twice = refusal(|request| {
            request.headers_mut().append("sec-websocket-key", HeaderValue::from_static(KEY));
        });
        assert_eq!(twice, Some(UpgradeRefusal::Key));
    }

    #[test]
    fn another_version_is_told_the_right_one() {
        let refusal = set("sec-websocket-version", "8").unwrap();
        assert_eq!(refusal, UpgradeRefusal::WebSocketVersion);
        let response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(response.headers()["Sec-WebSocket-Version"], "13");
    }
}
