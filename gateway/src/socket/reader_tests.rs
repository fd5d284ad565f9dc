use std::pin::pin;
use std::task::Waker;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::frame::sample::client_frame as frame;

async fn connect(read_ahead: &[u8], limits: FrameLimits) -> (Reader, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    let (read, write) = server.unwrap().0.into_split();
    write.forget();
    (Reader::new(read, Bytes::copy_from_slice(read_ahead), limits), client)
}

async fn reader(limits: FrameLimits) -> (Reader, TcpStream) {
    connect(b"", limits).await
}

/// A conversation of every kind of frame, and what it must be read as.
fn conversation() -> (Vec<u8>, Vec<Incoming>) {
    let big: Vec<u8> = (0..40_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let parts = [
        frame(0x81, "grüße".as_bytes()),
        frame(0x82, b""),
        frame(0x01, "one 🐦 ".as_bytes()),
        frame(0x89, b"still there?"),
        frame(0x00, &"two 🐦".as_bytes()[..5]),
        frame(0x80, &"two 🐦".as_bytes()[5..]),
        frame(0x8a, b"unasked"),
        frame(0x82, &big),
        frame(0x88, b"\x03\xe8done"),
    ];
    let incoming = vec![
        Incoming::Text(Bytes::from("grüße")),
        Incoming::Binary(Bytes::new()),
        Incoming::Ping(Bytes::from_static(b"still there?")),
        Incoming::Text(Bytes::from("one 🐦 two 🐦")),
        Incoming::Pong,
        Incoming::Binary(Bytes::from(big)),
        Incoming::Close { code: Some(1000) },
        Incoming::Eof,
    ];
    (parts.concat(), incoming)
}

async fn assert_reads(mut reader: Reader, expected: &[Incoming]) {
    for incoming in expected {
        assert_eq!(&reader.next().await.unwrap(), incoming);
    }
}

#[tokio::test]
async fn any_split_of_the_bytes_reads_the_same() {
    let (stream, expected) = conversation();
    // A message of so many pieces may take its time.
    let limits = FrameLimits { message_time_max: Duration::from_mins(10), ..FrameLimits::default() };
    for step in [1, 2, 3, 5, 7, 13, 1000, stream.len()] {
        let (reader, mut client) = reader(limits).await;
        let written = stream.clone();
        let writer = tokio::spawn(async move {
            for piece in written.chunks(step) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        assert_reads(reader, &expected).await;
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn bytes_read_with_the_handshake_come_first() {
    let (stream, expected) = conversation();
    for split in [1, 8, 30, 1000] {
        let (reader, mut client) = connect(&stream[..split], FrameLimits::default()).await;
        client.write_all(&stream[split..]).await.unwrap();
        assert_reads(reader, &expected).await;
    }
}

#[tokio::test]
async fn an_idle_reader_holds_no_memory() {
    let (mut reader, mut client) = reader(FrameLimits::default()).await;
    for size in [10, 60_000] {
        client.write_all(&frame(0x82, &vec![1; size])).await.unwrap();
        assert!(matches!(reader.next().await.unwrap(), Incoming::Binary(bytes) if bytes.len() == size));
        assert_eq!(reader.pending.capacity(), 0);
        assert!(reader.assembly.is_none() && reader.deadline.is_none());
    }
}

#[tokio::test]
async fn invalid_text_fails_before_the_message_is_complete() {
    let (mut reader, mut client) = reader(FrameLimits::default()).await;
    client.write_all(&frame(0x01, b"good so far, \xff")).await.unwrap();
    assert_eq!(reader.next().await, Err(FrameError::InvalidUtf8));
    assert_eq!(reader.next().await, Ok(Incoming::Eof));
}

#[tokio::test]
async fn invalid_text_in_one_frame_fails() {
    let (mut reader, mut client) = reader(FrameLimits::default()).await;
    client.write_all(&frame(0x81, b"\xc3")).await.unwrap();
    assert_eq!(reader.next().await, Err(FrameError::InvalidUtf8));
}

#[tokio::test]
async fn the_guard_speaks_through_the_reader() {
    for (bytes, error) in [
        (&[0x81, 0x05][..], FrameError::Unmasked),
        (&[0x8a, 0xfe], FrameError::ControlTooLong),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], FrameError::TooBig),
        (&[0xc1], FrameError::ReservedBits),
        (&[0x88, 0x81, 0, 0, 0, 0, 0], FrameError::InvalidClose),
        (&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], FrameError::InvalidClose),
    ] {
        let (mut reader, mut client) = reader(FrameLimits::default()).await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(reader.next().await, Err(error));
    }
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_passes() {
    let limits = FrameLimits { message_bytes_max: 300, ..FrameLimits::default() };
    let (mut reader, mut client) = reader(limits).await;
    client.write_all(&frame(0x82, &[1; 300])).await.unwrap();
    assert!(matches!(reader.next().await, Ok(Incoming::Binary(bytes)) if bytes.len() == 300));
    client.write_all(&frame(0x82, &[1; 301])).await.unwrap();
    assert_eq!(reader.next().await, Err(FrameError::TooBig));
}

#[tokio::test]
async fn a_message_must_be_finished_in_time_even_when_bytes_trickle() {
    let limits = FrameLimits { message_time_max: Duration::from_millis(50), ..FrameLimits::default() };
    let header = frame(0x82, &vec![0; 60_000])[..8].to_vec();
    for (begin, drop) in [
        (frame(0x01, b"begun"), frame(0x8a, b"")),
        (frame(0x01, b"begun"), vec![]),
        (header, vec![b'x']),
        (vec![0x81], vec![]),
    ] {
        let (mut reader, mut client) = reader(limits).await;
        client.write_all(&begin).await.unwrap();
        let trickle = tokio::spawn(async move {
            while client.write_all(&drop).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let error = loop {
            match reader.next().await {
                Ok(Incoming::Pong) => {}
                other => break other,
            }
        };
        assert_eq!(error, Err(FrameError::TooSlow));
        trickle.abort();
    }
}

#[tokio::test]
async fn an_idle_client_may_stay_silent_longer_than_a_message_may_take() {
    let limits = FrameLimits { message_time_max: Duration::from_millis(1), ..FrameLimits::default() };
    let (mut reader, mut client) = reader(limits).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.write_all(&frame(0x81, b"hi")).await.unwrap();
        assert_eq!(reader.next().await, Ok(Incoming::Text(Bytes::from_static(b"hi"))));
    }
}

#[tokio::test]
async fn a_flood_of_pings_is_refused() {
    let (mut reader, mut client) = reader(FrameLimits::default()).await;
    client.write_all(&frame(0x89, b"").repeat(1000)).await.unwrap();
    let mut pings = 0;
    let error = loop {
        match reader.next().await {
            Ok(Incoming::Ping(_)) => pings += 1,
            other => break other,
        }
    };
    assert_eq!(error, Err(FrameError::TooManyControlFrames));
    assert_eq!(pings, crate::frame::guard::CONTROL_FRAMES_PER_WINDOW_MAX);
}

#[tokio::test]
async fn a_connection_that_ends_inside_a_message_has_ended() {
    for begun in [&[][..], &[0x81], &frame(0x01, b"half"), &frame(0x81, b"cut")[..7]] {
        let (mut reader, mut client) = reader(FrameLimits::default()).await;
        client.write_all(begun).await.unwrap();
        drop(client);
        assert_eq!(reader.next().await, Ok(Incoming::Eof));
    }
}

#[tokio::test]
async fn waiting_takes_nothing_away_and_an_open_message_is_not_waited_for() {
    let (mut reader, mut client) = reader(FrameLimits::default()).await;
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(reader.ready()).poll(&mut context).is_pending());
    client.write_all(&[frame(0x01, b"he"), frame(0x89, b"")].concat()).await.unwrap();
    reader.ready().await;
    assert!(pin!(reader.ready()).poll(&mut context).is_ready());
    assert_eq!(reader.next().await, Ok(Incoming::Ping(Bytes::new())));
    assert!(pin!(reader.ready()).poll(&mut context).is_ready(), "its time is for `next` to watch");
    client.write_all(&frame(0x80, b"y")).await.unwrap();
    assert_eq!(reader.next().await, Ok(Incoming::Text(Bytes::from_static(b"hey"))));
    assert!(pin!(reader.ready()).poll(&mut context).is_pending());
    drop(client);
    reader.ready().await;
    assert_eq!(reader.next().await, Ok(Incoming::Eof));
}

#[tokio::test]
async fn a_waiting_read_is_small() {
    let (mut reader, _client) = reader(FrameLimits::default()).await;
    println!("{} {}", size_of::<Reader>(), size_of_val(&reader.ready()));
    assert!(size_of::<Reader>() <= 200 && size_of_val(&reader.ready()) <= 64);
}
