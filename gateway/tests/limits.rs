//! The table of limits says what the code does, and the README says what the table says.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use gateway::{
    action, connection, frame, heartbeat, http,
    limits::{Answer, Limit, Settings},
    outbox, peers,
    protocol::{self, centrifuge},
    socket::accept,
};
use shared::domain;

/// What holds, in the unit of the table.
fn in_force(limit: Limit) -> u64 {
    let settings = Settings::default();
    let frames = frame::FrameLimits::default();
    let number = match limit {
        Limit::HttpConnections => accept::HTTP_CONNECTIONS_MAX,
        Limit::HttpConnectionsPerAddress => accept::HTTP_CONNECTIONS_PER_ADDRESS_MAX,
        Limit::HeaderBytes => accept::HEADER_BYTES_MAX,
        Limit::HandshakeSeconds => return accept::HEADER_SECONDS_MAX,
        Limit::RequestBytes => http::REQUEST_BYTES_MAX,
        Limit::BodySeconds => return settings.body_seconds_max,
        Limit::Connections => settings.connections_max,
        Limit::ConnectionsPerAddress => settings.connections_per_address_max,
        Limit::HandshakesPerSecond => return settings.handshakes_per_second.into(),
        Limit::HandshakesPending => settings.handshakes_pending_max,
        Limit::HandshakesPendingPerAddress => settings.handshakes_pending_per_address_max,
        Limit::ConnectsPending => settings.connects_pending_max,
        Limit::AuthenticateSeconds => return connection::AUTHENTICATE_SECONDS_MAX,
        Limit::ConnectionsPerUser => settings.connections_per_user_max,
        Limit::IdleSeconds => heartbeat::PING_SECONDS + heartbeat::PONG_SECONDS_MAX,
        Limit::MessageBytes => frames.message_bytes_max,
        Limit::MessageFragments => return frames.fragments_max.into(),
        Limit::MessageSeconds => return frames.message_time_max.as_secs(),
        Limit::ControlFrames => return frame::guard::CONTROL_FRAMES_PER_WINDOW_MAX.into(),
        Limit::FrameCommands => centrifuge::COMMANDS_PER_FRAME_MAX,
        Limit::JsonDepth => protocol::BODY_DEPTH_MAX,
        Limit::IdBytes => domain::CONVERSATION_ID_BYTES_MAX,
        Limit::BodyBytes => domain::BODY_BYTES_MAX,
        Limit::Emojis => action::EMOJIS_MAX,
        Limit::OutboxBytes => outbox::OUTBOX_BYTES_MAX,
        Limit::Subscriptions => gateway::config::SUBSCRIPTIONS_MAX,
        Limit::ResumesPending => settings.resumes_pending_max,
        Limit::PeerQuestions => return peers::QUESTIONS_PER_SECOND_MAX.into(),
        Limit::PublishesPerUser => return 1_000_000 / settings.publishes_per_user.interval_us(),
        Limit::PublishesPerConversation => {
            return 1_000_000 / settings.publishes_per_conversation.interval_us();
        }
        Limit::RequestsPerUser => return 1_000_000 / settings.requests_per_user.interval_us(),
        Limit::TypingPerUser => return 1_000_000 / settings.typing_per_user.interval_us(),
        Limit::SignalsPerUser => return 1_000_000 / settings.signals_per_user.interval_us(),
    };
    u64::try_from(number).unwrap()
}

#[test]
fn the_table_says_what_is_in_force() {
    for &limit in Limit::ALL {
        assert_eq!(limit.default_value(), in_force(limit), "{}", limit.name());
    }
}

#[test]
fn what_is_closed_has_the_code_of_the_reason() {
    let code = |limit: Limit| match limit.answer() {
        Answer::Close(code) => code,
        other => panic!("{other}"),
    };
    assert_eq!(code(Limit::AuthenticateSeconds), domain::Disconnect::Stale.code());
    assert_eq!(code(Limit::IdleSeconds), domain::Disconnect::NoPong.code());
    assert_eq!(code(Limit::OutboxBytes), domain::Disconnect::Slow.code());
    assert_eq!(code(Limit::FrameCommands), domain::Disconnect::BadRequest.code());
    assert_eq!(code(Limit::MessageBytes), frame::FrameError::TooBig.close_code());
    assert_eq!(code(Limit::MessageFragments), frame::FrameError::TooManyFragments.close_code());
    assert_eq!(code(Limit::MessageSeconds), frame::FrameError::TooSlow.close_code());
    assert_eq!(code(Limit::ControlFrames), frame::FrameError::TooManyControlFrames.close_code());
}

#[test]
fn the_readme_has_the_table() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let mut missing = String::new();
    for limit in Limit::ALL {
        let (name, what, unit, answer) = (limit.name(), limit.what(), limit.unit(), limit.answer());
        let row = format!("| `{name}` | {what} | {} {unit} | {answer} |\n", thousands(limit.default_value()));
        if !readme.contains(&row) {
            missing += &row;
        }
    }
    assert!(missing.is_empty(), "README.md lacks these rows:\n{missing}");
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
