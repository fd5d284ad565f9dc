use proptest::prelude::*;

use super::*;
use crate::frame::sample::client_frame as frame;

/// What the guard makes of a stream: how many bytes it hands on, where frames end, and the error that ends it.
#[derive(Debug, PartialEq, Eq, Default)]
struct Verdict {
    boundaries: Vec<usize>,
    error: Option<FrameError>,
}

fn judge(limits: FrameLimits, pieces: &[&[u8]]) -> Verdict {
    let mut guard = FrameGuard::new(limits);
    let mut verdict = Verdict::default();
    let mut position = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match guard.admit(rest) {
                Ok(used) => {
                    assert!(used > 0, "the guard always makes progress");
                    position += used;
                    rest = &rest[used..];
                    if guard.at_boundary() {
                        verdict.boundaries.push(position);
                    } else {
                        assert!(rest.is_empty(), "the guard stops only at a boundary");
                    }
                }
                Err(error) => {
                    verdict.error = Some(error);
                    return verdict;
                }
            }
        }
    }
    verdict
}

fn error_of(stream: &[u8]) -> Option<FrameError> {
    judge(FrameLimits::default(), &[stream]).error
}

#[test]
fn ordinary_frames_pass_and_end_where_they_end() {
    let mut stream = frame(0x81, b"hello");
    let first = stream.len();
    stream.extend(frame(0x89, b""));
    let second = stream.len();
    stream.extend(frame(0x82, &[7; 300]));
    let third = stream.len();
    stream.extend(frame(0x82, &vec![7; 65536]));
    let verdict = judge(FrameLimits::default(), &[&stream]);
    assert_eq!(verdict, Verdict { boundaries: vec![first, second, third, stream.len()], error: None });
}

#[test]
fn a_client_must_mask() {
    assert_eq!(error_of(&[0x81, 0x05]), Some(FrameError::Unmasked));
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(error_of(&[0x81 | bit]), Some(FrameError::ReservedBits));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(error_of(&[0x80 | opcode]), Some(FrameError::ReservedOpcode));
    }
}

#[test]
fn lengths_must_be_minimal() {
    assert_eq!(error_of(&[0x81, 0xfe, 0, 125]), Some(FrameError::LengthNotMinimal));
    assert_eq!(error_of(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Some(FrameError::LengthNotMinimal));
    assert_eq!(error_of(&[0x81, 0xfe, 0, 126]), None);
    assert_eq!(error_of(&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]), None);
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [8, 9, 10] {
        assert_eq!(error_of(&frame(0x80 | opcode, &[0; 125])), None);
        assert_eq!(error_of(&frame(0x80 | opcode, &[0; 126])), Some(FrameError::ControlTooLong));
        assert_eq!(error_of(&frame(opcode, b"")), Some(FrameError::ControlFragmented));
    }
}

#[test]
fn a_flood_of_control_frames_is_refused_until_a_new_window() {
    let limit = CONTROL_FRAMES_PER_WINDOW_MAX;
    let mut guard = FrameGuard::new(FrameLimits::default());
    let ping = frame(0x89, b"");
    for _ in 0..limit {
        assert_eq!(guard.admit(&ping), Ok(ping.len()));
    }
    guard.open_window();
    for _ in 0..limit {
        assert_eq!(guard.admit(&ping), Ok(ping.len()));
    }
    assert_eq!(guard.admit(&ping), Err(FrameError::TooManyControlFrames));
}

#[test]
fn a_declared_length_over_the_limit_is_refused_before_its_payload() {
    let limits = FrameLimits { message_bytes_max: 1000, ..FrameLimits::default() };
    assert_eq!(judge(limits, &[&frame(0x82, &[0; 1000])]).error, None);
    assert_eq!(judge(limits, &[&[0x82, 0xfe, 0x03, 0xe9]]).error, Some(FrameError::TooBig));
    let endless = [0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255];
    assert_eq!(judge(limits, &[&endless]).error, Some(FrameError::TooBig));
}

#[test]
fn the_limit_holds_for_the_sum_of_the_fragments() {
    let limits = FrameLimits { message_bytes_max: 1000, ..FrameLimits::default() };
    let mut stream = frame(0x02, &[0; 600]);
    stream.extend(frame(0x00, &[0; 400]));
    let full = stream.clone();
    stream.extend(frame(0x80, &[0; 1]));
    assert_eq!(judge(limits, &[&stream]).error, Some(FrameError::TooBig));
    let mut exact = full;
    exact.extend(frame(0x80, b""));
    exact.extend(frame(0x82, &[0; 1000]));
    assert_eq!(judge(limits, &[&exact]).error, None);
}

#[test]
fn fragments_are_counted_also_when_empty() {
    let mut stream = frame(0x01, b"");
    for _ in 1..FRAGMENTS_MAX {
        stream.extend(frame(0x00, b""));
    }
    assert_eq!(error_of(&stream), None);
    stream.extend(frame(0x00, b""));
    assert_eq!(error_of(&stream), Some(FrameError::TooManyFragments));
}

#[test]
fn fragments_come_in_order_with_control_frames_between() {
    assert_eq!(error_of(&frame(0x80, b"")), Some(FrameError::ContinuationUnexpected));
    let mut stream = frame(0x01, b"a");
    stream.extend(frame(0x89, b"ping"));
    let open = stream.clone();
    stream.extend(frame(0x80, b"b"));
    assert_eq!(error_of(&stream), None);
    stream.extend(frame(0x00, b"c"));
    assert_eq!(error_of(&stream), Some(FrameError::ContinuationUnexpected));
    let mut interrupted = open;
    interrupted.extend(frame(0x82, b"x"));
    assert_eq!(error_of(&interrupted), Some(FrameError::ContinuationMissing));
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let honest = (
        prop_oneof![
            Just(0x81u8),
            Just(0x01),
            Just(0x00),
            Just(0x80),
            Just(0x89),
            Just(0x8a),
            Just(0x88),
            any::<u8>()
        ],
        prop_oneof![4 => 0usize..130, 1 => 65530usize..65540],
    )
        .prop_map(|(first, length)| frame(first, &vec![b'x'; length]));
    let wild = prop::collection::vec(any::<u8>(), 0..20);
    prop::collection::vec(prop_oneof![6 => honest, 1 => wild], 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_verdict_of_one_piece(
        stream in any_stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let limits = FrameLimits { message_bytes_max: 65_600, fragments_max: 4, ..FrameLimits::default() };
        let whole = judge(limits, &[&stream]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&judge(limits, &pieces), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&judge(limits, &bytes), &whole);
    }
}
