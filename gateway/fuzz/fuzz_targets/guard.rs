//! Whatever a stranger sends after the handshake: however the bytes are split, the guard and the reader come to the same verdict
//! and the same messages, and these keep to the limits.
//!
//! An input is: message limit (two bytes), fragment limit, number of pieces but one, the length of each of these, the stream.
#![no_main]

use std::{fmt::Debug, io::Write, net, os::fd::OwnedFd, os::unix::net::UnixStream, time::Duration};

use bytes::Bytes;
use gateway::{
    frame::{FrameError, FrameGuard, FrameLimits},
    socket::{Incoming, Reader},
};
use libfuzzer_sys::fuzz_target;
use tokio::{net::TcpStream, runtime, task::yield_now};

/// Bytes of the longest stream: what a socket takes in without being read.
const STREAM_BYTES_MAX: usize = 64 * 1024;
/// Largest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Turns that the reader gets between two pieces.
const TURNS: usize = 3;

struct Input<'a> {
    limits: FrameLimits,
    pieces: Vec<&'a [u8]>,
    stream: &'a [u8],
}

impl<'a> Input<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let (&[high, low, fragments, cuts], rest) = data.split_first_chunk()?;
        let (lengths, stream) = rest.split_at_checked(usize::from(cuts % 16))?;
        if stream.len() > STREAM_BYTES_MAX {
            return None;
        }
        let mut pieces = Vec::new();
        let mut left = stream;
        for &length in lengths {
            let (piece, after) = left.split_at(usize::from(length).min(left.len()));
            pieces.push(piece);
            left = after;
        }
        pieces.push(left);
        let limits = FrameLimits {
            message_bytes_max: usize::from(u16::from_be_bytes([high, low])),
            fragments_max: u32::from(fragments % 70),
            message_time_max: Duration::from_secs(60),
        };
        Some(Self { limits, pieces, stream })
    }
}

/// Where frames end, and what ended the stream.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    ends: Vec<usize>,
    error: Option<FrameError>,
}

fn judge(limits: FrameLimits, pieces: &[&[u8]]) -> Verdict {
    let mut guard = FrameGuard::new(limits);
    let (mut at, mut ends) = (0, Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match guard.admit(rest) {
                Ok(0) => panic!("no progress"),
                Ok(used) => {
                    at += used;
                    rest = &rest[used..];
                    if guard.at_boundary() {
                        ends.push(at);
                    } else {
                        assert!(rest.is_empty(), "stopped inside a frame");
                    }
                }
                Err(error) => return Verdict { ends, error: Some(error) },
            }
        }
    }
    Verdict { ends, error: None }
}

/// Reads the frames that were passed with a parser of its own, and counts.
fn check_limits(limits: FrameLimits, stream: &[u8], ends: &[usize]) {
    let (mut fragments, mut message_bytes, mut start) = (0, 0, 0);
    for &end in ends {
        let frame = &stream[start..end];
        start = end;
        let (is_final, opcode) = (frame[0] & 0x80 != 0, frame[0] & 0x0f);
        assert!(frame[1] & 0x80 != 0, "not masked");
        let header = match frame[1] & 0x7f {
            126 => 8,
            127 => 14,
            _ => 6,
        };
        let payload = frame.len() - header;
        if opcode >= 8 {
            assert!(is_final && payload <= CONTROL_BYTES_MAX);
            continue;
        }
        assert_eq!(opcode == 0, fragments > 0, "a message begins once");
        fragments += 1;
        message_bytes += payload;
        assert!(fragments <= limits.fragments_max && message_bytes <= limits.message_bytes_max);
        if is_final {
            (fragments, message_bytes) = (0, 0);
        }
    }
}

/// What the production reader makes of the bytes: some that came with the handshake, the rest in pieces.
async fn receive(limits: FrameLimits, ahead: &[u8], pieces: &[&[u8]]) -> (Vec<Incoming>, Option<FrameError>) {
    // To the reader a socket is a socket; these need no ports.
    let (near, mut far) = UnixStream::pair().expect("two more sockets");
    near.set_nonblocking(true).expect("a socket can do that");
    let near = TcpStream::from_std(net::TcpStream::from(OwnedFd::from(near))).expect("inside a runtime");
    let (stream, write_half) = near.into_split();
    let mut reader = Reader::new(stream, Bytes::copy_from_slice(ahead), limits);
    let writing = async {
        for piece in pieces {
            // The reader hangs up at the first offence.
            if far.write_all(piece).is_err() {
                break;
            }
            for _ in 0..TURNS {
                yield_now().await;
            }
        }
        drop(far);
    };
    let reading = async {
        let mut messages = Vec::new();
        let error = loop {
            match reader.next().await {
                Ok(Incoming::Eof) => break None,
                Ok(incoming) => messages.push(incoming),
                Err(error) => break Some(error),
            }
        };
        assert_eq!(reader.next().await, Ok(Incoming::Eof), "nothing follows the end");
        (messages, error)
    };
    let (received, ()) = tokio::join!(reading, writing);
    drop(write_half);
    received
}

fn check_messages(limits: FrameLimits, messages: &[Incoming]) {
    for message in messages {
        match message {
            Incoming::Text(text) => {
                assert!(text.len() <= limits.message_bytes_max && std::str::from_utf8(text).is_ok());
            }
            Incoming::Binary(bytes) => assert!(bytes.len() <= limits.message_bytes_max),
            Incoming::Ping(payload) => assert!(payload.len() <= CONTROL_BYTES_MAX),
            Incoming::Pong | Incoming::Close { .. } | Incoming::Eof => {}
        }
    }
}

fn assert_same<T: PartialEq + Debug>(split: &T, whole: &T) {
    assert!(split == whole, "split: {split:?}\nwhole: {whole:?}");
}

fuzz_target!(|data: &[u8]| {
    thread_local! {
        static RUNTIME: runtime::Runtime =
            runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    let Some(Input { limits, pieces, stream }) = Input::read(data) else { return };

    let whole = judge(limits, &[stream]);
    assert_same(&judge(limits, &pieces), &whole);
    assert_same(&judge(limits, &stream.chunks(1).collect::<Vec<_>>()), &whole);
    check_limits(limits, stream, &whole.ends);

    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let received = receive(limits, stream, &[]).await;
            check_messages(limits, &received.0);
            assert_same(&receive(limits, &[], &pieces).await, &received);
            assert_same(&receive(limits, pieces[0], &pieces[1..]).await, &received);
            let has_closed = matches!(received.0.last(), Some(Incoming::Close { .. }));
            assert!(
                received.1.is_some() || has_closed || whole.error.is_none(),
                "the reader took what the guard refuses: {whole:?}"
            );
        });
    });
});
