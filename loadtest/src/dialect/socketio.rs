//! Socket.IO 5 inside Engine.IO 4, with the event names that chat applications use.

use serde::Deserialize;

use super::{Heard, Malformed, Missed, Place, Session, Signal};
use crate::tally::{Note, leading_number};

const NEW_MESSAGE: &[u8] = br#"["new_message""#;
const SEQ: &[u8] = br#""seq":"#;
/// An ack of the server is a refusal when it says so.
const ERROR: &[u8] = br#""error""#;
/// An ack of a join names the room where the server knows places.
const ROOM: &[u8] = br#""conversation_id""#;
const LIMITED: &[u8] = br#""limited":true"#;

/// Joins the namespace; takes a session up again where there was one.
pub fn connect(Session { token, id, offset }: Session<'_>) -> String {
    let mut fields = Vec::new();
    if !id.is_empty() {
        fields.push(format!(r#""pid":"{id}","offset":"{offset}""#));
    }
    if !token.is_empty() {
        fields.push(format!(r#""token":"{token}""#));
    }
    if fields.is_empty() { "40".to_owned() } else { format!("40{{{}}}", fields.join(",")) }
}

/// Joins a room; a server that knows places brings what came after this one.
pub fn join(id: u64, room: &str, from: Option<&Place>) -> String {
    let seq = from.filter(|place| place.offset > 0).map(|place| format!(r#","seq":{}"#, place.offset));
    format!(r#"42{id}["join_conversation",{{"conversationId":"{room}"{}}}]"#, seq.unwrap_or_default())
}

pub fn send(id: u64, room: &str, client_id: &str, body: &str) -> String {
    format!(
        r#"42{id}["send_message",{{"conversationId":"{room}","clientId":"{client_id}","content":{body}}}]"#
    )
}

pub fn signal(room: &str, signal: Signal) -> String {
    match signal {
        Signal::Typing => format!(r#"42["typing",{{"conversationId":"{room}"}}]"#),
        Signal::Read(seq) => format!(r#"42["mark_read",{{"conversationId":"{room}","seq":{seq}}}]"#),
    }
}

/// What a packet that opens something says of it: `sid` of a connection, `pid` of a session that can be taken up again.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Opening<'a> {
    sid: &'a str,
    pid: &'a str,
}

pub fn listen<'a>(text: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
    let opening = |json: &'a [u8]| serde_json::from_slice::<Opening<'a>>(json).unwrap_or_default();
    match text {
        [b'0', json @ ..] => hear(Heard::Opened { session: opening(json).sid }),
        [b'2'] => hear(Heard::Ping),
        [b'4', b'0', json @ ..] => hear(Heard::Greeted { session: opening(json).pid, node: "" }),
        [b'4', b'2', event @ ..] => self::event(event, hear),
        [b'4', b'3', ack @ ..] => {
            let (id, digits) = leading_number(ack).ok_or_else(|| Malformed::new(text))?;
            self::ack(id, &ack[digits..], hear);
        }
        // 6 is a noop, 44 a refused connect, 41 a disconnect.
        [b'6'] => {}
        _ => return Err(Malformed::new(text)),
    }
    Ok(())
}

fn ack<'a>(id: u64, answer: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) {
    let has = |what| memchr::memmem::find(answer, what).is_some();
    if has(ERROR) {
        let code = String::from_utf8_lossy(&answer[..answer.len().min(100)]).into_owned();
        hear(Heard::Refused { id, code });
    } else if has(ROOM) {
        let missed = if has(LIMITED) { Missed::Limited } else { Missed::Brought };
        hear(Heard::Joined { id, epoch: "", offset: seq(answer), missed });
    } else {
        hear(Heard::Done { id });
    }
}

fn event<'a>(event: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) {
    match event.starts_with(NEW_MESSAGE).then(|| Note::find(event)).flatten() {
        // A server that gives no places is judged by the senders' own numbers alone.
        Some((Some(note), _)) => hear(Heard::Message { room: "", note, place: seq(event) }),
        Some((None, _)) => hear(Heard::Damaged),
        None => hear(Heard::Event),
    }
    // Every event may end in the offset of the session.
    if let Some(rest) = event.strip_suffix(b"\"]")
        && let Some(start) = memchr::memrchr(b'"', rest)
        && rest[..start].ends_with(b",")
        && let Ok(offset) = std::str::from_utf8(&rest[start + 1..])
    {
        hear(Heard::Offset(offset));
    }
}

/// The place that a text names; 0 where it names none.
fn seq(text: &[u8]) -> u64 {
    let at = memchr::memmem::find(text, SEQ).map(|at| at + SEQ.len());
    at.and_then(|at| leading_number(&text[at..])).map_or(0, |(seq, _)| seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        listen(text.as_bytes(), &mut |heard| all.push(format!("{heard:?}"))).unwrap();
        all
    }

    #[test]
    fn what_a_server_says_is_understood() {
        let note = Note { sender: 1, room: 2, number: 3, time_us: 4 };
        let body = note.body(0);
        assert_eq!(
            heard(&format!(r#"42["new_message",{{"content":{body},"seq":9}}]"#)),
            [format!("{:?}", Heard::Message { room: "", note, place: 9 })]
        );
        assert_eq!(heard(r#"42["user_online",{"user":"a"}]"#), ["Event"]);
        assert_eq!(heard(r#"42["session","1.2.c"]"#), ["Event", r#"Offset("1.2.c")"#]);
        assert_eq!(
            heard(&format!(r#"42["new_message",{{"seq":9,"body":{body}}},"1.9.c"]"#)),
            [format!("{:?}", Heard::Message { room: "", note, place: 9 }), r#"Offset("1.9.c")"#.to_owned()]
        );
        assert_eq!(heard(r#"0{"sid":"x"}"#), [r#"Opened { session: "x" }"#]);
        assert_eq!(heard(r#"40{"sid":"x"}"#), [r#"Greeted { session: "", node: "" }"#]);
        assert_eq!(heard(r#"40{"sid":"x","pid":"p"}"#), [r#"Greeted { session: "p", node: "" }"#]);
        assert_eq!(
            heard(r#"432[{"ok":true,"conversation_id":"c","seq":7,"limited":true}]"#),
            [r#"Joined { id: 2, epoch: "", offset: 7, missed: Limited }"#]
        );
        assert_eq!(heard("2"), ["Ping"]);
        assert_eq!(heard(r#"4317[{"ok":true}]"#), ["Done { id: 17 }"]);
        assert_eq!(heard(r#"4317[{"error":"no"}]"#), [r#"Refused { id: 17, code: "[{\"error\":\"no\"}]" }"#]);
        assert!(listen(br#"44{"message":"no"}"#, &mut |_| {}).is_err());
    }

    #[test]
    fn what_the_client_says_is_json_behind_its_number() {
        let session = Session { token: "t", id: "p", offset: "o" };
        let place = Place { epoch: String::new(), offset: 5 };
        for text in [connect(session), join(2, "c", Some(&place)), send(3, "c", "k", "{}")] {
            let json = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{text}");
        }
        assert_eq!(connect(Session::default()), "40");
    }
}
