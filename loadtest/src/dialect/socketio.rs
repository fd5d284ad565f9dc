//! Socket.IO 5 inside Engine.IO 4, with the event names that chat applications use.

use super::{Heard, Malformed, Signal};
use crate::tally::{Note, leading_number};

const NEW_MESSAGE: &[u8] = br#"["new_message""#;
const SEQ: &[u8] = br#""seq":"#;
/// An ack of the server is a refusal when it says so.
const ERROR: &[u8] = br#""error""#;

pub fn connect(token: &str) -> String {
    if token.is_empty() { "40".to_owned() } else { format!(r#"40{{"token":"{token}"}}"#) }
}

pub fn join(id: u64, room: &str) -> String {
    format!(r#"42{id}["join_conversation",{{"conversationId":"{room}"}}]"#)
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

pub fn listen<'a>(text: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
    match text {
        [b'0', ..] => hear(Heard::Opened),
        [b'2'] => hear(Heard::Ping),
        [b'4', b'0', ..] => hear(Heard::Greeted),
        [b'4', b'2', event @ ..] => self::event(event, hear),
        [b'4', b'3', ack @ ..] => {
            let (id, digits) = leading_number(ack).ok_or_else(|| Malformed::new(text))?;
            let answer = &ack[digits..];
            if memchr::memmem::find(answer, ERROR).is_some() {
                let code = String::from_utf8_lossy(&answer[..answer.len().min(100)]).into_owned();
                hear(Heard::Refused { id, code });
            } else {
                hear(Heard::Done { id });
            }
        }
        // 6 is a noop, 44 a refused connect, 41 a disconnect.
        [b'6'] => {}
        _ => return Err(Malformed::new(text)),
    }
    Ok(())
}

fn event<'a>(event: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) {
    let note = event.starts_with(NEW_MESSAGE).then(|| Note::find(event)).flatten();
    let Some((note, _)) = note else { return hear(Heard::Event) };
    // A server that gives no places is judged by the senders' own numbers alone.
    let at = memchr::memmem::find(event, SEQ).map(|at| at + SEQ.len());
    let place = at.and_then(|at| leading_number(&event[at..])).map_or(0, |(place, _)| place);
    hear(Heard::Message { room: "", note, place });
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
        assert_eq!(heard(r#"0{"sid":"x"}"#), ["Opened"]);
        assert_eq!(heard(r#"40{"sid":"x"}"#), ["Greeted"]);
        assert_eq!(heard("2"), ["Ping"]);
        assert_eq!(heard(r#"4317[{"ok":true}]"#), ["Done { id: 17 }"]);
        assert_eq!(heard(r#"4317[{"error":"no"}]"#), [r#"Refused { id: 17, code: "[{\"error\":\"no\"}]" }"#]);
        assert!(listen(br#"44{"message":"no"}"#, &mut |_| {}).is_err());
    }
}
