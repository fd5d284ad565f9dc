//! A WebSocket client without manners: it sends whatever bytes it is told to, and reads frames one by one.
//!
//! It blocks, so that a test can write and read step by step. Deliberately absent: masking (its masks are zero), and every
//! check of what the server sends beyond what reading a frame needs.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longest wait for the server to take or send a byte, in seconds. Far above what either takes.
pub const IO_SECONDS_MAX: u64 = 60;
/// Longest answer to the handshake, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The first byte of a whole text message.
pub const TEXT: u8 = 0x81;
/// The first byte of a close frame.
pub const CLOSE: u8 = 0x88;

/// An open WebSocket.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    /// Opens a WebSocket at `host:port` and this path, and sends `first` along with the handshake.
    ///
    /// # Errors
    /// When it is not switched to WebSocket.
    pub fn open(address: &str, path: &str, first: &[u8]) -> io::Result<Self> {
        Self::open_with(address, path, "", first)
    }

    /// As [`RawClient::open`], with more headers, each with its line's end.
    ///
    /// # Errors
    /// When it is not switched to WebSocket; the error has the head of the answer.
    pub fn open_with(address: &str, path: &str, headers: &str, first: &[u8]) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        let limit = Some(Duration::from_secs(IO_SECONDS_MAX));
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        stream.set_nodelay(true)?;
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(&[handshake.as_bytes(), first].concat())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if head.starts_with(b"HTTP/1.1 101") {
            Ok(Self { stream })
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&head).into_owned()))
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server does not take them.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends the same bytes again and again, until `total` bytes are out or the server will have no more; how many it took.
    pub fn pour(&mut self, bytes: &[u8], total: usize) -> usize {
        let mut written = 0;
        while written < total && self.stream.write_all(bytes).is_ok() {
            written += bytes.len();
        }
        written
    }

    /// Reads one frame of up to 65,535 bytes: its first byte and its payload.
    ///
    /// # Errors
    /// When the connection ends before, or the frame is longer.
    pub fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let length = match head[1] {
            short @ 0..=125 => usize::from(short),
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            _ => return Err(io::Error::new(ErrorKind::InvalidData, "a masked or long frame")),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }

    /// Reads one frame, which must be a close frame with a code.
    ///
    /// # Errors
    /// When it is not, or the connection ends before.
    pub fn close_code(&mut self) -> io::Result<u16> {
        match self.read_frame()? {
            (CLOSE, payload) if payload.len() >= 2 => Ok(u16::from_be_bytes([payload[0], payload[1]])),
            other => {
                Err(io::Error::new(ErrorKind::InvalidData, format!("{other:?} instead of a close frame")))
            }
        }
    }

    /// Whether nothing but the end follows.
    pub fn has_ended(&mut self) -> bool {
        match self.stream.read(&mut [0; 16]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// A frame with this first byte, masked with zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(middle)) => {
            bytes.push(0xfe);
            bytes.extend(middle.to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}
