//! What a request holds, read so that whatever is wrong with it is told as a problem.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use shared::domain::{ClientMessageId, Refusal};

use super::problem::Problem;

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

/// The body, which is JSON whatever its `Content-Type` says.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(|error| {
            let is_too_large = error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE;
            if is_too_large { Refusal::TooLarge.into() } else { Problem::invalid(error.body_text()) }
        })?;
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
