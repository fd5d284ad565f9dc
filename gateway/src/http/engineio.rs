//! The requests of Engine.IO: handshakes, fetching, bringing, and WebSockets.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::problem::Problem;
use crate::{
    connection::engineio::{Engine, Make},
    limits::{self, Limit},
    protocol::engineio::{EngineError, Query, Transport},
    socket,
};

/// What a body of packets is.
const PACKETS: &str = "text/plain; charset=UTF-8";

/// Looks at the beginning of a connection before it begins: what stands behind it, or the answer that refuses it.
pub type Admit<'a> = &'a (dyn Fn(&Parts) -> Result<Make, Box<Response>> + Sync);

/// Answers a request of a connection of this node, or one that begins a connection.
pub async fn answer(engine: &Arc<Engine>, request: Request, admit: Admit<'_>) -> Response {
    match dispatch(engine, request, admit).await {
        Ok(response) => response,
        Err(Refused::Answered(response)) => *response,
        Err(Refused::Error(error)) => error.into_response(),
    }
}

/// Why there is no ordinary answer.
enum Refused {
    Error(EngineError),
    Answered(Box<Response>),
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Error(error)
    }
}

impl IntoResponse for EngineError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::BAD_REQUEST);
        (status, [(header::CONTENT_TYPE, "application/json")], self.body()).into_response()
    }
}

async fn dispatch(engine: &Arc<Engine>, request: Request, admit: Admit<'_>) -> Result<Response, Refused> {
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    match (query.sid.as_deref(), query.transport) {
        (None, _) if request.method() != Method::GET => Err(EngineError::BadHandshakeMethod.into()),
        (None, transport) if (transport == Transport::WebSocket) != is_upgrade => {
            Err(EngineError::BadRequest.into())
        }
        (None, transport) => {
            let (parts, body) = request.into_parts();
            let make = admit(&parts).map_err(Refused::Answered)?;
            query.check_version()?;
            match transport {
                Transport::Polling => Ok(packets(engine.open_polling(make))),
                Transport::WebSocket => open_websocket(engine, Request::from_parts(parts, body), make),
            }
        }
        (Some(sid), Transport::WebSocket) if is_upgrade => take_over(engine, sid, request),
        (Some(sid), Transport::Polling) if !is_upgrade => poll(engine, sid, request).await,
        (Some(_), _) => Err(EngineError::BadRequest.into()),
    }
}

fn packets(body: Vec<u8>) -> Response {
    let head = [(header::CONTENT_TYPE, PACKETS), (header::CACHE_CONTROL, "no-store")];
    (head, body).into_response()
}

fn open_websocket(engine: &Arc<Engine>, mut request: Request, make: Make) -> Result<Response, Refused> {
    let (response, handle) = upgrade(&mut request)?;
    engine.tracker().spawn(engine.converse(handle, make));
    Ok(response)
}

fn take_over(engine: &Arc<Engine>, sid: &str, mut request: Request) -> Result<Response, Refused> {
    let socket = engine.find_to_upgrade(sid)?;
    let (response, handle) = upgrade(&mut request)?;
    engine.tracker().spawn(engine.take_over(socket, handle));
    Ok(response)
}

fn upgrade(request: &mut Request) -> Result<(Response, socket::UpgradeHandle), Refused> {
    socket::upgrade(request, None).map_err(|refusal| Refused::Answered(Box::new(refusal.into_response())))
}

async fn poll(engine: &Arc<Engine>, sid: &str, request: Request) -> Result<Response, Refused> {
    if request.method() == Method::GET {
        return Ok(packets(engine.fetch(sid).await?));
    }
    if request.method() != Method::POST {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    }
    let is_binary = content_type(request.headers()).starts_with("application/octet-stream");
    let posting = engine.post(sid)?;
    if is_binary {
        return Err(EngineError::BadRequest.into());
    }
    let body = axum::body::to_bytes(request.into_body(), engine.config().payload_bytes_max);
    let body = match tokio::time::timeout(engine.config().body_time_max, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            limits::refused(Limit::RequestBytes);
            return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response());
        }
        Err(_) => return Ok(Problem::over(Limit::BodySeconds).into_response()),
    };
    posting.bring(&body).await?;
    Ok(([(header::CONTENT_TYPE, PACKETS)], "ok").into_response())
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Lets every page of the world read the answer: for the echo programs.
pub async fn open_to_all(request: Request, answer: impl AsyncFnOnce(Request) -> Response) -> Response {
    let is_preflight = request.method() == Method::OPTIONS;
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response =
        if is_preflight { StatusCode::NO_CONTENT.into_response() } else { answer(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        if let Some(asked) = asked {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
    }
    response.map(Body::new)
}
