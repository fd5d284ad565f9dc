//! HTTP requests to a gateway: one connection per request, plain TCP, no redirects. Deliberately absent: TLS, pools, retries.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Body, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

/// Longest time for one request, in seconds.
pub const REQUEST_SECONDS_MAX: u64 = 15;
/// Largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not `http://host:port/…`.
    #[error("{0} is not an http:// address")]
    Address(String),
    /// The node is not there.
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    /// The connection failed.
    #[error("connection failed: {0}")]
    Hyper(#[from] hyper::Error),
    /// The answer is too large, or ended early.
    #[error("answer not readable: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came in time.
    #[error("no answer within {REQUEST_SECONDS_MAX} s")]
    Timeout,
    /// The node refused.
    #[error("{status}: {body}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The problem, as the node says it.
        body: String,
    },
    /// The answer is not the JSON expected.
    #[error("unexpected answer: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads a JSON resource.
///
/// # Errors
/// When the node does not answer with success and the JSON expected.
pub async fn get<T: DeserializeOwned>(url: &str, token: Option<&str>) -> Result<T, HttpError> {
    let request = builder(Method::GET, &address(url)?, token).body(Empty::<Bytes>::new());
    exchange(url, request.expect("a parsed address and a JWT make a request")).await
}

/// Reads a resource as text.
///
/// # Errors
/// When the node does not answer with success.
pub async fn get_text(url: &str) -> Result<String, HttpError> {
    let request = builder(Method::GET, &address(url)?, None).body(Empty::<Bytes>::new());
    let body = ask(url, request.expect("a parsed address makes a request")).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Sends JSON to a resource.
///
/// # Errors
/// When the node does not answer with success and the JSON expected.
pub async fn post<T: DeserializeOwned>(
    url: &str,
    token: &str,
    body: &impl Serialize,
) -> Result<T, HttpError> {
    let body = Full::new(Bytes::from(serde_json::to_vec(body)?));
    let request = builder(Method::POST, &address(url)?, Some(token))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    exchange(url, request.expect("a parsed address and a JWT make a request")).await
}

/// Removes a resource.
///
/// # Errors
/// When the node does not answer with success.
pub async fn delete(url: &str, token: &str) -> Result<(), HttpError> {
    let request = builder(Method::DELETE, &address(url)?, Some(token)).body(Empty::<Bytes>::new());
    exchange(url, request.expect("a parsed address and a JWT make a request")).await
}

/// Parses the address of a gateway or of one of its resources.
pub(crate) fn address(url: &str) -> Result<Uri, HttpError> {
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => Ok(uri),
        _ => Err(HttpError::Address(url.to_owned())),
    }
}

/// Opens a connection to whatever is at the address, and closes it.
///
/// # Errors
/// When nothing listens there.
pub async fn reach(url: &str) -> Result<(), HttpError> {
    let limit = Duration::from_secs(REQUEST_SECONDS_MAX);
    let opened = tokio::time::timeout(limit, open(&address(url)?)).await;
    opened.map_err(|_| HttpError::Timeout)?.map(drop)
}

/// Opens a connection without the delay that would glue small frames together.
pub(crate) async fn open(address: &Uri) -> Result<TokioIo<TcpStream>, HttpError> {
    let host = address.host().ok_or_else(|| HttpError::Address(address.to_string()))?;
    let stream =
        TcpStream::connect((host.trim_matches(['[', ']']), address.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

pub(crate) fn builder(method: Method, address: &Uri, token: Option<&str>) -> hyper::http::request::Builder {
    let path = address.path_and_query().map_or("/", |path| path.as_str());
    let host = address.authority().map_or("", |authority| authority.as_str());
    let builder = Request::builder().method(method).uri(path).header(header::HOST, host);
    match token {
        Some(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => builder,
    }
}

async fn exchange<T, B>(url: &str, request: Request<B>) -> Result<T, HttpError>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = ask(url, request).await?;
    Ok(serde_json::from_slice(if body.is_empty() { b"null" } else { &body })?)
}

async fn ask<B>(url: &str, request: Request<B>) -> Result<Bytes, HttpError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let address = address(url)?;
    let answer = async {
        let (mut sender, connection) = http1::handshake(open(&address).await?).await?;
        let request = async move { read(sender.send_request(request).await?).await };
        // The connection moves the bytes of the request beside it, and is dropped with it.
        tokio::pin!(request, connection);
        tokio::select! {
            answer = &mut request => answer,
            ended = &mut connection => { ended?; request.await }
        }
    };
    let limit = Duration::from_secs(REQUEST_SECONDS_MAX);
    let (status, body) = tokio::time::timeout(limit, answer).await.map_err(|_| HttpError::Timeout)??;
    if status.is_success() {
        Ok(body)
    } else {
        Err(HttpError::Status { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

async fn read(response: Response<Incoming>) -> Result<(StatusCode, Bytes), HttpError> {
    let status = response.status();
    let body =
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(HttpError::Body)?;
    Ok((status, body.to_bytes()))
}
