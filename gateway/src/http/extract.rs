//! What a request holds, read so that whatever is wrong with it is told as a problem.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use shared::domain::ClientMessageId;

use super::{Routes, problem::Problem};
use crate::limits::Limit;

/// The parts of the path that the route names.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(params)| Self(params)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// The query.
pub struct Search<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Search<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(search)| Self(search)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// The body, whole and in time. Whoever wants one has it from here, since only here its size and its time have limits
/// that are told and counted.
pub struct Whole(pub Bytes);

impl FromRequest<Routes> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, routes: &Routes) -> Result<Self, Problem> {
        let time_max = routes.lines.node.limiter.body_time_max();
        let body = tokio::time::timeout(time_max, Bytes::from_request(request, routes)).await;
        let body = body.map_err(|_| Problem::over(Limit::BodySeconds))?;
        body.map(Self).map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::over(Limit::RequestBytes),
            _ => Problem::invalid(error.body_text()),
        })
    }
}

/// The body, which is JSON whatever its `Content-Type` says.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Routes> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, routes: &Routes) -> Result<Self, Problem> {
        let Whole(body) = Whole::from_request(request, routes).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| Problem::invalid(error.to_string()))
    }
}

/// The name that a sender gives its message, so that a retry is recognised.
pub struct IdempotencyKey(pub Option<ClientMessageId>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        idempotency_key(&parts.headers).map(Self)
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<ClientMessageId>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let is_absent = !headers.contains_key("idempotency-key");
        return if is_absent { Ok(None) } else { Err(Problem::invalid("Idempotency-Key is given twice")) };
    };
    let text = value.to_str().map_err(|_| Problem::invalid("Idempotency-Key has other than ASCII"))?;
    // Some clients send it as a structured field, which stands in quotes.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let key = ClientMessageId::parse(text);
    key.map(Some).map_err(|error| Problem::invalid(format!("Idempotency-Key: {error}")))
}

/// An answer in JSON.
pub fn json(answer: &impl Serialize) -> Response {
    let body = serde_json::to_vec(answer).expect("an answer is plain data");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_here_alone() {
        let rooms = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http")).unwrap();
        for room in rooms.map(|room| room.unwrap().path()) {
            let text = std::fs::read_to_string(&room).unwrap_or_default();
            let handlers = text.split("pub async fn ").skip(1).filter_map(|rest| rest.split(") ->").next());
            let beside =
                handlers.into_iter().find(|head| [": Bytes", ": String"].iter().any(|of| head.contains(of)));
            assert_eq!(beside, None, "{}", room.display());
        }
    }

    #[test]
    fn an_idempotency_key_may_stand_in_quotes_and_must_be_one() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", header::HeaderValue::from_str(value).unwrap());
            }
            idempotency_key(&headers).map(|key| key.map(String::from)).map_err(|problem| problem.to_string())
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["k-1"]), Ok(Some("k-1".to_owned())));
        assert_eq!(read(&["\"k-1\""]), Ok(Some("k-1".to_owned())));
        for bad in [&["a b"][..], &[""], &["a", "b"], &["\""]] {
            assert!(read(bad).unwrap_err().contains("Idempotency-Key"), "{bad:?}");
        }
    }
}
