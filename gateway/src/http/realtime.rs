//! The endpoints of the Centrifuge protocol.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Query, RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use shared::{broker::Audience, domain::Refusal};

use super::{Routes, address::client_address, extract::Whole, problem::Problem};
use crate::{
    announcement::Announcement,
    connection::{self, Source, Wire},
    limits::Admitted,
    protocol::centrifuge::{self, Emulation},
    socket,
};

/// How much is kept of what a client calls itself, in bytes.
const USER_AGENT_BYTES_MAX: usize = 256;

/// `GET /connection/websocket`
pub async fn websocket(
    State(routes): State<Routes>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let headers = request.headers();
    if !routes.origins.admit(headers) {
        return Problem::from(Refusal::Forbidden).into_response();
    }
    let offered =
        headers.get(header::SEC_WEBSOCKET_PROTOCOL).map_or("", |value| value.to_str().unwrap_or("?"));
    let query = request.uri().query().unwrap_or_default();
    let chosen = centrifuge::check_query(query).and_then(|()| centrifuge::choose_subprotocol(offered));
    let Ok(subprotocol) = chosen else {
        return Problem::invalid("only the JSON form of the protocol is spoken here").into_response();
    };
    let (admitted, source) = match admit(&routes, peer, request.headers()) {
        Ok(admitted) => admitted,
        Err(problem) => return problem.into_response(),
    };
    let (response, handle) = match socket::upgrade(&mut request, subprotocol) {
        Ok(upgraded) => upgraded,
        Err(refusal) => return refusal.into_response(),
    };
    let Routes { lines, frames, .. } = routes;
    let tracker = lines.tracker.clone();
    tracker.spawn(connection::converse(lines, admitted, source, handle, frames));
    response
}

/// Lets a new connection in, or says why not.
pub(super) fn admit(
    routes: &Routes,
    peer: SocketAddr,
    headers: &HeaderMap,
) -> Result<(Admitted, Source), Problem> {
    let limiter = &routes.lines.node.limiter;
    let address = client_address(peer, headers, limiter.trusted_proxies());
    let admitted = limiter.admit(address).map_err(Problem::turned)?;
    let said = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Only ASCII passes `to_str`, so any byte is the end of a character.
    let user_agent = said[..said.len().min(USER_AGENT_BYTES_MAX)].to_owned();
    Ok((admitted, Source { address: address.to_string(), user_agent }))
}

#[derive(Deserialize)]
pub struct SseQuery {
    cf_connect: Option<String>,
}

/// `GET /connection/sse?cf_connect=…`
pub async fn sse(
    State(routes): State<Routes>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(query): Query<SseQuery>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    if centrifuge::check_query(raw.as_deref().unwrap_or_default()).is_err() {
        return Problem::invalid("only the JSON form of the protocol is spoken here").into_response();
    }
    match query.cf_connect {
        Some(connect) => stream(&routes, peer, &headers, Wire::Sse, connect.into()),
        None => Problem::invalid("cf_connect is missing").into_response(),
    }
}

/// `POST /connection/http_stream`
pub async fn http_stream(
    State(routes): State<Routes>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Whole(connect): Whole,
) -> Response {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.starts_with("application/octet-stream") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    stream(&routes, peer, &headers, Wire::HttpStream, connect)
}

fn stream(routes: &Routes, peer: SocketAddr, headers: &HeaderMap, wire: Wire, connect: Bytes) -> Response {
    if !routes.origins.admit(headers) {
        return Problem::from(Refusal::Forbidden).into_response();
    }
    let (admitted, source) = match admit(routes, peer, headers) {
        Ok(admitted) => admitted,
        Err(problem) => return problem.into_response(),
    };
    let content_type = match wire {
        Wire::Sse => "text/event-stream",
        Wire::HttpStream => "application/json",
    };
    let head = [
        (header::CONTENT_TYPE.as_str(), content_type),
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store"),
        // Proxies that collect a response before they pass it on would hold events back.
        ("x-accel-buffering", "no"),
    ];
    let (response, handle) = socket::detach(head);
    let (lines, emulations) = (routes.lines.clone(), Arc::clone(&routes.emulations));
    let tracker = lines.tracker.clone();
    tracker.spawn(connection::converse_by_stream(lines, admitted, source, emulations, wire, connect, handle));
    response
}

/// `POST /emulation`: commands of a session that may live on another node.
pub async fn emulation(State(routes): State<Routes>, headers: HeaderMap, Whole(body): Whole) -> Response {
    if !routes.origins.admit(&headers) {
        return Problem::from(Refusal::Forbidden).into_response();
    }
    match Emulation::parse(&body) {
        Ok(request) => hand_over(&routes, request).await,
        Err(_) => Problem::invalid("not an emulation request").into_response(),
    }
}

async fn hand_over(routes: &Routes, request: Emulation) -> Response {
    let Emulation { session, node: owner, data } = request;
    let node = &routes.lines.node;
    if owner == node.id {
        // A session that is gone ends its stream by itself; an error here would only make the client hurry.
        routes.emulations.hand_over(&session, data.into());
        return StatusCode::NO_CONTENT.into_response();
    }
    // Whoever asks may have made the name up; what is asked of Redis for one that nobody has is small, and has a rate.
    match routes.peers.find(&owner).await {
        Ok(Some(_)) => {}
        Ok(None) => return Problem::from(Refusal::UnknownMethod).into_response(),
        Err(_) => return Problem::from(Refusal::Unavailable).into_response(),
    }
    let announcement = Announcement::Emulation { session, data }.encode();
    match node.broker.announce(&Audience::Node(owner.clone()), announcement).await {
        Ok(0) => {
            routes.peers.forget(&owner);
            Problem::from(Refusal::UnknownMethod).into_response()
        }
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => Problem::from(Refusal::Unavailable).into_response(),
    }
}
