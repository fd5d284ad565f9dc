//! What is published on a conversation's channel: a message with its place in front, or an ephemeral event.

use std::sync::Arc;

use super::payload::{Payload, decode_payload, encode_payload};
use crate::domain::{ClientInfo, ConversationId, Event, Message, Seq};
use bytes::{BufMut, Bytes, BytesMut};

/// Longest header of a live message: the tag, three 20-digit numbers and their separators, in bytes.
const HEADER_BYTES_MAX: usize = 64;

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a version that this one does not know.
    #[error("record version {0} is unknown")]
    Version(u8),
    /// Ends too early.
    #[error("record is cut short")]
    Truncated,
    /// Holds a field that is not what it should be.
    #[error("record has a bad {0}")]
    Field(&'static str),
}

/// The header that puts a payload at its place. `publish.lua` writes the same one.
pub fn message_header(seq: Seq, prev: Seq, time: u64) -> String {
    format!("M{seq} {prev} {time}\n")
}

/// Encodes a whole live message.
pub fn encode_message(message: &Message) -> Bytes {
    let header = message_header(message.seq, message.prev, message.time);
    let payload = encode_payload(&Payload::from(message));
    let mut out = BytesMut::with_capacity(header.len() + payload.len());
    out.put_slice(header.as_bytes());
    out.put_slice(&payload);
    out.freeze()
}

/// Encodes an ephemeral event; `None` for one that is sequenced.
pub fn encode_ephemeral(event: &Event) -> Option<Bytes> {
    let (tag, who) = match event {
        Event::Join(who) => (b'J', who),
        Event::Leave(who) => (b'L', who),
        other => {
            let (name, data) = other.data()?;
            let mut out = Vec::with_capacity(name.len() + data.len() + 2);
            out.push(b'E');
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
            out.extend_from_slice(&data);
            return Some(out.into());
        }
    };
    let mut out = vec![tag];
    serde_json::to_writer(&mut out, who).expect("who a client is is plain data");
    Some(out.into())
}

/// Decodes what came in on the channel of `conversation`.
///
/// # Errors
/// When the bytes are no record that this version knows.
pub fn decode_live(conversation: &ConversationId, bytes: &Bytes) -> Result<Event, RecordError> {
    Ok(match bytes.first() {
        Some(b'M') => Event::Message(Arc::new(decode_message(conversation, bytes)?)),
        Some(b'J') => Event::Join(decode_who(bytes)?),
        Some(b'L') => Event::Leave(decode_who(bytes)?),
        Some(b'E') => decode_named(bytes)?,
        Some(&version) => return Err(RecordError::Version(version)),
        None => return Err(RecordError::Truncated),
    })
}

/// Whether a record tells that somebody has joined or left: news for those alone who want to see that.
pub fn is_coming_or_going(record: &[u8]) -> bool {
    matches!(record.first(), Some(b'J' | b'L'))
}

fn decode_who(bytes: &Bytes) -> Result<ClientInfo, RecordError> {
    serde_json::from_slice(&bytes[1..]).map_err(|_| RecordError::Field("client"))
}

/// Reads the name of an event, a newline, and its object.
fn decode_named(bytes: &Bytes) -> Result<Event, RecordError> {
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(RecordError::Truncated)?;
    let name = std::str::from_utf8(&bytes[1..end]).map_err(|_| RecordError::Field("event"))?;
    Event::parse_data(name, &bytes[end + 1..]).ok_or(RecordError::Field("event"))
}

fn decode_message(conversation: &ConversationId, bytes: &Bytes) -> Result<Message, RecordError> {
    let head = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let end = head.iter().position(|&byte| byte == b'\n').ok_or(RecordError::Truncated)?;
    let text = std::str::from_utf8(&head[1..end]).map_err(|_| RecordError::Field("header"))?;
    let mut numbers = text.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok).ok_or(RecordError::Field("header"));
    let (seq, prev, time) = (Seq(next()?), Seq(next()?), next()?);
    Ok(decode_payload(&bytes.slice(end + 1..))?.at(conversation.clone(), seq, prev, time))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Body, ConnectionId, Occupancy, Online, Signal, SignalName, Typing, Unread, UserId};

    #[test]
    fn a_message_round_trips() {
        let conversation = ConversationId::parse("conv_1_2").unwrap();
        let message = super::super::payload::tests::example().at(
            conversation.clone(),
            Seq(4_294_967_297),
            Seq(7),
            1_790_000_000_000,
        );
        let bytes = encode_message(&message);
        assert!(bytes.starts_with(b"M4294967297 7 1790000000000\n\x01"));
        assert_eq!(decode_live(&conversation, &bytes).unwrap(), Event::Message(Arc::new(message)));
    }

    #[test]
    fn an_ephemeral_event_round_trips() {
        let conversation = ConversationId::parse("c").unwrap();
        let alice = UserId::parse("alice").unwrap();
        let who = ClientInfo {
            user: alice.clone(),
            client: ConnectionId(Uuid::from_u128(1)),
            info: Some(Body::from_json(&b"{\"a\": 1}"[..])),
        };
        let signal = Signal {
            conversation: Some(conversation.clone()),
            user: UserId::server(),
            name: SignalName::parse("call_offer").unwrap(),
            data: Some(Body::from_json(&b"{\"n\": 9007199254740993, \"n\": [\n]}"[..])),
        };
        let bare = Signal { conversation: None, user: alice.clone(), data: None, ..signal.clone() };
        for event in [
            Event::Join(who.clone()),
            Event::Leave(who),
            Event::Typing(Typing { user: alice.clone(), typing: true }),
            Event::Online(Online { user: alice.clone(), online: false, last_seen: Some(7) }),
            Event::Online(Online { user: alice, online: true, last_seen: None }),
            Event::Signal(signal),
            Event::Signal(bare),
            Event::Occupancy(Occupancy { clients: 100_000, users: 9 }),
            Event::Unread(Unread { conversation: conversation.clone(), unread: 100, seq: Seq(1 << 40) }),
        ] {
            let bytes = encode_ephemeral(&event).unwrap();
            assert_eq!(decode_live(&conversation, &bytes).unwrap(), event);
        }
    }

    #[test]
    fn named_events_stay_readable() {
        let conversation = ConversationId::parse("c").unwrap();
        let user = UserId::parse("alice").unwrap();
        let golden = Bytes::from_static(b"Etyping\n{\"user\":\"alice\",\"typing\":true}");
        let event = Event::Typing(Typing { user, typing: true });
        assert_eq!(encode_ephemeral(&event).unwrap(), golden);
        assert_eq!(decode_live(&conversation, &golden).unwrap(), event);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let conversation = ConversationId::parse("c").unwrap();
        for bad in
            [&b""[..], b"M", b"M1 2\n", b"Mx y z\n", b"J{}", b"Z", b"M1 2 3\n", b"Etyping", b"Edance\n{}"]
        {
            assert!(decode_live(&conversation, &Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}
