//! Properties of the whole codec, and the tables of the README.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use shared::domain::{
    Body, Catchup, ClientInfo, ClientMessageId, Connected, ConnectionId, ConversationId, Disconnect, Event,
    HistoryPage, Message, MessageId, MessageKind, Refusal, Reply, Sent, Seq, Subscribed, UserId,
};
use uuid::Uuid;

use super::{HTTP_STREAM, SSE, Tag, decode, encode, push, reply};

const README: &str = include_str!("README.md");

fn room() -> ConversationId {
    ConversationId::parse("conv_1_2").unwrap()
}

fn message(seq: u64, kind: &str, body: &str) -> Message {
    Message {
        id: MessageId(Uuid::from_u128(u128::from(seq))),
        conversation: room(),
        seq: Seq(seq),
        prev: Seq(seq - 1),
        time: 1_700_000_000_000 + seq,
        sender: UserId::parse("1").unwrap(),
        client_id: seq.is_multiple_of(2).then(|| ClientMessageId::parse("m-1").unwrap()),
        reply_to: None,
        kind: MessageKind::parse(kind).unwrap(),
        body: Body::from_json(body.to_owned()),
    }
}

fn pushed(message: Message) -> String {
    let mut out = Vec::new();
    push(&room(), &Event::Message(Arc::new(message)), &mut out);
    String::from_utf8(out).unwrap()
}

fn replied(is_rpc: bool, answer: &Reply) -> String {
    let mut out = Vec::new();
    reply(Tag { id: std::num::NonZeroU32::new(7), is_rpc }, answer, None, &mut out);
    String::from_utf8(out).unwrap()
}

/// Any JSON value, not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

/// The same value with line breaks between its tokens.
fn broken_over_lines(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap().replace('\n', "\r\n")
}

proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn decoding_anything_like_a_command_never_panics(
        key in "id|connect|refresh|subscribe|publish|history|rpc|send|presence|sub_refresh",
        inner in any_json(),
        field in "channel|data|method|token|subs|since|limit|type|tf|flag|x",
        cut in any::<prop::sample::Index>(),
    ) {
        let line = format!(r#"{{"id":1,"{key}":{{"{field}":{inner}}}}}"#);
        let _ = decode(line.as_bytes());
        let _ = decode(&line.as_bytes()[..cut.index(line.len())]);
    }

    #[test]
    fn a_body_reaches_the_client_on_one_line_and_unchanged(value in any_json()) {
        let body = broken_over_lines(&value);
        let line = pushed(message(4, "text", &body));
        prop_assert!(!line.contains(['\n', '\r']));
        let as_sent = body.replace(['\r', '\n'], " ");
        let carried = format!(r#"{{"data":{as_sent},"offset":4,"#);
        prop_assert!(line.contains(&carried));
        let parsed: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&parsed["push"]["pub"]["data"], &value);
    }

    #[test]
    fn a_publish_comes_back_as_it_was_sent(value in any_json()) {
        let line = format!(r#"{{"id":1,"publish":{{"channel":"conv_1_2","data":{value}}}}}"#);
        let commands = decode(line.as_bytes()).unwrap();
        let shared::domain::Command::Publish { body, .. } = &commands[0].1 else {
            return Err(TestCaseError::fail("not a publish"));
        };
        let text = value.to_string();
        prop_assert_eq!(body.as_bytes(), text.as_bytes());
    }

    #[test]
    fn an_http_stream_is_ascii_and_means_the_same(value in any_json()) {
        let line = pushed(message(4, "text", &value.to_string()));
        let stream = (HTTP_STREAM.frame)(format!("{line}\n{line}").as_bytes());
        prop_assert!(stream.is_ascii());
        let lines: Vec<&str> = std::str::from_utf8(&stream).unwrap().split_terminator('\n').collect();
        prop_assert_eq!(lines.len(), 2);
        for sent in lines {
            prop_assert_eq!(
                serde_json::from_str::<Value>(sent).unwrap(),
                serde_json::from_str::<Value>(&line).unwrap()
            );
        }
    }

    #[test]
    fn every_event_of_a_stream_is_one_line_of_data(value in any_json()) {
        let line = pushed(message(4, "text", &broken_over_lines(&value)));
        let stream = (SSE.frame)(line.as_bytes());
        prop_assert_eq!(std::str::from_utf8(&stream).unwrap(), format!("data: {line}\n\n"));
    }
}

fn every_reply() -> Vec<Reply> {
    let catchups = [
        Catchup::NotAsked,
        Catchup::Limited,
        Catchup::Complete(vec![]),
        Catchup::Complete(vec![
            message(1, "text", "1"),
            message(2, "void", "null"),
            message(3, "text", "{}"),
        ]),
    ];
    let subscribed = |catchup| Subscribed { epoch: "a\"b".to_owned(), seq: Seq(0), catchup };
    let client = ConnectionId(Uuid::from_u128(9));
    let info = ClientInfo {
        user: UserId::parse("1").unwrap(),
        client,
        info: Some(Body::from_json("{\n\"name\":\"Ä\"}")),
    };
    let page = HistoryPage {
        messages: vec![message(1, "text", "[\n]"), message(2, "void", "null")],
        states: vec![],
        epoch: "e".to_owned(),
        top: Seq(0),
    };
    let mut all = vec![
        Reply::Connected(Connected { client, ttl: None, subscriptions: vec![] }),
        Reply::Connected(Connected {
            client,
            ttl: Some(0),
            subscriptions: catchups.iter().cloned().map(|catchup| (room(), subscribed(catchup))).collect(),
        }),
        Reply::Refreshed { client, ttl: Some(3600) },
        Reply::Unsubscribed,
        Reply::Published,
        Reply::Sent(Sent { id: MessageId(Uuid::nil()), seq: Seq(4), time: 5 }),
        Reply::History(page),
        Reply::Presence(vec![info.clone(), info]),
        Reply::PresenceStats { clients: 0, users: 0 },
    ];
    all.extend(catchups.map(|catchup| Reply::Subscribed(subscribed(catchup))));
    all.extend(Refusal::ALL.map(Reply::Refused));
    all
}

#[test]
fn every_reply_is_one_line_of_json_under_its_id() {
    for answer in every_reply() {
        for is_rpc in [false, true] {
            let line = replied(is_rpc, &answer);
            assert!(!line.contains('\n'), "{line}");
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let object = value.as_object().unwrap();
            assert_eq!((object["id"].as_u64(), object.len()), (Some(7), 2), "{line}");
        }
    }
}

#[test]
fn what_wants_no_reply_gets_none() {
    let (tag, _) = decode(br#"{"send":{"data":{"method":"send"}}}"#).unwrap().remove(0);
    for answer in every_reply() {
        let mut out = Vec::new();
        reply(tag, &answer, None, &mut out);
        assert!(out.is_empty());
    }
}

#[test]
fn void_messages_are_seen_in_the_chain_alone() {
    assert_eq!(pushed(message(2, "void", "null")), "");
    let page = Reply::History(HistoryPage {
        messages: vec![message(1, "text", "1"), message(2, "void", "null"), message(3, "text", "3")],
        states: vec![],
        epoch: "e".to_owned(),
        top: Seq(3),
    });
    assert!(!replied(false, &page).contains("void"));
    assert!(replied(true, &page).contains(r#""seq":2,"prev":1"#));

    let event = |seq, kind| Event::Message(Arc::new(message(seq, kind, "1")));
    let batch = |events: &[Event]| (HTTP_STREAM.batch)(&room(), events);
    assert!(batch(&[event(1, "void"), event(2, "void")]).is_empty());
    let around = [event(1, "void"), event(2, "text"), event(3, "void"), event(4, "text"), event(5, "void")];
    assert_eq!(batch(&around), batch(&[event(2, "text"), event(4, "text")]));
    let lines = String::from_utf8(batch(&around).to_vec()).unwrap();
    assert_eq!(lines.lines().filter(|line| !line.is_empty()).count(), 2);
}

/// The rows of the README's table under a heading, cell by cell, without its head.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).expect("the README has this section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
    let table = section.lines().filter(|line| line.starts_with('|')).skip(2);
    table.map(|row| cells(row.trim_matches('|'))).collect()
}

#[test]
fn the_readme_lists_every_error() {
    let mut expected: Vec<_> = Refusal::ALL
        .map(|refusal| (encode::error_code(refusal), refusal.code()))
        .map(|((code, temporary), name)| (code, name, if temporary { "yes" } else { "no" }))
        .into();
    expected.sort_unstable();
    let expected: Vec<_> = expected
        .iter()
        .map(|(code, name, again)| vec![(*name).to_owned(), code.to_string(), (*again).to_owned()])
        .collect();
    assert_eq!(rows("Errors"), expected);
}

#[test]
fn the_readme_lists_every_disconnect() {
    let comes_back = |code| (3000..3500).contains(&code);
    let expected: Vec<_> = Disconnect::ALL
        .iter()
        .filter(|why| **why != Disconnect::ConnectionClosed)
        .map(|why| {
            let again = if comes_back(why.code()) { "yes" } else { "no" };
            vec![why.reason().to_owned(), why.code().to_string(), again.to_owned()]
        })
        .collect();
    let mut listed = rows("Disconnects");
    let mut sorted = expected;
    listed.sort();
    sorted.sort();
    assert_eq!(listed, sorted);
}
