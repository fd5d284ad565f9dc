//! Server frames, encoded once and shared by any number of sockets. A server does not mask.

use bytes::{BufMut, Bytes, BytesMut};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Payload bytes of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Bytes of a close frame's payload that the code takes.
const CODE_BYTES: usize = 2;
/// The longest header of an unmasked frame.
const HEADER_BYTES_MAX: usize = 10;
/// Header bytes left free before a payload of unknown length; right for 126 to 65,535 bytes.
const HEADER_BYTES_GUESS: usize = 4;

/// A text frame. The payload must be UTF-8; this is the caller's duty and not checked.
pub fn text(payload: &[u8]) -> Bytes {
    data(TEXT, payload)
}

/// A binary frame.
pub fn binary(payload: &[u8]) -> Bytes {
    data(BINARY, payload)
}

/// A ping frame; a payload over 125 bytes is cut.
pub fn ping(payload: &[u8]) -> Bytes {
    data(PING, &payload[..payload.len().min(CONTROL_BYTES_MAX)])
}

/// The pong frame that answers a ping with this payload; over 125 bytes, which no inbound ping has, it is cut.
pub fn pong(payload: &[u8]) -> Bytes {
    data(PONG, &payload[..payload.len().min(CONTROL_BYTES_MAX)])
}

/// A close frame. A reason over 123 bytes is cut at a character.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - CODE_BYTES)];
    let mut payload = Vec::with_capacity(CODE_BYTES + reason.len());
    payload.extend(code.to_be_bytes());
    payload.extend(reason.as_bytes());
    data(CLOSE, &payload)
}

/// The close frame that answers a client's: the same code, or none if it gave none.
pub fn close_answer(code: Option<u16>) -> Bytes {
    code.map_or_else(|| data(CLOSE, b""), |code| close(code, ""))
}

fn data(first: u8, payload: &[u8]) -> Bytes {
    let (header, header_bytes) = header(first, payload.len());
    let mut frame = BytesMut::with_capacity(header_bytes + payload.len());
    frame.put_slice(&header[..header_bytes]);
    frame.put_slice(payload);
    frame.freeze()
}

/// The header of a final frame, and how many of its bytes are used.
#[expect(clippy::cast_possible_truncation, reason = "each length is cast only in the arm that bounds it")]
fn header(first: u8, payload_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = first;
    match payload_bytes {
        0..=125 => {
            header[1] = payload_bytes as u8;
            (header, 2)
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            (header, 10)
        }
    }
}

/// Frames assembled one behind the other in a single buffer, payloads written in place.
///
/// Room for a header is left before a payload and filled in when its length is known. Only a payload under 126 bytes or
/// over 65,535 then moves, by 2 or 6 bytes within the buffer.
#[derive(Debug, Default)]
pub struct FrameWriter {
    buffer: BytesMut,
}

impl FrameWriter {
    /// A writer with room for about this many bytes of frames.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(bytes) }
    }

    /// Adds a text frame whose payload `assemble` appends to the buffer. It must only append, and only UTF-8.
    pub fn text<R>(&mut self, assemble: impl FnOnce(&mut BytesMut) -> R) -> R {
        self.frame(TEXT, assemble)
    }

    /// Adds a binary frame whose payload `assemble` appends to the buffer. It must only append.
    pub fn binary<R>(&mut self, assemble: impl FnOnce(&mut BytesMut) -> R) -> R {
        self.frame(BINARY, assemble)
    }

    /// Bytes of all frames so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no frame has been added.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The frames, ready for [`Outbox::send`](crate::outbox::Outbox::send).
    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }

    fn frame<R>(&mut self, first: u8, assemble: impl FnOnce(&mut BytesMut) -> R) -> R {
        let start = self.buffer.len();
        let guess = start + HEADER_BYTES_GUESS;
        self.buffer.put_bytes(0, HEADER_BYTES_GUESS);
        let result = assemble(&mut self.buffer);
        assert!(self.buffer.len() >= guess, "a payload is appended, nothing is taken away");
        let end = self.buffer.len();
        let (header, header_bytes) = header(first, end - guess);
        if header_bytes > HEADER_BYTES_GUESS {
            self.buffer.put_bytes(0, header_bytes - HEADER_BYTES_GUESS);
        }
        if header_bytes != HEADER_BYTES_GUESS {
            self.buffer.copy_within(guess..end, start + header_bytes);
        }
        self.buffer[start..start + header_bytes].copy_from_slice(&header[..header_bytes]);
        self.buffer.truncate(start + header_bytes + (end - guess));
        result
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_spelled_as_the_rfc_says() {
        assert_eq!(&text(b"Hello")[..], b"\x81\x05Hello");
        assert_eq!(&binary(&[1, 2])[..], b"\x82\x02\x01\x02");
        assert_eq!(&ping(b"")[..], b"\x89\x00");
        assert_eq!(&pong(b"x")[..], b"\x8a\x01x");
        assert_eq!(&close(1000, "bye")[..], b"\x88\x05\x03\xe8bye");
        assert_eq!(&close_answer(None)[..], b"\x88\x00");
        assert_eq!(&close_answer(Some(1001))[..], b"\x88\x02\x03\xe9");
        assert_eq!(text(&[b'a'; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(text(&vec![b'a'; 65535])[..4], [0x81, 126, 255, 255]);
        assert_eq!(text(&vec![b'a'; 65536])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn control_frames_never_exceed_their_limit() {
        assert_eq!(pong(&[0; 200]).len(), 2 + 125);
        let cut = close(1000, &"é".repeat(100));
        assert_eq!(cut.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&cut[4..]).is_ok());
    }

    proptest! {
        #[test]
        fn a_batch_is_its_frames_one_behind_the_other(
            payloads in prop::collection::vec(
                (prop_oneof![0usize..300, 65500usize..65600], any::<u8>(), any::<bool>()),
                0..6,
            ),
        ) {
            let mut writer = FrameWriter::default();
            let mut expected = Vec::new();
            for (length, fill, is_text) in payloads {
                let payload = vec![fill; length];
                if is_text {
                    writer.text(|buffer| buffer.extend_from_slice(&payload));
                    expected.extend(text(&payload));
                } else {
                    writer.binary(|buffer| buffer.extend_from_slice(&payload));
                    expected.extend(binary(&payload));
                }
                prop_assert_eq!(writer.len(), expected.len());
            }
            prop_assert_eq!(writer.is_empty(), expected.is_empty());
            prop_assert_eq!(&writer.finish()[..], &expected[..]);
        }
    }
}
