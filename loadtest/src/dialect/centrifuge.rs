//! Centrifuge JSON.

use serde::{Deserialize, de::IgnoredAny};

use super::{Heard, Malformed, Missed, Place, Signal};
use crate::tally::{Note, leading_number};

const PUSH: &[u8] = br#"{"push":{"channel":""#;
/// Of no channel: notices of what is stored.
const OTHER_PUSH: &[u8] = br#"{"push":{"#;
const PUBLICATION: &[u8] = br#","pub":{"data":"#;
const UNSUBSCRIBE: &[u8] = br#","unsubscribe":"#;
const OFFSET: &[u8] = br#","offset":"#;
/// Of no channel: the end of a connection whose transport has no close frame.
const DISCONNECT: &[u8] = br#"{"push":{"disconnect":{"code":"#;
const REPLY: &[u8] = br#"{"id":"#;

/// The id of `connect`; all others are higher.
pub const CONNECT_ID: u64 = 1;

pub fn connect(token: &str) -> String {
    // A server that asks for no token gets none.
    if token.is_empty() {
        return format!(r#"{{"id":{CONNECT_ID},"connect":{{}}}}"#);
    }
    format!(r#"{{"id":{CONNECT_ID},"connect":{{"token":"{token}"}}}}"#)
}

pub fn subscribe(id: u64, room: &str, from: Option<&Place>) -> String {
    let recover = from.map_or_else(String::new, |Place { epoch, offset }| {
        format!(r#","recover":true,"offset":{offset},"epoch":"{epoch}""#)
    });
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{room}"{recover}}}}}"#)
}

pub fn send(id: u64, room: &str, client_id: &str, body: &str) -> String {
    format!(
        r#"{{"id":{id},"rpc":{{"method":"send","data":{{"conversation":"{room}","client_id":"{client_id}","body":{body}}}}}}}"#
    )
}

/// Messages on one page of the history.
const HISTORY_PAGE: u32 = 500;

pub fn history(id: u64, room: &str, Place { epoch, offset }: &Place) -> String {
    format!(
        r#"{{"id":{id},"history":{{"channel":"{room}","limit":{HISTORY_PAGE},"since":{{"offset":{offset},"epoch":"{epoch}"}}}}}}"#
    )
}

/// What any server of the protocol understands.
pub fn publish(id: u64, room: &str, body: &str) -> String {
    format!(r#"{{"id":{id},"publish":{{"channel":"{room}","data":{body}}}}}"#)
}

pub fn signal(id: u64, room: &str, signal: Signal) -> String {
    let (method, seq) = match signal {
        Signal::Typing => ("typing", String::new()),
        Signal::Read(seq) => ("mark_read", format!(r#","seq":{seq}"#)),
    };
    format!(r#"{{"id":{id},"rpc":{{"method":"{method}","data":{{"conversation":"{room}"{seq}}}}}}}"#)
}

pub fn listen<'a>(text: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
    for line in text.split(|byte| *byte == b'\n') {
        if line.starts_with(PUSH) {
            push(line, hear)?;
        } else if line.starts_with(REPLY) {
            reply(line, hear)?;
        } else if let Some(rest) = line.strip_prefix(DISCONNECT) {
            let code = leading_number(rest).and_then(|(code, _)| u16::try_from(code).ok());
            hear(Heard::Closed(code.ok_or_else(|| Malformed::new(line))?));
        } else if line.starts_with(OTHER_PUSH) {
            hear(Heard::Event);
        } else if line == b"{}" {
            hear(Heard::Ping);
        } else {
            return Err(Malformed::new(line));
        }
    }
    Ok(())
}

fn push<'a>(line: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
    let rest = &line[PUSH.len()..];
    let end = memchr::memchr(b'"', rest).ok_or_else(|| Malformed::new(line))?;
    let room = std::str::from_utf8(&rest[..end]).map_err(|_| Malformed::new(line))?;
    let rest = &rest[end + 1..];
    if rest.starts_with(PUBLICATION) {
        match Note::find(rest) {
            Some((Some(note), end)) => hear(Heard::Message { room, note, place: place(&rest[end..]) }),
            Some((None, _)) => hear(Heard::Damaged),
            None => hear(Heard::Event),
        }
    } else if rest.starts_with(UNSUBSCRIBE) {
        hear(Heard::Unsubscribed(room));
    } else {
        hear(Heard::Event);
    }
    Ok(())
}

/// The offset that stands behind a body.
fn place(rest: &[u8]) -> u64 {
    let at = memchr::memmem::find(rest, OFFSET).map(|at| at + OFFSET.len());
    at.and_then(|at| leading_number(&rest[at..])).map_or(0, |(offset, _)| offset)
}

#[derive(Deserialize)]
struct Reply<'a> {
    id: u64,
    error: Option<Refusal>,
    #[serde(borrow)]
    connect: Option<Connected<'a>>,
    #[serde(borrow)]
    subscribe: Option<Subscribed<'a>>,
    history: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Connected<'a> {
    session: &'a str,
    node: &'a str,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subscribed<'a> {
    epoch: &'a str,
    offset: u64,
    recovered: bool,
    recoverable: bool,
}

fn reply<'a>(line: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) -> Result<(), Malformed> {
    let reply: Reply<'a> = serde_json::from_slice(line).map_err(|_| Malformed::new(line))?;
    match reply {
        Reply { id, error: Some(Refusal { code, message }), .. } => {
            hear(Heard::Refused { id, code: format!("{code} {message}").trim_end().to_owned() });
        }
        Reply { id: CONNECT_ID, connect, .. } => {
            let Connected { session, node } = connect.unwrap_or_default();
            hear(Heard::Greeted { session, node });
        }
        Reply { id, subscribe: Some(subscribed), .. } => {
            let Subscribed { epoch, offset, recovered, recoverable } = subscribed;
            publications(line, hear);
            let missed = match (recovered, recoverable) {
                (true, _) => Missed::Brought,
                (false, true) => Missed::Limited,
                (false, false) => Missed::Gone,
            };
            hear(Heard::Joined { id, epoch, offset, missed });
        }
        Reply { id, history: Some(_), .. } => {
            publications(line, hear);
            hear(Heard::Page { id });
        }
        Reply { id, .. } => hear(Heard::Done { id }),
    }
    Ok(())
}

/// The messages that a reply brings.
fn publications<'a>(mut rest: &'a [u8], hear: &mut dyn FnMut(Heard<'a>)) {
    while let Some((note, end)) = Note::find(rest) {
        rest = &rest[end..];
        hear(note.map_or(Heard::Damaged, |note| Heard::Message { room: "", note, place: place(rest) }));
    }
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
        let publication = format!(r#"{{"data":{body},"offset":18,"info":{{"user":"1"}}}}"#);
        let message = |room, place| format!("{:?}", Heard::Message { room, note, place });
        assert_eq!(
            heard(&format!("{{\"push\":{{\"channel\":\"c\",\"pub\":{publication}}}}}\n{{}}")),
            [message("c", 18), "Ping".to_owned()]
        );
        assert_eq!(
            heard(&format!(
                r#"{{"id":3,"subscribe":{{"epoch":"aQ","offset":17,"recovered":true,"publications":[{publication}]}}}}"#
            )),
            [message("", 18), r#"Joined { id: 3, epoch: "aQ", offset: 17, missed: Brought }"#.to_owned()]
        );
        assert_eq!(
            heard(r#"{"id":3,"subscribe":{"recoverable":true,"epoch":"aQ","offset":17}}"#),
            [r#"Joined { id: 3, epoch: "aQ", offset: 17, missed: Limited }"#]
        );
        assert_eq!(
            heard(r#"{"id":3,"subscribe":{}}"#),
            [r#"Joined { id: 3, epoch: "", offset: 0, missed: Gone }"#]
        );
        assert_eq!(
            heard(&format!(r#"{{"id":4,"history":{{"publications":[{publication}],"epoch":"aQ"}}}}"#)),
            [message("", 18), "Page { id: 4 }".to_owned()]
        );
        assert_eq!(
            heard(r#"{"id":1,"connect":{"client":"x","session":"s","node":"n"}}"#),
            [r#"Greeted { session: "s", node: "n" }"#]
        );
        assert_eq!(heard(r#"{"push":{"disconnect":{"code":3500,"reason":"no"}}}"#), ["Closed(3500)"]);
        assert_eq!(heard(r#"{"id":9,"rpc":{"data":{"seq":5}}}"#), ["Done { id: 9 }"]);
        assert_eq!(
            heard(r#"{"id":9,"error":{"code":111,"message":"too many"}}"#),
            [r#"Refused { id: 9, code: "111 too many" }"#]
        );
        assert_eq!(
            heard(r#"{"push":{"channel":"c","unsubscribe":{"code":2500}}}"#),
            [r#"Unsubscribed("c")"#]
        );
        assert_eq!(heard(r#"{"push":{"message":{"data":{"type":"stored"}}}}"#), ["Event"]);
        assert!(listen(b"hello", &mut |_| {}).is_err());
    }

    #[test]
    fn what_the_client_says_is_json() {
        let place = Place { epoch: "aQ".to_owned(), offset: 5 };
        for text in [
            connect("t"),
            connect(""),
            subscribe(2, "c", Some(&place)),
            subscribe(2, "c", None),
            history(2, "c", &place),
            send(3, "c", "k", "{}"),
            publish(3, "c", "{}"),
            signal(4, "c", Signal::Typing),
            signal(4, "c", Signal::Read(7)),
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }
}
