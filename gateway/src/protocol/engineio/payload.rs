//! Several packets in the body of a request or a response.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::packet::{CLOSE, Malformed, Packet, packet_of_frame};

/// What stands between two packets.
pub const SEPARATOR: u8 = 0x1e;
/// What a message of bytes begins with, in base64.
const BINARY: u8 = b'b';

const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const OPCODE_CLOSE: u8 = 0x8;

/// Reads the packets of a request's body, up to the first that is none: an error is the last item.
pub fn packets_of(body: &Bytes) -> Vec<Result<Packet, Malformed>> {
    let mut packets = Vec::new();
    let mut start = 0;
    for end in memchr_all(body).chain(std::iter::once(body.len())) {
        let packet = packet_of_payload(&body.slice(start..end));
        let is_bad = packet.is_err();
        packets.push(packet);
        if is_bad {
            break;
        }
        start = end + 1;
    }
    packets
}

fn memchr_all(body: &[u8]) -> impl Iterator<Item = usize> {
    body.iter().enumerate().filter(|(_, byte)| **byte == SEPARATOR).map(|(at, _)| at)
}

fn packet_of_payload(packet: &Bytes) -> Result<Packet, Malformed> {
    if std::str::from_utf8(packet).is_err() {
        return Err(Malformed);
    }
    match packet.first() {
        Some(&BINARY) => {
            let bytes = STANDARD.decode(&packet[1..]).map_err(|_| Malformed)?;
            Ok(Packet::Binary(bytes.into()))
        }
        _ => packet_of_frame(packet),
    }
}

/// Rewrites a server's WebSocket frames as the body of a response: text as it is, bytes in base64, a close frame as a close
/// packet; control frames are left out.
pub fn payload_of(frames: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.iter().map(Bytes::len).sum());
    for chunk in frames {
        let mut rest: &[u8] = chunk;
        while let Some((opcode, payload, after)) = split_frame(rest) {
            rest = after;
            let start = out.len();
            if start > 0 {
                out.push(SEPARATOR);
            }
            match opcode {
                OPCODE_TEXT => out.extend_from_slice(payload),
                OPCODE_BINARY => {
                    out.push(BINARY);
                    out.extend_from_slice(STANDARD.encode(payload).as_bytes());
                }
                OPCODE_CLOSE => out.extend_from_slice(CLOSE),
                _ => out.truncate(start),
            }
        }
    }
    out
}

/// Opcode and payload of the first frame, and what is behind it. Frames are those of this server: whole and not masked.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, short], rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = match short {
        126 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*len)).ok()?, rest)
        }
        short => (usize::from(short), rest),
    };
    let (payload, after) = rest.split_at_checked(len)?;
    Some((first & 0x0f, payload, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode;

    fn read(body: &'static str) -> Vec<Result<Packet, Malformed>> {
        packets_of(&Bytes::from_static(body.as_bytes()))
    }

    fn text(text: &'static str) -> Packet {
        Packet::Text(text.into())
    }

    #[test]
    fn packets_are_separated_by_a_byte_that_no_json_has() {
        assert_eq!(read("4a\u{1e}4b\u{1e}3"), [Ok(text("a")), Ok(text("b")), Ok(Packet::Pong)]);
        assert_eq!(
            read("4hello\u{1e}bAQIDBA=="),
            [Ok(text("hello")), Ok(Packet::Binary(Bytes::from_static(&[1, 2, 3, 4])))]
        );
    }

    #[test]
    fn what_follows_a_bad_packet_is_not_read() {
        assert_eq!(read("4a\u{1e}abc\u{1e}4b"), [Ok(text("a")), Err(Malformed)]);
        for bad in ["", "\u{1e}4a", "bA", "b*"] {
            assert_eq!(read(bad), [Err(Malformed)], "{bad:?}");
        }
        assert_eq!(packets_of(&Bytes::from_static(b"4\xff")), [Err(Malformed)]);
    }

    #[test]
    fn frames_become_a_payload() {
        let long = "x".repeat(70_000);
        let frames = [
            encode::text(b"4hello"),
            [encode::binary(&[1, 2, 3, 4]), encode::text(format!("4{long}").as_bytes())].concat().into(),
            encode::pong(b"zzz"),
            encode::close(3001, "shutdown"),
        ];
        let expected = format!("4hello\u{1e}bAQIDBA==\u{1e}4{long}\u{1e}1");
        assert_eq!(String::from_utf8(payload_of(&frames)).unwrap(), expected);
        assert!(payload_of(&[]).is_empty());
    }
}
