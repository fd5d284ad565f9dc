//! `/v1/conversations`: make one, read one back.

use axum::{
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::domain::{
    ConversationId, Direction, HistoryPage, HistoryQuery, Message, Position, Refusal, Seq, UserId,
};

use super::{Routes, access::Bearer, problem::Problem};
use crate::action::{self, HISTORY_MESSAGES_MAX, NewConversation};

/// Messages on a page when the request names no limit.
const PAGE_MESSAGES_DEFAULT: u32 = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    kind: String,
    name: Option<String>,
    members: Vec<UserId>,
}

#[derive(Serialize)]
struct Created<'a> {
    id: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    members: Vec<&'a str>,
}

/// `POST /v1/conversations`
pub async fn create(
    State(routes): State<Routes>,
    Bearer(user): Bearer,
    body: Bytes,
) -> Result<Response, Problem> {
    let Create { kind, name, members } =
        serde_json::from_slice(&body).map_err(|error| Problem::invalid(error.to_string()))?;
    let wanted = NewConversation { kind, name, members };
    let made = action::create_conversation(&routes.lines.node, &user, wanted).await?;
    let answer = Created {
        id: made.id.as_str(),
        kind: &made.kind,
        name: made.name.as_deref(),
        members: made.members.iter().map(|(user, _)| user.as_str()).collect(),
    };
    Ok((StatusCode::CREATED, json(&answer)).into_response())
}

#[derive(Deserialize)]
pub struct PageQuery {
    after: Option<u64>,
    before: Option<u64>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: String,
    seq: u64,
    prev: u64,
    time: u64,
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    kind: &'a str,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Page<'a> {
    messages: Vec<Entry<'a>>,
    epoch: &'a str,
    top: u64,
}

/// `GET /v1/conversations/{id}/messages`: after a seq, oldest first; otherwise, before a seq or from the end, newest first.
pub async fn messages(
    State(routes): State<Routes>,
    Bearer(user): Bearer,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    // A string that is no id names no conversation, which a stranger is told like this one.
    let conversation = ConversationId::parse(&id).map_err(|_| Refusal::Forbidden)?;
    let limit = query.limit.unwrap_or(PAGE_MESSAGES_DEFAULT);
    if limit == 0 || limit > HISTORY_MESSAGES_MAX {
        return Err(Problem::invalid(format!("limit must be 1 to {HISTORY_MESSAGES_MAX}")));
    }
    let (since, direction) = match (query.after, query.before) {
        (Some(_), Some(_)) => return Err(Problem::invalid("after and before do not go together")),
        (Some(after), None) => (Some(after), Direction::Forward),
        (None, before) => (before, Direction::Backward),
    };
    let since = since.map(|seq| Position { epoch: String::new(), seq: Seq(seq) });
    let asked = HistoryQuery { conversation, since, limit, direction };
    let HistoryPage { messages, epoch, top } = action::history(&routes.lines.node, &user, &asked).await?;
    let messages = messages.iter().map(entry).collect::<Result<_, _>>()?;
    Ok(json(&Page { messages, epoch: &epoch, top: top.0 }))
}

fn entry(message: &Message) -> Result<Entry<'_>, Problem> {
    Ok(Entry {
        id: message.id.to_string(),
        seq: message.seq.0,
        prev: message.prev.0,
        time: message.time,
        sender: message.sender.as_str(),
        client_id: message.client_id.as_ref().map(shared::domain::ClientMessageId::as_str),
        kind: message.kind.as_str(),
        body: serde_json::from_slice(message.body.as_bytes()).map_err(|_| Refusal::Unavailable)?,
    })
}

fn json(answer: &impl Serialize) -> Response {
    let body = serde_json::to_vec(answer).expect("an answer is plain data");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
