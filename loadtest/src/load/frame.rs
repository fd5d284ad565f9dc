//! WebSocket frames as a client needs them: what a server sends is never masked, what is sent here is masked with zeros.

/// Lengths up to 125 stand in the second byte; these two say that more bytes follow.
const LONG: u8 = 127;
const MEDIUM: u8 = 126;
const FIN_TEXT: u8 = 0x81;
const FIN_PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;
/// XOR with zeros changes nothing, so that masking costs the tester nothing.
const MASK: [u8; 4] = [0; 4];

/// What a server's frame is.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text or binary message.
    Message(&'a [u8]),
    /// A ping, with its payload.
    Ping(&'a [u8]),
    /// A close, with its code.
    Close(u16),
    /// A pong.
    Pong,
    /// A piece of a message, a mask, or anything else that the tester does not expect.
    Strange,
}

/// The frame at the front and its length, once all of it is there.
pub fn parse(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (len, header): (usize, usize) = match second & !MASKED {
        MEDIUM => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        LONG => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(header..header.checked_add(len)?)?;
    let frame = match first {
        _ if second & MASKED != 0 => Frame::Strange,
        FIN_TEXT | 0x82 => Frame::Message(payload),
        0x89 => Frame::Ping(payload),
        FIN_PONG => Frame::Pong,
        0x88 => Frame::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
        _ => Frame::Strange,
    };
    Some((frame, header + len))
}

/// Appends a text.
pub fn text(payload: &str, out: &mut Vec<u8>) {
    frame(FIN_TEXT, payload.as_bytes(), out);
}

/// Appends a pong.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(FIN_PONG, payload, out);
}

#[expect(clippy::cast_possible_truncation, reason = "each length is cast where it fits")]
fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        len @ 0..126 => out.push(MASKED | len as u8),
        len @ 126..=0xffff => {
            out.push(MASKED | MEDIUM);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(MASKED | LONG);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame as a server would have sent it: without mask.
    fn unmasked(mut bytes: Vec<u8>, header: usize) -> Vec<u8> {
        bytes.drain(header..header + 4);
        bytes[1] &= !MASKED;
        bytes
    }

    #[test]
    fn frames_of_all_lengths_come_back_whole() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let payload = "x".repeat(len);
            let mut bytes = Vec::new();
            text(&payload, &mut bytes);
            let bytes = unmasked(bytes, header);
            assert_eq!(parse(&bytes), Some((Frame::Message(payload.as_bytes()), bytes.len())));
            assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        assert_eq!(parse(b"\x88\x02\x0b\xc0"), Some((Frame::Close(3008), 4)));
        assert_eq!(parse(b"\x89\x01p"), Some((Frame::Ping(b"p"), 3)));
        assert_eq!(parse(b"\x01\x01p"), Some((Frame::Strange, 3)));
        assert_eq!(parse(b"\x81"), None);
    }
}
