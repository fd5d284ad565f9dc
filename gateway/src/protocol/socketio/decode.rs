//! Messages to packets.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::protocol::json_depth;

/// Most attachments of one packet.
pub const ATTACHMENTS_MAX: usize = 10;
/// Deepest nesting of arrays and objects in a packet, its own array of arguments included.
pub const JSON_DEPTH_MAX: usize = 64;
/// Most digits of the number by which an event asks for an acknowledgement: more cannot be counted exactly.
const ID_DIGITS_MAX: usize = 15;

/// Names that the libraries on both ends keep for themselves.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// What a client says to one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The namespace, literally; `/` when none is named.
    pub namespace: String,
    /// What it says.
    pub kind: Kind,
}

/// What a packet says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Joins the namespace, with the JSON object that says who the client is.
    Connect(Option<Bytes>),
    /// Leaves it.
    Disconnect,
    /// Something happened.
    Event {
        /// Wants an acknowledgement under this number.
        id: Option<u64>,
        /// What it is called; `None` for a name that no handler can have, such as a number.
        name: Option<String>,
        /// The name and what follows it.
        arguments: Arguments,
    },
    /// Acknowledges an event of the server's; `None` where it says not which.
    Ack {
        /// Which one.
        id: Option<u64>,
        /// What it answers.
        arguments: Arguments,
    },
}

/// A JSON array as it came, and the bytes that its placeholders stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The array; it is valid JSON.
    pub json: Bytes,
    /// In the order of their numbers.
    pub attachments: Vec<Bytes>,
}

/// Whether the libraries on both ends keep a name for themselves.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

impl Arguments {
    /// The elements of the array, each as it came.
    pub fn elements(&self) -> Vec<&RawValue> {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// Why a connection ends that has said this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// There is no such type of packet, or clients do not send it.
    #[error("unknown packet type")]
    Type,
    /// What should be a number is none, or too large.
    #[error("illegal number")]
    Number,
    /// None, or too many.
    #[error("illegal attachments")]
    Attachments,
    /// The JSON is malformed, nested too deep, or not what the type of packet carries.
    #[error("invalid payload")]
    Payload,
    /// An event has a name that is kept for the libraries.
    #[error("reserved name")]
    Reserved,
    /// Text came where bytes were due, or bytes that nobody has announced.
    #[error("unexpected message")]
    Unexpected,
    /// A placeholder has no attachment.
    #[error("illegal placeholder")]
    Placeholder,
}

/// Puts packets together from messages.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Option<Pending>,
}

/// A packet whose attachments have not all come.
#[derive(Debug)]
struct Pending {
    packet: Packet,
    missing: usize,
}

impl Decoder {
    /// Takes a message of text, which is UTF-8. `None` when attachments are still to come, or it says nothing.
    ///
    /// # Errors
    /// The connection ends.
    pub fn text(&mut self, message: &Bytes) -> Result<Option<Packet>, Violation> {
        if self.pending.is_some() {
            return Err(Violation::Unexpected);
        }
        let Some((packet, missing)) = read(message)? else { return Ok(None) };
        if missing == 0 {
            return Ok(Some(packet));
        }
        self.pending = Some(Pending { packet, missing });
        Ok(None)
    }

    /// Takes a message of bytes: the next attachment.
    ///
    /// # Errors
    /// The connection ends.
    pub fn binary(&mut self, message: Bytes) -> Result<Option<Packet>, Violation> {
        let mut pending = self.pending.take().ok_or(Violation::Unexpected)?;
        let (Kind::Event { arguments, .. } | Kind::Ack { arguments, .. }) = &mut pending.packet.kind else {
            unreachable!("only these have attachments");
        };
        arguments.attachments.push(message);
        if arguments.attachments.len() < pending.missing {
            self.pending = Some(pending);
            return Ok(None);
        }
        check_placeholders(arguments)?;
        Ok(Some(pending.packet))
    }
}

/// The packet without its attachments, and how many it has. `None` for an event without anything.
fn read(message: &Bytes) -> Result<Option<(Packet, usize)>, Violation> {
    let text = std::str::from_utf8(message).map_err(|_| Violation::Payload)?;
    // What begins with more than one byte is no type, and must not be cut in the middle.
    let (kind, mut rest) = text.split_at_checked(1).ok_or(Violation::Type)?;
    let kind = kind.as_bytes()[0];
    let attachments = if matches!(kind, b'5' | b'6') { attachments(&mut rest)? } else { 0 };
    let namespace = namespace(&mut rest);
    let id = id(&mut rest)?;
    let json = (!rest.is_empty()).then(|| message.slice_ref(rest.as_bytes()));
    let kind = match kind {
        b'0' => {
            if !json.as_ref().is_none_or(is_object) {
                return Err(Violation::Payload);
            }
            Kind::Connect(json)
        }
        b'1' if json.is_none() => Kind::Disconnect,
        b'2' | b'5' => {
            let Some(json) = json else { return Ok(None) };
            let name = event_name(&json)?;
            Kind::Event { id, name, arguments: Arguments { json, attachments: Vec::new() } }
        }
        b'3' | b'6' => {
            let Some(json) = json else { return Ok(None) };
            array(&json)?;
            Kind::Ack { id, arguments: Arguments { json, attachments: Vec::new() } }
        }
        b'1' => return Err(Violation::Payload),
        _ => return Err(Violation::Type),
    };
    Ok(Some((Packet { namespace, kind }, attachments)))
}

/// Digits and a hyphen. A packet of the binary types without any attachment is none.
fn attachments(rest: &mut &str) -> Result<usize, Violation> {
    let (digits, after) = rest.split_once('-').ok_or(Violation::Attachments)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.parse().ok().filter(|count| is_number && (1..=ATTACHMENTS_MAX).contains(count));
    *rest = after;
    count.ok_or(Violation::Attachments)
}

fn namespace(rest: &mut &str) -> String {
    if !rest.starts_with('/') {
        return "/".to_owned();
    }
    let (name, after) = rest.split_once(',').unwrap_or((rest, ""));
    *rest = after;
    name.to_owned()
}

fn id(rest: &mut &str) -> Result<Option<u64>, Violation> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Ok(None);
    }
    if digits > ID_DIGITS_MAX {
        return Err(Violation::Number);
    }
    let (number, after) = rest.split_at(digits);
    *rest = after;
    number.parse().map(Some).map_err(|_| Violation::Number)
}

fn is_object(json: &Bytes) -> bool {
    json_depth(json) <= JSON_DEPTH_MAX
        && serde_json::from_slice::<&RawValue>(json).is_ok_and(|raw| raw.get().starts_with('{'))
}

fn array(json: &Bytes) -> Result<Vec<&RawValue>, Violation> {
    if json_depth(json) > JSON_DEPTH_MAX {
        return Err(Violation::Payload);
    }
    serde_json::from_slice(json).map_err(|_| Violation::Payload)
}

/// The first element must be a name or a number; a number is nobody's name.
fn event_name(json: &Bytes) -> Result<Option<String>, Violation> {
    let first = *array(json)?.first().ok_or(Violation::Payload)?;
    match first.get().as_bytes().first() {
        // Half a surrogate pair is a string to JavaScript, and no name that anybody has.
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(first.get()) {
            Ok(name) if is_reserved(&name) => Err(Violation::Reserved),
            Ok(name) => Ok(Some(name.into_owned())),
            Err(_) => Ok(None),
        },
        Some(b'0'..=b'9' | b'-') => Ok(None),
        _ => Err(Violation::Payload),
    }
}

/// Every object that says it is a placeholder must name an attachment; attachments that nobody names are no error.
fn check_placeholders(arguments: &Arguments) -> Result<(), Violation> {
    let count = arguments.attachments.len() as u64;
    let are_legal = arguments.elements().into_iter().all(|element| are_placeholders_legal(element, count));
    if are_legal { Ok(()) } else { Err(Violation::Placeholder) }
}

/// Recursive: the depth was bounded before. Numbers are not read, since JSON has some that no machine holds.
fn are_placeholders_legal(value: &RawValue, count: u64) -> bool {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
            .is_ok_and(|items| items.into_iter().all(|item| are_placeholders_legal(item, count))),
        Some(b'{') => {
            // A key that is half a surrogate pair is beyond this reader, and no reason to let anything pass.
            let Ok(map) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(text) else {
                return false;
            };
            if map.get("_placeholder").is_some_and(|is| is.get() == "true") {
                let number = map.get("num").and_then(|num| num.get().parse().ok());
                return number.is_some_and(|number: u64| number < count);
            }
            map.into_values().all(|item| are_placeholders_legal(item, count))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(message: &str) -> Result<Option<Packet>, Violation> {
        Decoder::default().text(&Bytes::copy_from_slice(message.as_bytes()))
    }

    fn kind(message: &str) -> (String, Kind) {
        let packet = decode(message).unwrap().unwrap();
        (packet.namespace, packet.kind)
    }

    fn event(id: Option<u64>, name: Option<&str>, json: &str) -> Kind {
        let arguments = Arguments { json: Bytes::copy_from_slice(json.as_bytes()), attachments: Vec::new() };
        Kind::Event { id, name: name.map(str::to_owned), arguments }
    }

    #[test]
    fn packets_of_every_type() {
        assert_eq!(kind("0"), ("/".to_owned(), Kind::Connect(None)));
        assert_eq!(kind("0{\"a\":1}"), ("/".to_owned(), Kind::Connect(Some("{\"a\":1}".into()))));
        assert_eq!(kind("0/custom,"), ("/custom".to_owned(), Kind::Connect(None)));
        assert_eq!(kind("0/c?a=b,{}"), ("/c?a=b".to_owned(), Kind::Connect(Some("{}".into()))));
        assert_eq!(kind("1/custom"), ("/custom".to_owned(), Kind::Disconnect));
        assert_eq!(kind("2[\"a\", 1]").1, event(None, Some("a"), "[\"a\", 1]"));
        assert_eq!(kind("2/n,007[\"a\"]"), ("/n".to_owned(), event(Some(7), Some("a"), "[\"a\"]")));
        assert_eq!(kind("2[1e400,{\"a\":1,\"a\":2}]").1, event(None, None, "[1e400,{\"a\":1,\"a\":2}]"));
        let Kind::Ack { id: Some(12), arguments } = kind("312[true]").1 else { panic!("an ack") };
        assert_eq!(arguments.elements()[0].get(), "true");
    }

    #[test]
    fn what_says_nothing_is_let_pass() {
        for nothing in ["2", "3", "312", "2/n,"] {
            assert_eq!(decode(nothing), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn what_ends_the_connection() {
        let deep = format!("2[\"a\",{}{}]", "[".repeat(5_000), "]".repeat(5_000));
        for bad in [
            "",
            "7",
            "a",
            "é",
            "🐦[\"a\"]",
            "4{}",
            "4\"no\"",
            "2[]",
            "2{}",
            "2[null]",
            "2[true]",
            "2[\"a\"",
            "2[\"a\"]x",
            "2\"a\"",
            "2[\"connect\"]",
            "2[\"connect_error\"]",
            "2[\"disconnect\"]",
            "2[\"disconnecting\"]",
            "2[\"newListener\"]",
            "2[\"removeListener\"]",
            "2[\"\\u0063onnect\"]",
            "0[]",
            "0\"a\"",
            "1{}",
            "3{}",
            "5-[\"a\"]",
            "50-[\"a\"]",
            "511-[\"a\"]",
            "5+1-[\"a\"]",
            "5[\"a\"]",
            "51",
            "21234567890123456[\"a\"]",
            deep.as_str(),
        ] {
            assert!(decode(bad).is_err(), "{}", &bad[..bad.len().min(40)]);
        }
    }

    #[test]
    fn attachments_are_collected() {
        let mut decoder = Decoder::default();
        let head = Bytes::from_static(
            b"52-7[\"a\",{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]",
        );
        assert_eq!(decoder.text(&head), Ok(None));
        assert_eq!(decoder.binary("one".into()), Ok(None));
        let packet = decoder.binary("two".into()).unwrap().unwrap();
        let Kind::Event { id: Some(7), arguments, .. } = packet.kind else { panic!("an event") };
        assert_eq!(arguments.attachments, ["one", "two"]);
        assert_eq!(decoder.binary("three".into()), Err(Violation::Unexpected));
        assert!(decoder.text(&Bytes::from_static(b"2[\"a\"]")).unwrap().is_some());
    }

    #[test]
    fn a_placeholder_needs_its_attachment_and_not_the_other_way_round() {
        let end = |head: &str| {
            let mut decoder = Decoder::default();
            decoder.text(&Bytes::copy_from_slice(head.as_bytes())).unwrap();
            decoder.binary("x".into()).map(|packet| packet.is_some())
        };
        assert_eq!(end("51-[\"a\"]"), Ok(true));
        for num in ["1", "-1", "0.5", "\"0\"", "null"] {
            let head = format!("51-[\"a\",{{\"b\":[{{\"_placeholder\":true,\"num\":{num}}}]}}]");
            assert_eq!(end(&head), Err(Violation::Placeholder), "{num}");
        }
    }

    #[test]
    fn text_between_attachments_ends_the_connection() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.text(&Bytes::from_static(b"52-[\"a\"]")), Ok(None));
        assert_eq!(decoder.text(&Bytes::from_static(b"2[\"b\"]")), Err(Violation::Unexpected));
    }
}
