//! `/socket.io/`: where Socket.IO clients connect.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use shared::domain::Token;

use super::{Routes, engineio::answer, realtime};
use crate::{
    connection::{
        engineio::Make,
        socketio::{ChatServer, SocketIo},
    },
    outbox::Outbox,
    protocol::engineio::EngineError,
};

/// `/socket.io/`, whatever the method.
pub async fn socketio(
    State(routes): State<Routes>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    if !routes.origins.admit(request.headers()) {
        return EngineError::Forbidden.into_response();
    }
    let admit = |parts: &Parts| admit(&routes, peer, parts);
    answer(&routes.socketio.engine, request, &admit).await
}

fn admit(routes: &Routes, peer: SocketAddr, parts: &Parts) -> Result<Make, Response> {
    let (admitted, source) =
        realtime::admit(routes, peer, &parts.headers).map_err(IntoResponse::into_response)?;
    let query_token = routes.socketio.settings.query_token.then(|| in_query(parts)).flatten();
    let token = bearer(&parts.headers).or(query_token).unwrap_or_default();
    let service = Arc::clone(&routes.socketio);
    Ok(Box::new(move |outbox: &Arc<Outbox>| {
        Box::new(SocketIo::new(ChatServer::new(&service, outbox, admitted, source, Token(token))))
    }))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// A JWT has no character that a URL would escape.
fn in_query(parts: &Parts) -> Option<String> {
    let mut pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "token").map(|(_, token)| token.to_owned())
}
