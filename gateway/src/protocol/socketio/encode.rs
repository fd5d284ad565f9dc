//! Packets to WebSocket frames: one text frame a packet, and one binary frame for each attachment.

use std::io::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::frame::encode::FrameWriter;

const WRITES: &str = "a buffer takes whatever is written to it";

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// The client has joined.
    Connect,
    /// The client is put out.
    Disconnect,
    /// Something happened.
    Event,
    /// Answers an event.
    Ack,
    /// The client has not joined.
    ConnectError,
}

/// What stands before the JSON of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// What it is.
    pub kind: PacketType,
    /// To which namespace.
    pub namespace: &'a str,
    /// The number of the event that is answered, or that asks for an answer.
    pub id: Option<u64>,
    /// How many attachments follow.
    pub attachments: usize,
}

impl Head<'_> {
    fn write(&self, out: &mut BytesMut) {
        out.put_u8(b'4');
        let is_binary = self.attachments > 0;
        out.put_u8(match self.kind {
            PacketType::Connect => b'0',
            PacketType::Disconnect => b'1',
            PacketType::Event if is_binary => b'5',
            PacketType::Event => b'2',
            PacketType::Ack if is_binary => b'6',
            PacketType::Ack => b'3',
            PacketType::ConnectError => b'4',
        });
        let mut out = out.writer();
        if is_binary {
            write!(out, "{}-", self.attachments).expect(WRITES);
        }
        if self.namespace != "/" {
            write!(out, "{},", self.namespace).expect(WRITES);
        }
        if let Some(id) = self.id {
            write!(out, "{id}").expect(WRITES);
        }
    }
}

/// Appends one packet, whose JSON `json` writes.
pub fn packet(
    head: &Head<'_>,
    attachments: &[Bytes],
    frames: &mut FrameWriter,
    json: impl FnOnce(&mut BytesMut),
) {
    debug_assert_eq!(head.attachments, attachments.len(), "the head says how many there are");
    frames.text(|payload| {
        head.write(payload);
        json(payload);
    });
    for attachment in attachments {
        frames.binary(|payload| payload.put_slice(attachment));
    }
}

/// A packet in frames of its own.
fn one(kind: PacketType, namespace: &str, id: Option<u64>, attachments: &[Bytes], json: &[&[u8]]) -> Bytes {
    let head = Head { kind, namespace, id, attachments: attachments.len() };
    let mut frames = FrameWriter::default();
    packet(&head, attachments, &mut frames, |out| json.iter().for_each(|part| out.put_slice(part)));
    frames.finish()
}

/// The client has joined a namespace, under an id of its own there; `pid` is what it shows to come back as itself.
pub fn connected(namespace: &str, sid: &str, pid: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Json<'a> {
        sid: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<&'a str>,
    }
    let json = serde_json::to_vec(&Json { sid, pid }).expect("plain data");
    one(PacketType::Connect, namespace, None, &[], &[&json])
}

/// The client has not joined a namespace; `code` is what programs compare.
pub fn connect_error(namespace: &str, message: &str, code: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Data<'a> {
        code: &'a str,
    }
    #[derive(Serialize)]
    struct Json<'a> {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Data<'a>>,
    }
    let json = serde_json::to_vec(&Json { message, data: code.map(|code| Data { code }) });
    one(PacketType::ConnectError, namespace, None, &[], &[&json.expect("plain data")])
}

/// An event whose array of arguments consists of these parts.
pub fn event(namespace: &str, arguments: &[&[u8]], attachments: &[Bytes]) -> Bytes {
    one(PacketType::Event, namespace, None, attachments, arguments)
}

/// The answer to an event, whose array of arguments consists of these parts.
pub fn ack(namespace: &str, id: u64, arguments: &[&[u8]], attachments: &[Bytes]) -> Bytes {
    one(PacketType::Ack, namespace, Some(id), attachments, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::engineio::payload_of;

    fn said(frames: Bytes) -> String {
        String::from_utf8(payload_of(&[frames])).unwrap()
    }

    #[test]
    fn packets_are_spelled_as_clients_read_them() {
        assert_eq!(said(connected("/", "x", None)), r#"40{"sid":"x"}"#);
        assert_eq!(said(connected("/custom", "x", Some("p"))), r#"40/custom,{"sid":"x","pid":"p"}"#);
        assert_eq!(
            said(connect_error("/random", "Invalid namespace", None)),
            r#"44/random,{"message":"Invalid namespace"}"#
        );
        assert_eq!(
            said(connect_error("/", "no", Some("unauthorized"))),
            r#"44{"message":"no","data":{"code":"unauthorized"}}"#
        );
        assert_eq!(said(event("/", &[b"[\"a\"", b",1]"], &[])), r#"42["a",1]"#);
        assert_eq!(said(ack("/n", 3, &[b"[]"], &[])), "43/n,3[]");
        let bytes = [Bytes::from_static(&[1, 2, 3, 4])];
        assert_eq!(said(event("/", &[b"[\"a\"]"], &bytes)), "451-[\"a\"]\u{1e}bAQIDBA==");
        assert_eq!(said(ack("/n", 3, &[b"[]"], &bytes)), "461-/n,3[]\u{1e}bAQIDBA==");
    }
}
