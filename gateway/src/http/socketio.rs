//! `/socket.io/`: where Socket.IO clients connect.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use shared::domain::{NodeId, Refusal, Token};

use super::{Routes, engineio::answer, problem::Problem, realtime};
use crate::{
    connection::{
        engineio::Make,
        socketio::{ChatServer, SocketIo},
    },
    outbox::Outbox,
    protocol::engineio::{EngineError, Query},
    socket,
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
    let sid = Query::parse(request.uri().query().unwrap_or_default()).ok().and_then(|query| query.sid);
    match sid.map(|sid| routes.socketio.engine.owner_of(&sid)) {
        Some(Ok(Some(owner))) => return pass_on(&routes, &owner, request).await,
        Some(Err(error)) => return error.into_response(),
        Some(Ok(None)) | None => {}
    }
    let admit = |parts: &Parts| admit(&routes, peer, parts);
    answer(&routes.socketio.engine, request, &admit).await
}

/// The connection is another node's. It never moves: an owner that is gone takes its connections along, and their clients
/// begin anew.
async fn pass_on(routes: &Routes, owner: &NodeId, request: Request) -> Response {
    if socket::is_forwarded(&request) {
        return EngineError::SessionUnknown.into_response();
    }
    let address = match routes.peers.find(owner).await {
        Ok(Some(address)) => address,
        Ok(None) => return EngineError::SessionUnknown.into_response(),
        Err(error) => {
            tracing::warn!(%error, %owner, "a request cannot be passed on");
            return Problem::from(Refusal::Unavailable).into_response();
        }
    };
    socket::forward(address, request, routes.socketio.engine.tracker()).await.unwrap_or_else(|error| {
        tracing::debug!(%error, %owner, "a node has gone");
        routes.peers.forget(owner);
        EngineError::SessionUnknown.into_response()
    })
}

fn admit(routes: &Routes, peer: SocketAddr, parts: &Parts) -> Result<Make, Box<Response>> {
    let (admitted, source) =
        realtime::admit(routes, peer, &parts.headers).map_err(|problem| Box::new(problem.into_response()))?;
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
