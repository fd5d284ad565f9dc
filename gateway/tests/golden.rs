//! Replays the exchanges in `src/protocol/*/golden/*.txt`: what each protocol reads and says, to the byte.
//!
//! A line `> ` comes from the client; several in a row are one frame. `= ` is what is understood, one line for each
//! command. `! ` is what the server has to say, by the name it has in `says`; an answer goes to the first command that has
//! none yet. `< ` is what the client receives. Other lines are prose.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::VecDeque, fmt::Write as _, fs, path::Path, sync::Arc};

use gateway::protocol::centrifuge;
use shared::domain::{
    Body, Catchup, ClientInfo, ClientMessageId, Connected, ConnectionId, ConversationId, Disconnect, Event,
    HistoryPage, Message, MessageId, MessageKind, Online, Refusal, Reply, Sent, Seq, Signal, SignalName,
    Stored, Subscribed, Typing, UserId,
};
use uuid::Uuid;

mod golden_socketio;
use golden_socketio as socketio;

#[test]
fn every_exchange_goes_as_it_is_written() {
    let protocols = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol");
    let mut count = 0;
    for protocol in fs::read_dir(protocols).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(exchanges) = fs::read_dir(protocol.join("golden")) else { continue };
        for path in exchanges.map(|entry| entry.unwrap().path()) {
            let written = fs::read_to_string(&path).unwrap();
            let played = match protocol.file_name().and_then(|name| name.to_str()) {
                Some("centrifuge") => play_centrifuge(&written),
                Some("socketio") => socketio::play(&written),
                _ => panic!("no way to play {}", path.display()),
            };
            assert!(played == written, "{} goes like this instead:\n{played}", path.display());
            count += 1;
        }
    }
    assert!(count > 0);
}

/// The exchange with every `= ` and `< ` line as it comes out now.
fn play_centrifuge(script: &str) -> String {
    let mut played = String::new();
    let mut frame: Vec<&str> = Vec::new();
    let mut unanswered = VecDeque::new();
    let inputs = script.lines().filter(|line| !line.starts_with("= ") && !line.starts_with("< "));
    let mut inputs = inputs.peekable();
    while let Some(line) = inputs.next() {
        writeln!(played, "{line}").unwrap();
        if let Some(command) = line.strip_prefix("> ") {
            frame.push(command);
            if inputs.peek().is_some_and(|next| next.starts_with("> ")) {
                continue;
            }
            match centrifuge::decode(frame.join("\n").as_bytes()) {
                Ok(commands) => {
                    for (tag, command) in commands {
                        writeln!(played, "= {command:?}").unwrap();
                        unanswered.push_back(tag);
                    }
                }
                Err(why) => writeln!(played, "= disconnect {} {}", why.code(), why.reason()).unwrap(),
            }
            frame.clear();
        } else if let Some(name) = line.strip_prefix("! ") {
            let mut out = Vec::new();
            say_centrifuge(&says(name), &mut unanswered, &mut out);
            let said = String::from_utf8(out).unwrap();
            writeln!(played, "< {}", if said.is_empty() { "(nothing)" } else { &said }).unwrap();
        }
    }
    played
}

fn say_centrifuge(says: &Says, unanswered: &mut VecDeque<centrifuge::Tag>, out: &mut Vec<u8>) {
    let mut tag = || unanswered.pop_front().expect("a command waits for this answer");
    match says {
        Says::Reply(reply) => centrifuge::reply(tag(), reply, None, out),
        Says::ReplyOnStream(reply) => {
            let stream = centrifuge::StreamSession { session: "s-9f", node: "n1" };
            centrifuge::reply(tag(), reply, Some(stream), out);
        }
        Says::Event(event) => centrifuge::push(&room(), event, out),
        Says::Stored(stored) => centrifuge::stored_push(stored, out),
        Says::Unsubscribe(why) => centrifuge::unsubscribe_push(&room(), *why, out),
        Says::Disconnect(why) => centrifuge::disconnect_push(*why, out),
    }
}

/// What the server can have to say in an exchange.
enum Says {
    Reply(Reply),
    ReplyOnStream(Reply),
    Event(Event),
    Stored(Stored),
    Unsubscribe(centrifuge::Unsubscribe),
    Disconnect(Disconnect),
}

fn says(name: &str) -> Says {
    let subscribed =
        |seq, catchup| Reply::Subscribed(Subscribed { epoch: "aQ".to_owned(), seq: Seq(seq), catchup });
    Says::Reply(match name {
        "connected" => Reply::Connected(connected(None, Catchup::NotAsked)),
        "connected, for an hour, resumed" => {
            Reply::Connected(connected(Some(3600), Catchup::Complete(vec![message(18, "text")])))
        }
        "connected to a stream" => {
            return Says::ReplyOnStream(Reply::Connected(connected(None, Catchup::NotAsked)));
        }
        "refreshed for an hour" => Reply::Refreshed { client: client().client, ttl: Some(3600) },
        "subscribed at 0" => subscribed(0, Catchup::NotAsked),
        "subscribed at 17" => subscribed(17, Catchup::NotAsked),
        "recovered nothing" => subscribed(17, Catchup::Complete(vec![])),
        "recovered 18 to 20, of which 19 is void" => subscribed(
            17,
            Catchup::Complete(vec![message(18, "text"), message(19, "void"), message(20, "image")]),
        ),
        "too much was missed" => subscribed(2000, Catchup::Limited),
        "unsubscribed" => Reply::Unsubscribed,
        "published" => Reply::Published,
        "sent" => {
            Reply::Sent(Sent { id: MessageId(Uuid::from_u128(18)), seq: Seq(18), time: 1_700_000_000_018 })
        }
        "the position" => Reply::History(page(vec![])),
        "a page" => {
            Reply::History(page(vec![message(18, "text"), message(19, "void"), message(20, "image")]))
        }
        "who is there" => Reply::Presence(vec![client()]),
        "how many are there" => Reply::PresenceStats { clients: 3, users: 2 },
        "nobody is there" => Reply::PresenceStats { clients: 0, users: 0 },
        "message 18" => return Says::Event(Event::Message(Arc::new(message(18, "text")))),
        "void 19" => return Says::Event(Event::Message(Arc::new(message(19, "void")))),
        "joined" => return Says::Event(Event::Join(client())),
        "left" => return Says::Event(Event::Leave(client())),
        "bob types" => {
            let user = UserId::parse("bob").unwrap();
            return Says::Event(Event::Typing(Typing { user, typing: true }));
        }
        "bob calls" => {
            let (user, name) = (UserId::parse("bob").unwrap(), SignalName::parse("call_offer").unwrap());
            let data = Some(Body::from_json("{\n\"sdp\": 9007199254740993}"));
            return Says::Event(Event::Signal(Signal { conversation: None, user, name, data }));
        }
        "bob was here" => {
            let user = UserId::parse("bob").unwrap();
            return Says::Reply(Reply::UserPresence(vec![Online {
                user,
                online: false,
                last_seen: Some(7),
            }]));
        }
        "done" => return Says::Reply(Reply::Done),
        "stored" => return Says::Stored(Stored { conversation: room(), upto: Seq(18) }),
        "removed" => return Says::Unsubscribe(centrifuge::Unsubscribe::Removed),
        "missed something" => return Says::Unsubscribe(centrifuge::Unsubscribe::InsufficientState),
        other => return says_by_code(other),
    })
}

fn says_by_code(name: &str) -> Says {
    if let Some(refusal) = Refusal::ALL.into_iter().find(|refusal| refusal.code() == name) {
        return Says::Reply(Reply::Refused(refusal));
    }
    let ends = |why: &Disconnect| name.strip_prefix("disconnect ") == Some(why.reason());
    Says::Disconnect(Disconnect::ALL.into_iter().find(ends).unwrap_or_else(|| panic!("nobody says {name:?}")))
}

fn room() -> ConversationId {
    ConversationId::parse("conv_1_2").unwrap()
}

fn client() -> ClientInfo {
    ClientInfo {
        user: UserId::parse("1").unwrap(),
        client: ConnectionId(Uuid::from_u128(0xc1)),
        info: Some(Body::from_json(r#"{"name":"Zoë"}"#)),
    }
}

fn connected(ttl: Option<u32>, catchup: Catchup) -> Connected {
    let personal = ConversationId::personal(&client().user);
    let subscribed = Subscribed { epoch: "aQ".to_owned(), seq: Seq(17), catchup };
    Connected { client: client().client, ttl, subscriptions: vec![(personal, subscribed)] }
}

fn message(seq: u64, kind: &str) -> Message {
    Message {
        id: MessageId(Uuid::from_u128(u128::from(seq))),
        conversation: room(),
        seq: Seq(seq),
        prev: Seq(seq - 1),
        time: 1_700_000_000_000 + seq,
        sender: client().user,
        client_id: (kind == "text").then(|| ClientMessageId::parse("m-1").unwrap()),
        reply_to: None,
        kind: MessageKind::parse(kind).unwrap(),
        body: Body::from_json("{\"text\":\"Größe 😀\",\n\"n\":9007199254740993}"),
    }
}

fn page(messages: Vec<Message>) -> HistoryPage {
    HistoryPage { messages, states: vec![], epoch: "aQ".to_owned(), top: Seq(20) }
}
