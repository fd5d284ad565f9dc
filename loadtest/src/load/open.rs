//! From an address to a socket: of a WebSocket, or for plain requests.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::{
    dialect::Asked,
    http::{self, HttpError},
};

/// Longest time to connect and to be in all rooms, in seconds.
pub const OPEN_SECONDS_MAX: u64 = 30;
/// Longest answer to the request for a WebSocket, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// A WebSocket's key may be any 16 bytes; the server's answer to it is not looked at.
const KEY: &str = "c3RhcmxpbmctbG9hZHRlcw==";

/// Answers over HTTP after which no other is to be expected.
const FINAL_STATUS: [u16; 4] = [400, 401, 403, 404];
/// The same, and refusals of the protocols, as a server says them.
const FINAL_WORDS: [&str; 10] = [
    "HTTP/1.1 400",
    "HTTP/1.1 401",
    "HTTP/1.1 403",
    "HTTP/1.1 404",
    "101 ",
    "103 ",
    "109 ",
    "unauthorized",
    "token_expired",
    "forbidden",
];

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the server answered {0}")]
    Refused(String),
    #[error("the server closed the connection: {0}")]
    Closed(u16),
    #[error("the connection was lost")]
    Lost,
    #[error("cut by the storm")]
    Cut,
    #[error("{0}")]
    Strange(String),
    #[error("not in all rooms within {OPEN_SECONDS_MAX} s")]
    Slow,
}

impl Ended {
    /// Whether trying again would end the same way: the address, the token or the right to a room is not good.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Http(HttpError::Status { status, .. }) => FINAL_STATUS.contains(&status.as_u16()),
            Self::Http(HttpError::Address(_)) | Self::Closed(3500..=3999) => true,
            Self::Refused(said) => FINAL_WORDS.iter().any(|word| said.contains(word)),
            _ => false,
        }
    }
}

/// A connection to the server.
pub async fn dial(url: &str, source: Option<IpAddr>) -> Result<TcpStream, Ended> {
    let address = http::address(url)?;
    let port = address.port_u16().unwrap_or(80);
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    let to = lookup_host((host, port)).await?.next().ok_or(Ended::Lost)?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request as it goes over the connection.
pub fn request(url: &str, (method, path, body): &Asked) -> Result<String, Ended> {
    let address = http::address(url)?;
    let authority = address.authority().map_or("", |authority| authority.as_str());
    let about = match body.len() {
        0 => String::new(),
        len => format!("Content-Type: text/plain; charset=UTF-8\r\nContent-Length: {len}\r\n"),
    };
    Ok(format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{about}\r\n{body}"))
}

/// The socket of a WebSocket, and what the server has said ahead.
pub async fn open(url: &str, path: &str, source: Option<IpAddr>) -> Result<(TcpStream, Vec<u8>), Ended> {
    let address = http::address(url)?;
    let authority = address.authority().map_or("", |authority| authority.as_str());
    let stream = dial(url, source).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    // So short a request fits into any socket that is new.
    stream.writable().await?;
    stream.try_write(request.as_bytes())?;
    let ahead = upgraded(&stream).await?;
    Ok((stream, ahead))
}

/// Reads the answer to the request for a WebSocket. Returns what has come behind it.
async fn upgraded(stream: &TcpStream) -> Result<Vec<u8>, Ended> {
    let mut answer = Vec::new();
    loop {
        stream.readable().await?;
        answer.reserve(1_024);
        match stream.try_read_buf(&mut answer) {
            Ok(0) => return Err(Ended::Lost),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            if !answer.starts_with(b"HTTP/1.1 101") {
                let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(Ended::Refused(String::from_utf8_lossy(line).into_owned()));
            }
            return Ok(answer.split_off(end + 4));
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Ended::Strange("an endless answer".to_owned()));
        }
    }
}
