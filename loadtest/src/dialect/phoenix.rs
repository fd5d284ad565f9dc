//! Phoenix channels, version 2 in JSON, as the clients of Supabase Realtime speak them: a room is the topic `realtime:ROOM`, a
//! message is a `broadcast` that the server acknowledges and brings to its sender, too.
//!
//! Deliberately absent: version 1, presence, rows of a database, and binary frames on the way up.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{Heard, Malformed, Signal};
use crate::tally::Note;

/// The event that messages go by.
const MESSAGE: &str = "message";
const TOPIC: &str = "realtime:";
/// The first byte of a binary broadcast of the server: four lengths follow, and then what they are the lengths of.
const BROADCAST: u8 = 4;
const BROADCAST_HEADER: usize = 5;

/// A server that asks for no token still wants to be shown something.
pub fn path(token: &str) -> String {
    let key = if token.is_empty() { "none" } else { token };
    format!("/realtime/v1/websocket?apikey={key}&vsn=2.0.0")
}

pub fn join(id: u64, room: &str, token: &str) -> String {
    let token = if token.is_empty() { String::new() } else { format!(r#","access_token":"{token}""#) };
    format!(
        r#"["{id}","{id}","{TOPIC}{room}","phx_join",{{"config":{{"broadcast":{{"self":true,"ack":true}},"presence":{{"key":"","enabled":false}},"private":false}}{token}}}]"#
    )
}

pub fn send(id: u64, room: &str, body: &str) -> String {
    broadcast(id, room, MESSAGE, body)
}

pub fn signal(id: u64, room: &str, signal: Signal) -> String {
    match signal {
        Signal::Typing => broadcast(id, room, "typing", "{}"),
        Signal::Read(seq) => broadcast(id, room, "read", &format!(r#"{{"seq":{seq}}}"#)),
    }
}

pub fn heartbeat(id: u64) -> String {
    format!(r#"[null,"{id}","phoenix","heartbeat",{{}}]"#)
}

/// A join's number is not said again: servers take `null` for the join that is in force.
fn broadcast(id: u64, room: &str, event: &str, payload: &str) -> String {
    format!(
        r#"[null,"{id}","{TOPIC}{room}","broadcast",{{"type":"broadcast","event":"{event}","payload":{payload}}}]"#
    )
}

/// `[join_ref, ref, topic, event, payload]`.
#[derive(Deserialize)]
struct Message<'a>(
    IgnoredAny,
    #[serde(borrow)] Option<&'a str>,
    &'a str,
    &'a str,
    #[serde(borrow)] &'a RawValue,
);

#[derive(Deserialize)]
struct Reply<'a> {
    status: &'a str,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

pub fn listen<'a>(text: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
    if text.first() == Some(&BROADCAST) {
        return binary(text, hear).ok_or_else(|| Malformed::new(text));
    }
    let message = serde_json::from_slice(text).map_err(|_| Malformed::new(text))?;
    let Message(_, id, topic, event, payload) = message;
    let room = topic.strip_prefix(TOPIC).unwrap_or_default();
    match (event, id.and_then(|id| id.parse().ok())) {
        ("broadcast", _) => notes(room, payload.get().as_bytes(), hear),
        ("phx_reply", Some(id)) => {
            let Reply { status, response } =
                serde_json::from_str(payload.get()).map_err(|_| Malformed::new(text))?;
            if status == "ok" {
                hear(Heard::Done { id });
            } else {
                let code = response.map_or(status, RawValue::get).to_owned();
                hear(Heard::Refused { id, code });
            }
        }
        ("phx_error" | "phx_close", _) => hear(Heard::Unsubscribed(room)),
        _ => hear(Heard::Event),
    }
    Ok(())
}

fn binary<'a>(text: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Option<()> {
    let &[_, topic, event, metadata, _] = text.first_chunk::<BROADCAST_HEADER>()?;
    let (topic, rest) = text[BROADCAST_HEADER..].split_at_checked(topic.into())?;
    let payload = rest.get(usize::from(event) + usize::from(metadata)..)?;
    notes(std::str::from_utf8(topic).ok()?.strip_prefix(TOPIC).unwrap_or_default(), payload, hear);
    Some(())
}

fn notes<'a>(room: &'a str, payload: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) {
    match Note::find(payload) {
        Some((Some(note), _)) => hear(Heard::Message { room, note, place: 0 }),
        Some((None, _)) => hear(Heard::Damaged),
        None => hear(Heard::Event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        listen(text, &mut |heard| all.push(format!("{heard:?}"))).unwrap();
        all
    }

    #[test]
    fn what_a_server_says_is_understood() {
        let note = Note { sender: 1, room: 2, number: 3, time_us: 4 };
        let body = note.body(0);
        let message = format!("{:?}", Heard::Message { room: "r", note, place: 0 });
        let text = format!(
            r#"[null,null,"realtime:r","broadcast",{{"type":"broadcast","event":"message","payload":{body}}}]"#
        );
        assert_eq!(heard(text.as_bytes()), std::slice::from_ref(&message));
        let binary = [b"\x04\x0a\x07\x02\x01realtime:rmessage{}", body.as_bytes()].concat();
        assert_eq!(heard(&binary), [message]);
        assert_eq!(
            heard(br#"["6","6","realtime:r","phx_reply",{"status":"ok","response":{}}]"#),
            ["Done { id: 6 }"]
        );
        assert_eq!(
            heard(br#"["6","7","realtime:r","phx_reply",{"status":"error","response":{"reason":"no"}}]"#),
            [r#"Refused { id: 7, code: "{\"reason\":\"no\"}" }"#]
        );
        assert_eq!(heard(br#"["6","6","realtime:r","phx_error",{}]"#), [r#"Unsubscribed("r")"#]);
        assert_eq!(heard(br#"["6",null,"realtime:r","presence_state",{}]"#), ["Event"]);
        assert!(listen(b"hello", &mut |_| {}).is_err());
        assert!(listen(b"\x04\xff", &mut |_| {}).is_err());
    }

    #[test]
    fn what_the_client_says_is_json() {
        for text in [
            join(2, "r", ""),
            join(2, "r", "t"),
            send(3, "r", "{}"),
            signal(4, "r", Signal::Typing),
            signal(4, "r", Signal::Read(7)),
            heartbeat(5),
        ] {
            let message: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert_eq!(message.len(), 5, "{text}");
        }
    }
}
