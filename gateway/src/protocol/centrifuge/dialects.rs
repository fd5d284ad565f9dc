//! The three ways in which encoded lines reach a client: WebSocket frames, server-sent events, a stream of lines.

use bytes::Bytes;
use shared::domain::{ConversationId, Disconnect, Event, Stored};

use super::encode::{Unsubscribe, disconnect_push, push, stored_push, unsubscribe_push};
use crate::{
    dialect::Dialect,
    frame::encode::{self, FrameWriter},
};

/// Largest payload of a WebSocket frame that holds more than one line, in bytes. A single longer line is still sent whole.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// What an event stream starts with, so that headers and a first byte are there at once: a comment.
pub const SSE_OPENING: &[u8] = b":\n\n";

/// Longest header of a server's frame, in bytes.
const FRAME_HEADER_BYTES_MAX: usize = 10;
/// First guess at the size of an encoded event without its body, in bytes.
const ENVELOPE_BYTES_GUESS: usize = 320;

/// Centrifuge JSON over WebSocket.
pub static WEBSOCKET: Dialect = Dialect {
    name: "centrifuge/websocket",
    index: 0,
    batch: &|conversation, events| websocket(&lines(conversation, events)),
    frame: websocket,
    stored: |stored| websocket(&stored_line(stored)),
    resubscribe: |conversation| websocket(&unsubscribe_line(conversation, Unsubscribe::InsufficientState)),
    removed: &|conversation| websocket(&unsubscribe_line(conversation, Unsubscribe::Removed)),
    farewell: close_frame,
    ping: || Bytes::from_static(b"\x81\x02{}"),
};

/// Centrifuge JSON over server-sent events.
pub static SSE: Dialect = Dialect {
    name: "centrifuge/sse",
    index: 1,
    batch: &|conversation, events| sse(&lines(conversation, events)),
    frame: sse,
    stored: |stored| sse(&stored_line(stored)),
    resubscribe: |conversation| sse(&unsubscribe_line(conversation, Unsubscribe::InsufficientState)),
    removed: &|conversation| sse(&unsubscribe_line(conversation, Unsubscribe::Removed)),
    farewell: |why| farewell(why, sse),
    ping: || Bytes::from_static(b"data: {}\n\n"),
};

/// Centrifuge JSON over an endless HTTP response.
pub static HTTP_STREAM: Dialect = Dialect {
    name: "centrifuge/http_stream",
    index: 2,
    batch: &|conversation, events| http_stream(&lines(conversation, events)),
    frame: http_stream,
    stored: |stored| http_stream(&stored_line(stored)),
    resubscribe: |conversation| http_stream(&unsubscribe_line(conversation, Unsubscribe::InsufficientState)),
    removed: &|conversation| http_stream(&unsubscribe_line(conversation, Unsubscribe::Removed)),
    farewell: |why| farewell(why, http_stream),
    ping: || Bytes::from_static(b"{}\n"),
};

/// What is shown of the events, one line each.
fn lines(conversation: &ConversationId, events: &[Event]) -> Vec<u8> {
    let bodies: usize = events.iter().map(body_len).sum();
    let mut out = Vec::with_capacity(bodies + events.len() * ENVELOPE_BYTES_GUESS);
    for event in events {
        let before = out.len();
        if before > 0 {
            out.push(b'\n');
        }
        let start = out.len();
        push(conversation, event, &mut out);
        if out.len() == start {
            out.truncate(before);
        }
    }
    out
}

fn body_len(event: &Event) -> usize {
    match event {
        Event::Message(message) => message.body.as_bytes().len(),
        Event::Signal(signal) => signal.data.as_ref().map_or(0, |data| data.as_bytes().len()),
        _ => 0,
    }
}

fn stored_line(stored: &Stored) -> Vec<u8> {
    let mut line = Vec::new();
    stored_push(stored, &mut line);
    line
}

fn unsubscribe_line(conversation: &ConversationId, why: Unsubscribe) -> Vec<u8> {
    let mut line = Vec::new();
    unsubscribe_push(conversation, why, &mut line);
    line
}

/// As many lines to a frame as fit.
fn websocket(lines: &[u8]) -> Bytes {
    let mut out = FrameWriter::with_capacity(lines.len() + FRAME_HEADER_BYTES_MAX);
    let mut rest = lines;
    while !rest.is_empty() {
        let end = frame_end(rest);
        out.text(|payload| payload.extend_from_slice(&rest[..end]));
        // Behind the frame stands the newline that its end replaces.
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    out.finish()
}

/// Where the last line ends that still fits, or else the first one.
fn frame_end(lines: &[u8]) -> usize {
    if lines.len() <= FRAME_BYTES_MAX {
        return lines.len();
    }
    let is_newline = |byte: &u8| *byte == b'\n';
    let fitting = lines[..=FRAME_BYTES_MAX].iter().rposition(is_newline);
    fitting.or_else(|| lines.iter().position(is_newline)).unwrap_or(lines.len())
}

fn close_frame(why: Disconnect) -> Bytes {
    if why == Disconnect::ConnectionClosed {
        return Bytes::new();
    }
    encode::close(why.code(), why.reason())
}

fn farewell(why: Disconnect, frame: fn(&[u8]) -> Bytes) -> Bytes {
    let mut line = Vec::new();
    if why != Disconnect::ConnectionClosed {
        disconnect_push(why, &mut line);
    }
    frame(&line)
}

fn split(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn sse(lines: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(lines.len() + 16);
    for line in split(lines) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

/// Pure ASCII: older SDKs decode each chunk of the response by itself, and a proxy may cut a character in two.
fn http_stream(lines: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(lines.len() + 16);
    for line in split(lines) {
        escape_non_ascii(line, &mut out);
        out.push(b'\n');
    }
    out.into()
}

/// In JSON such a character can only stand in a string, where its escape means the same.
fn escape_non_ascii(json: &[u8], out: &mut Vec<u8>) {
    if json.is_ascii() {
        return out.extend_from_slice(json);
    }
    let text = std::str::from_utf8(json).expect("JSON that was parsed or made here is UTF-8");
    let mut units = [0; 2];
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(ascii @ 0..=0x7f) => out.push(ascii),
            _ => {
                for unit in character.encode_utf16(&mut units) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payloads of text frames, by a reader of its own.
    fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let [opcode, short, rest @ ..] = bytes {
            assert_eq!(*opcode, 0x81);
            let width = match short {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let (long, rest) = rest.split_at(width);
            let len = if width == 0 {
                usize::from(*short)
            } else {
                long.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
            };
            all.push(rest[..len].to_vec());
            bytes = &rest[len..];
        }
        assert!(bytes.is_empty());
        all
    }

    #[test]
    fn lines_share_frames_up_to_the_limit() {
        for len in
            [1, 125, 126, FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 3 * FRAME_BYTES_MAX]
        {
            let line = vec![b'x'; len];
            assert_eq!(payloads(&websocket(&line)), [line.as_slice()]);
            let lines = [line.as_slice(), b"y", line.as_slice(), line.as_slice()].join(&b'\n');
            let frames = payloads(&websocket(&lines));
            assert_eq!(frames.join(&b'\n'), lines);
            let is_whole = |frame: &&Vec<u8>| frame.len() > FRAME_BYTES_MAX && frame.contains(&b'\n');
            assert_eq!(frames.iter().filter(is_whole).count(), 0);
        }
        let half = vec![b'x'; FRAME_BYTES_MAX / 2];
        let lines = [half.as_slice(), &half[1..], &half].join(&b'\n');
        let sizes: Vec<_> = payloads(&websocket(&lines)).iter().map(Vec::len).collect();
        assert_eq!(sizes, [FRAME_BYTES_MAX, FRAME_BYTES_MAX / 2]);
    }

    #[test]
    fn nothing_gives_no_bytes() {
        for dialect in [&WEBSOCKET, &SSE, &HTTP_STREAM] {
            assert!((dialect.frame)(b"").is_empty());
            assert!((dialect.farewell)(Disconnect::ConnectionClosed).is_empty());
        }
    }

    #[test]
    fn each_dialect_pings_and_parts_in_its_own_way() {
        let why = Disconnect::BadRequest;
        assert_eq!(&(WEBSOCKET.ping)()[..], b"\x81\x02{}");
        assert_eq!(&(WEBSOCKET.farewell)(why)[..], b"\x88\x0d\x0d\xadbad request");
        assert_eq!(&(SSE.ping)()[..], b"data: {}\n\n");
        assert_eq!(&(HTTP_STREAM.ping)()[..], b"{}\n");
        let push = r#"{"push":{"disconnect":{"code":3501,"reason":"bad request"}}}"#;
        assert_eq!((SSE.farewell)(why), format!("data: {push}\n\n"));
        assert_eq!((HTTP_STREAM.farewell)(why), format!("{push}\n"));
    }

    #[test]
    fn reasons_fit_a_close_frame_and_are_not_json() {
        for why in Disconnect::ALL {
            assert!(!why.reason().is_empty() && why.reason().len() <= 123, "{why:?}");
            assert!(serde_json::from_str::<serde_json::Value>(why.reason()).is_err(), "{why:?}");
        }
    }
}
