//! How an exchange in Socket.IO is played: `> ` is one message of a client, text or `b` and base64; `= ` what is understood;
//! `⏎` a line break within a packet.

use std::fmt::Write as _;

use bytes::Bytes;
use gateway::protocol::{
    engineio::{Packet, packets_of, payload_of},
    socketio::{self, Decoder, Kind, Spelling, Voice},
};
use shared::domain::{ConversationId, Event, Reply};

use super::{Says, room, says};

pub fn play(script: &str) -> String {
    let mut played = String::new();
    let mut decoder = Decoder::default();
    let voice = Voice { namespace: "/".to_owned(), spelling: Spelling::default(), recovers: true };
    for line in script.lines().filter(|line| !line.starts_with("= ") && !line.starts_with("< ")) {
        writeln!(played, "{line}").unwrap();
        if let Some(message) = line.strip_prefix("> ") {
            writeln!(played, "= {}", understood(&mut decoder, message)).unwrap();
        } else if let Some(name) = line.strip_prefix("! ") {
            let said = payload_of(&[say(&voice, name)]);
            let said = String::from_utf8(said).unwrap().replace('\n', "⏎").replace('\u{1e}', "\n< ");
            writeln!(played, "< {}", if said.is_empty() { "(nothing)" } else { &said }).unwrap();
        }
    }
    played
}

fn understood(decoder: &mut Decoder, message: &str) -> String {
    let packet = match packets_of(&Bytes::copy_from_slice(message.as_bytes())).remove(0) {
        Ok(Packet::Text(text)) => decoder.text(&text),
        Ok(Packet::Binary(bytes)) => decoder.binary(bytes),
        other => return format!("{other:?}"),
    };
    match packet {
        Err(violation) => format!("ends the connection: {violation}"),
        Ok(None) => "nothing yet".to_owned(),
        Ok(Some(packet)) => match packet.kind {
            Kind::Event { id, name, arguments } => {
                let name = name.unwrap_or_default();
                let asked = socketio::read(&Spelling::default(), &name, &arguments, true);
                format!("{id:?} {}", asked.map_or("no event".to_owned(), |asked| format!("{asked:?}")))
            }
            other => format!("{} {other:?}", packet.namespace),
        },
    }
}

/// What the server has to say, by the names that every protocol's exchanges have.
fn say(voice: &Voice, name: &str) -> Bytes {
    let conversation: ConversationId = room();
    match says(name) {
        Says::Event(event) => voice.batch(&conversation, &[event]),
        Says::Reply(Reply::Subscribed(subscribed)) => voice.joined(Some(1), &conversation, &subscribed),
        Says::Reply(Reply::Sent(sent)) => voice.sent(1, &sent),
        Says::Reply(Reply::Refused(refusal)) => voice.refused("typing", refusal, Some(&conversation)),
        Says::Reply(Reply::UserPresence(users)) => {
            let events: Vec<Event> = users.into_iter().map(Event::Online).collect();
            voice.batch(&conversation, &events)
        }
        Says::Reply(Reply::Connected(_)) => socketio::connected("/", "sid", Some("pid")),
        Says::Disconnect(why) => socketio::farewell(why),
        _ => panic!("nobody says {name:?} in Socket.IO"),
    }
}
