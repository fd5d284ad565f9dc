//! The part of a message that its sender knows before Redis has given it a place.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::live::RecordError;
use crate::domain::{Body, ClientMessageId, ConversationId, Message, MessageId, MessageKind, Seq, UserId};

/// The version in the first byte of every payload.
const VERSION: u8 = 1;
/// The version of a payload that answers or changes another message: its seq stands after the id.
const VERSION_WITH_TARGET: u8 = 2;

/// What a sender says, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Names the message for ever.
    pub id: MessageId,
    /// Who says it.
    pub sender: UserId,
    /// The sender's own name for it.
    pub client_id: Option<ClientMessageId>,
    /// The message that it answers, or changes.
    pub reply_to: Option<Seq>,
    /// What it is for.
    pub kind: MessageKind,
    /// What is said.
    pub body: Body,
}

impl Payload {
    /// The message that this payload becomes at its place.
    pub fn at(self, conversation: ConversationId, seq: Seq, prev: Seq, time: u64) -> Message {
        let Self { id, sender, client_id, reply_to, kind, body } = self;
        Message { id, conversation, seq, prev, time, sender, client_id, reply_to, kind, body }
    }
}

impl From<&Message> for Payload {
    /// What the message's sender said; the body is shared.
    fn from(message: &Message) -> Self {
        let Message { id, sender, client_id, reply_to, kind, body, .. } = message.clone();
        Self { id, sender, client_id, reply_to, kind, body }
    }
}

/// Encodes a payload: version, id, the seq that it answers if any, three texts with a length byte in front, then the body up to the end.
pub fn encode_payload(payload: &Payload) -> Bytes {
    let client_id = payload.client_id.as_ref().map_or("", ClientMessageId::as_str);
    let texts = [payload.sender.as_str(), client_id, payload.kind.as_str()];
    let body = payload.body.as_bytes();
    let length = 1 + 16 + 8 + texts.iter().map(|text| 1 + text.len()).sum::<usize>() + body.len();
    let mut out = BytesMut::with_capacity(length);
    out.put_u8(if payload.reply_to.is_some() { VERSION_WITH_TARGET } else { VERSION });
    out.put_slice(payload.id.0.as_bytes());
    if let Some(target) = payload.reply_to {
        out.put_u64(target.0);
    }
    for text in texts {
        out.put_u8(u8::try_from(text.len()).expect("identifiers and kinds are shorter than 256 bytes"));
        out.put_slice(text.as_bytes());
    }
    out.put_slice(body);
    out.freeze()
}

/// Decodes a payload; the body shares the memory of `bytes`.
///
/// # Errors
/// When the bytes are of another version, cut short, or hold what is no identifier.
pub fn decode_payload(bytes: &Bytes) -> Result<Payload, RecordError> {
    let mut at = 0;
    let mut take = |count: usize| {
        let taken = bytes.get(at..at + count).ok_or(RecordError::Truncated)?;
        at += count;
        Ok::<_, RecordError>(taken)
    };
    let version = take(1)?[0];
    if ![VERSION, VERSION_WITH_TARGET].contains(&version) {
        return Err(RecordError::Version(version));
    }
    let id = MessageId(Uuid::from_slice(take(16)?).map_err(|_| RecordError::Truncated)?);
    let reply_to = if version == VERSION_WITH_TARGET {
        let bytes = take(8)?.try_into().map_err(|_| RecordError::Truncated)?;
        Some(Seq(u64::from_be_bytes(bytes)))
    } else {
        None
    };
    let mut text = || {
        let length = usize::from(take(1)?[0]);
        std::str::from_utf8(take(length)?).map_err(|_| RecordError::Field("text"))
    };
    let sender = UserId::parse_sender(text()?).map_err(|_| RecordError::Field("sender"))?;
    let client_id = match text()? {
        "" => None,
        name => Some(ClientMessageId::parse(name).map_err(|_| RecordError::Field("client id"))?),
    };
    let kind = MessageKind::parse(text()?).ok_or(RecordError::Field("kind"))?;
    Ok(Payload { id, sender, client_id, reply_to, kind, body: Body::from_json(bytes.slice(at..)) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example() -> Payload {
        Payload {
            id: MessageId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)),
            sender: UserId::parse("alice").unwrap(),
            client_id: Some(ClientMessageId::parse("m-1").unwrap()),
            reply_to: None,
            kind: MessageKind::TEXT,
            body: Body::from_json(&b"{\"n\":9007199254740993}"[..]),
        }
    }

    #[test]
    fn version_1_stays_readable() {
        let golden: &[u8] = b"\x01\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\
            \x05alice\x03m-1\x04text{\"n\":9007199254740993}";
        assert_eq!(encode_payload(&example()), golden);
        assert_eq!(decode_payload(&Bytes::from_static(golden)).unwrap(), example());
    }

    #[test]
    fn version_2_stays_readable() {
        let golden: &[u8] = b"\x02\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\
            \0\0\0\x01\0\0\0\x07\x05alice\x03m-1\x04text{\"n\":9007199254740993}";
        let answer = Payload { reply_to: Some(Seq(0x1_0000_0007)), ..example() };
        assert_eq!(encode_payload(&answer), golden);
        assert_eq!(decode_payload(&Bytes::from_static(golden)).unwrap(), answer);
    }

    #[test]
    fn a_cut_or_foreign_payload_is_an_error() {
        let whole = encode_payload(&example());
        for end in 0..whole.len() - example().body.as_bytes().len() {
            assert!(decode_payload(&whole.slice(..end)).is_err(), "{end}");
        }
        assert_eq!(decode_payload(&Bytes::from_static(b"\x07rest")), Err(RecordError::Version(7)));
    }
}
