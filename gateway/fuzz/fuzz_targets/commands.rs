//! Any bytes as a frame of the Centrifuge protocol: they decode within the limits or end the connection, and whatever decodes can
//! be answered, refused and passed on to others, each time in one line of valid JSON.
#![no_main]

use std::sync::Arc;

use gateway::protocol::centrifuge::{
    self, COMMANDS_PER_FRAME_MAX, HISTORY_MESSAGES_MAX, RESUME_MAX, TOKEN_BYTES_MAX, Tag,
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use shared::domain::{
    BODY_BYTES_MAX, Body, Catchup, ChatReply, ClientInfo, ClientMessageId, Command, Connect, Connected,
    ConnectionId, ConversationId, Event, HistoryPage, Message, MessageId, MessageKind, Online, Position,
    Receipt, Refusal, Reply, Send, SendSignal, Sent, Seq, Signal, Stored, Subscribe, Subscribed, Typing,
    UserId,
};
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    let Ok(commands) = centrifuge::decode(data) else { return };
    assert!((1..=COMMANDS_PER_FRAME_MAX).contains(&commands.len()));
    for (tag, command) in &commands {
        check_limits(command);
        for event in events(command) {
            check_line(|out| centrifuge::push(event.0, &event.1, out));
        }
        let answered = line(|out| centrifuge::reply(*tag, &reply(command), None, out));
        let refused = Refusal::ALL.map(|refusal| check_reply(*tag, &Reply::Refused(refusal)));
        assert!(refused.iter().all(|refused| *refused != answered.is_empty()), "answered always or never");
        check_reply(*tag, &reply(command));
    }
});

fn line(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Whether there was anything.
fn check_line(write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let line = line(write);
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "more than one line");
    if !line.is_empty() {
        serde_json::from_slice::<&RawValue>(&line).expect("valid JSON");
    }
    !line.is_empty()
}

fn check_reply(tag: Tag, reply: &Reply) -> bool {
    check_line(|out| centrifuge::reply(tag, reply, None, out))
}

fn check_limits(command: &Command) {
    match command {
        Command::Connect(Connect { token, resume }) => {
            assert!(token.0.len() <= TOKEN_BYTES_MAX && resume.len() <= RESUME_MAX);
        }
        Command::Refresh { token } => assert!(token.0.len() <= TOKEN_BYTES_MAX),
        Command::History(query) => assert!(query.limit <= HISTORY_MESSAGES_MAX),
        Command::Publish { body, .. } => check_body(body),
        Command::Send(send) => {
            check_body(&send.body);
            assert!(send.kind != MessageKind::VOID, "a client cannot hide a message");
        }
        _ => {}
    }
}

fn check_body(body: &Body) {
    assert!(body.as_bytes().len() <= BODY_BYTES_MAX);
    serde_json::from_slice::<&RawValue>(body.as_bytes()).expect("a body is JSON");
}

/// The success that the command would have, made of the client's own words wherever a reply repeats them.
fn reply(command: &Command) -> Reply {
    let subscribed = |position: Option<&Position>, missed: Vec<Message>| Subscribed {
        epoch: position.map(|position| position.epoch.clone()).unwrap_or_default(),
        seq: position.map(|position| position.seq).unwrap_or_default(),
        catchup: if position.is_some() { Catchup::Complete(missed) } else { Catchup::NotAsked },
    };
    match command {
        Command::Connect(Connect { resume, .. }) => {
            let subscriptions = resume.iter().map(|(conversation, position)| {
                (conversation.clone(), subscribed(Some(position), vec![plain(conversation)]))
            });
            Reply::Connected(Connected {
                client: client().client,
                ttl: Some(60),
                subscriptions: subscriptions.collect(),
            })
        }
        Command::Refresh { .. } => Reply::Refreshed { client: client().client, ttl: Some(0) },
        Command::Subscribe(Subscribe { conversation, recover, .. }) => {
            Reply::Subscribed(subscribed(recover.as_ref(), vec![plain(conversation)]))
        }
        Command::Unsubscribe(_) => Reply::Unsubscribed,
        Command::Publish { .. } => Reply::Published,
        Command::Send(_) => {
            Reply::Sent(Sent { id: MessageId(Uuid::nil()), seq: Seq(u64::MAX), time: u64::MAX })
        }
        Command::History(query) => Reply::History(HistoryPage {
            messages: vec![plain(&query.conversation)],
            epoch: query.since.as_ref().map(|since| since.epoch.clone()).unwrap_or_default(),
            top: query.since.as_ref().map(|since| since.seq).unwrap_or_default(),
            states: Vec::new(),
        }),
        Command::Presence(_) => Reply::Presence(vec![client()]),
        Command::PresenceStats(_) => Reply::PresenceStats { clients: 1, users: 1 },
        Command::Typing { .. } | Command::Signal(_) => Reply::Done,
        Command::UserPresence(users) => {
            let online = |user: &UserId| Online { user: user.clone(), online: false, last_seen: Some(1) };
            Reply::UserPresence(users.iter().map(online).collect())
        }
        Command::Connections => Reply::Connections(Vec::new()),
        Command::Chat(_) => Reply::Chat(ChatReply::Receipts(vec![Receipt {
            user: client().user,
            read: Seq(u64::MAX),
            delivered: Seq(u64::MAX),
        }])),
        Command::Pong => Reply::Published,
        Command::Unsupported(refusal) => Reply::Refused(*refusal),
    }
}

/// What others in the conversation would be told.
fn events(command: &Command) -> Vec<(&ConversationId, Event)> {
    match command {
        Command::Publish { conversation, body } => {
            let message = message(conversation, MessageKind::TEXT, None, body.clone());
            // What was said is what others see, and what a page of history shows.
            shown_in_history(&message);
            vec![(conversation, Event::Message(Arc::new(message)))]
        }
        Command::Send(Send { conversation, client_id, kind, body, .. }) => {
            let message = message(conversation, kind.clone(), client_id.clone(), body.clone());
            shown_in_history(&message);
            check_line(|out| {
                centrifuge::stored_push(&Stored { conversation: conversation.clone(), upto: Seq(1) }, out);
            });
            vec![(conversation, Event::Message(Arc::new(message)))]
        }
        Command::Subscribe(Subscribe { conversation, .. }) => {
            vec![(conversation, Event::Join(client())), (conversation, Event::Leave(client()))]
        }
        Command::Typing { conversation, typing } => {
            vec![(conversation, Event::Typing(Typing { user: client().user, typing: *typing }))]
        }
        Command::Signal(SendSignal { conversation, name, data, .. }) => {
            let (name, data) = (name.clone(), data.clone());
            let signal = Signal { conversation: None, user: client().user, name, data };
            vec![(conversation, Event::Signal(signal))]
        }
        _ => Vec::new(),
    }
}

/// Both spellings of history have to carry the message, so both are asked for.
fn shown_in_history(message: &Message) {
    let asked: [&[u8]; 2] = [
        br#"{"id":1,"history":{"channel":"a","limit":1}}"#,
        br#"{"id":1,"rpc":{"method":"history","data":{"conversation":"a"}}}"#,
    ];
    for frame in asked {
        let (tag, _) = centrifuge::decode(frame).expect("a good command").remove(0);
        let page = HistoryPage {
            messages: vec![message.clone()],
            states: Vec::new(),
            epoch: "e".to_owned(),
            top: message.seq,
        };
        assert!(check_reply(tag, &Reply::History(page)));
    }
}

fn message(
    conversation: &ConversationId,
    kind: MessageKind,
    client_id: Option<ClientMessageId>,
    body: Body,
) -> Message {
    Message {
        id: MessageId(Uuid::nil()),
        conversation: conversation.clone(),
        seq: Seq(2),
        prev: Seq(1),
        time: 0,
        sender: client().user,
        client_id,
        reply_to: None,
        kind,
        body,
    }
}

fn plain(conversation: &ConversationId) -> Message {
    message(conversation, MessageKind::TEXT, None, Body::from_json("{}"))
}

fn client() -> ClientInfo {
    ClientInfo {
        user: UserId::parse("alice").expect("a user"),
        client: ConnectionId(Uuid::nil()),
        info: None,
    }
}
