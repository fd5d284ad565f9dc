//! A GET, for health checks and metrics. Deliberately not an HTTP client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest response that is read, in bytes.
const RESPONSE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest wait for the whole response. Far above what it takes; only a failure waits for it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Status and body of a response.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// Such as 200.
    pub status: u16,
    /// As text; what is not UTF-8 is replaced.
    pub body: String,
}

/// Gets `http://HOST:PORT/PATH`. It speaks HTTP/1.0, so that the body is neither chunked nor kept open.
///
/// # Errors
/// When the URL has another form, nothing answers in time, or the answer is not HTTP.
pub async fn http_get(url: &str) -> Result<HttpResponse> {
    let rest = url.strip_prefix("http://").with_context(|| format!("`{url}` does not begin with http://"))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let exchange = tokio::time::timeout(RESPONSE_TIMEOUT, exchange(address, path));
    let text = exchange.await.with_context(|| format!("{url} did not answer in {RESPONSE_TIMEOUT:?}"))?;
    parse(&text.with_context(|| format!("cannot get {url}"))?)
        .with_context(|| format!("{url} does not speak HTTP"))
}

async fn exchange(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(RESPONSE_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    ensure!(
        bytes.len() as u64 <= RESPONSE_BYTES_MAX,
        "the response is longer than {RESPONSE_BYTES_MAX} bytes"
    );
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str) -> Option<HttpResponse> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpResponse { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_and_noise_is_not() {
        let response = parse("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\nnot\r\n\r\nready").unwrap();
        assert_eq!((response.status, response.body.as_str()), (503, "not\r\n\r\nready"));
        assert!(parse("SSH-2.0-OpenSSH\r\n\r\n").is_none());
        assert!(parse("HTTP/1.1 200 OK\r\n").is_none());
    }
}
