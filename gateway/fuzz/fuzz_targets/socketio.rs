//! Any bytes as what a Socket.IO client sends, in a payload or one frame after the other: they decode within the limits or end the
//! connection, and what decodes can be relayed to others, as valid JSON.
#![no_main]

use bytes::Bytes;
use gateway::protocol::{
    engineio::{Packet, Query, packet_of_frame, packets_of, payload_of, split_sid},
    socketio::{
        self, ATTACHMENTS_MAX, Arguments, Credentials, Decoder, Kind, Offset, Request, Spelling, Voice,
    },
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use shared::domain::{BODY_BYTES_MAX, Event, Signal, UserId};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (Query::parse(text), split_sid(text), Offset::parse(text));
        let _ = packet_of_frame(&body);
    }
    let mut decoder = Decoder::default();
    for packet in packets_of(&body) {
        let decoded = match packet {
            Ok(Packet::Text(text)) => decoder.text(&text),
            Ok(Packet::Binary(bytes)) => decoder.binary(bytes),
            Ok(_) => continue,
            Err(_) => return,
        };
        match decoded {
            Ok(Some(packet)) => packet_of_client(packet.kind),
            Ok(None) => {}
            Err(_) => return,
        }
    }
});

fn packet_of_client(kind: Kind) {
    match kind {
        Kind::Connect(auth) => drop(Credentials::parse(auth.as_ref())),
        Kind::Event { name, arguments, .. } => event(&name.unwrap_or_default(), &arguments),
        Kind::Ack { .. } | Kind::Disconnect => {}
    }
}

fn event(name: &str, arguments: &Arguments) {
    assert!(arguments.attachments.len() <= ATTACHMENTS_MAX);
    assert!(!arguments.elements().is_empty(), "an event has a name");
    let relayed = payload_of(&[socketio::event("/", &[&arguments.json], &arguments.attachments)]);
    assert!(relayed.starts_with(if arguments.attachments.is_empty() { b"42" } else { b"45" }));
    let _ = socketio::conversation_of(arguments);
    match socketio::read(&Spelling::default(), name, arguments, true) {
        Some(Ok(Request::Send(send))) => assert!(send.body.as_bytes().len() <= BODY_BYTES_MAX),
        Some(Ok(Request::Signal(signal))) => {
            let voice = Voice { namespace: "/".to_owned(), spelling: Spelling::default(), recovers: true };
            let user = UserId::server();
            let said = Signal { conversation: None, user, name: signal.name, data: signal.data };
            let payload = payload_of(&[voice.batch(&signal.conversation, &[Event::Signal(said)])]);
            let packet = payload.split(|byte| *byte == 0x1e).next().unwrap_or_default();
            let json = &packet[packet.iter().position(|byte| *byte == b'[').expect("an array")..];
            serde_json::from_slice::<&RawValue>(json).expect("valid JSON");
        }
        _ => {}
    }
}
