//! One packet: a digit and what follows it.

use bytes::Bytes;

/// The payload of a close packet.
pub const CLOSE: &[u8] = b"1";
/// The payload of a ping packet.
pub const PING: &[u8] = b"2";
/// The payload of a noop packet.
pub const NOOP: &[u8] = b"6";
/// What a probe is answered with.
pub const PROBE_ANSWER: &[u8] = b"3probe";

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Ends the connection.
    Close,
    /// A ping; only a probe of a new transport may send one.
    Ping {
        /// Whether it is the probe.
        is_probe: bool,
    },
    /// Answers the server's ping.
    Pong,
    /// A message of text.
    Text(Bytes),
    /// A message of bytes.
    Binary(Bytes),
    /// Completes the change to a new transport.
    Upgrade,
    /// What a server may say and a client has no reason to: ignored.
    Ignored,
}

/// The bytes are no packet; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a packet of Engine.IO")]
pub struct Malformed;

/// Reads the packet of a text frame, which is UTF-8.
///
/// # Errors
/// When there is no such type of packet. Base64 is for polling alone.
pub fn packet_of_frame(frame: &Bytes) -> Result<Packet, Malformed> {
    let rest = || frame.slice(1..);
    match frame.first() {
        Some(b'0' | b'6') => Ok(Packet::Ignored),
        Some(b'1') => Ok(Packet::Close),
        Some(b'2') => Ok(Packet::Ping { is_probe: &frame[1..] == b"probe" }),
        Some(b'3') => Ok(Packet::Pong),
        Some(b'4') => Ok(Packet::Text(rest())),
        Some(b'5') => Ok(Packet::Upgrade),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &'static str) -> Result<Packet, Malformed> {
        packet_of_frame(&Bytes::from_static(frame.as_bytes()))
    }

    #[test]
    fn a_digit_says_what_it_is() {
        assert_eq!(read("4hello"), Ok(Packet::Text("hello".into())));
        assert_eq!(read("4"), Ok(Packet::Text(Bytes::new())));
        assert_eq!(read("2probe"), Ok(Packet::Ping { is_probe: true }));
        assert_eq!(read("2"), Ok(Packet::Ping { is_probe: false }));
        assert_eq!([read("3"), read("3probe")], [Ok(Packet::Pong), Ok(Packet::Pong)]);
        assert_eq!([read("1"), read("5")], [Ok(Packet::Close), Ok(Packet::Upgrade)]);
        assert_eq!([read("0{}"), read("6")], [Ok(Packet::Ignored), Ok(Packet::Ignored)]);
    }

    #[test]
    fn everything_else_is_none() {
        for bad in ["", "7", "abc", "bAQID", " 4", "é"] {
            assert_eq!(read(bad), Err(Malformed), "{bad}");
        }
    }
}
