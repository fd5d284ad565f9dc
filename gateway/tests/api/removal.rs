//! Who is removed from a group hears nothing more of it, wherever it is connected.

use std::{sync::atomic::Ordering, time::Instant};

use loadtest::client::Push;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use crate::node::{PATIENCE, Site, TestNode, next, next_text, token};

async fn remove_bob(node: &TestNode, id: &str) {
    let path = format!("/v1/conversations/{id}/members/bob");
    assert_eq!(node.ask("DELETE", &path, &token("alice"), None).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_sent_away_on_every_node() {
    removal_reaches_the_other_node(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_sent_away_although_the_announcement_was_lost() {
    removal_reaches_the_other_node(false).await;
}

async fn removal_reaches_the_other_node(hears: bool) {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    two.hears.store(hears, Ordering::SeqCst);
    let id = one.group(&["bob", "carol"]).await;
    let (alice, bob) = (token("alice"), token("bob"));
    let (near, mut near_pushes) = one.connect("bob").await;
    let (far, mut far_pushes) = two.connect("bob").await;
    let (carol, mut carol_pushes) = two.connect("carol").await;
    for client in [&near, &far, &carol] {
        client.subscribe(&id, None).await.unwrap();
    }
    assert_eq!(one.send(&alice, &id, "before").await.status, 200);
    for pushes in [&mut near_pushes, &mut far_pushes, &mut carol_pushes] {
        assert_eq!(next_text(pushes).await, (id.clone(), "before".to_owned()));
    }

    remove_bob(&one, &id).await;
    for pushes in [&mut near_pushes, &mut far_pushes] {
        let push = next(pushes).await;
        assert!(matches!(&push, Push::Unsubscribed(channel, 2000) if *channel == id), "{push:?}");
    }
    assert_eq!(one.send(&alice, &id, "after").await.status, 200);
    assert_eq!(next_text(&mut carol_pushes).await.1, "after");
    // What follows on the same connection comes after all that was on the way.
    assert_eq!(one.send(&alice, "conv_alice_bob", "direct").await.status, 200);
    for client in [&near, &far] {
        assert!(client.subscribe(&id, None).await.is_err());
        client.subscribe("conv_alice_bob", None).await.unwrap();
    }
    assert_eq!(one.send(&alice, "conv_alice_bob", "last").await.status, 200);
    for pushes in [&mut near_pushes, &mut far_pushes] {
        assert_eq!(next_text(pushes).await, ("conv_alice_bob".to_owned(), "last".to_owned()));
    }
    for node in [&one, &two] {
        assert_eq!(node.send(&bob, &id, "still here?").await.problem(), (403, "forbidden".to_owned()));
    }
    let presence = carol.presence(&id).await.unwrap();
    assert!(presence.values().all(|info| info.user == "carol"), "{presence:?}");

    // Back in, it is a member like any other.
    let add = Some(json!({ "members": ["bob"] }));
    assert_eq!(one.ask("POST", &format!("/v1/conversations/{id}/members"), &alice, add).await.status, 204);
    let deadline = Instant::now() + PATIENCE;
    while far.subscribe(&id, None).await.is_err() {
        assert!(Instant::now() < deadline, "a new member is kept out");
    }
    assert_eq!(one.send(&alice, &id, "again").await.status, 200);
    assert_eq!(next_text(&mut far_pushes).await, (id, "again".to_owned()));
}

/// A client on an HTTP stream, line by line.
struct Stream {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    _write: tokio::net::tcp::OwnedWriteHalf,
}

impl Stream {
    async fn open(node: &TestNode, user: &str) -> (Self, Value) {
        let connect = json!({ "id": 1, "connect": { "token": token(user) } }).to_string();
        let request = format!(
            "POST /connection/http_stream HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{connect}",
            node.address,
            connect.len()
        );
        let (read, mut write) = TcpStream::connect(&node.address).await.unwrap().into_split();
        write.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self { lines: BufReader::new(read).lines(), _write: write };
        let connected = stream.until("connect").await;
        (stream, connected["connect"].clone())
    }

    /// The next line that has this key.
    async fn until(&mut self, key: &str) -> Value {
        loop {
            let line =
                tokio::time::timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap().unwrap();
            // Lines between are the head, and the sizes of chunks.
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value.get(key).is_some()
            {
                return value;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_on_an_http_stream_is_sent_away_too() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let id = one.group(&["bob"]).await;
    let (mut stream, connected) = Stream::open(&two, "bob").await;
    let subscribe = json!({ "id": 2, "subscribe": { "channel": id } }).to_string();
    let command = json!({ "session": connected["session"], "node": connected["node"], "data": subscribe });
    // By the other node, which hands it on.
    assert_eq!(one.ask("POST", "/emulation", "", Some(command)).await.status, 204);
    stream.until("subscribe").await;
    remove_bob(&one, &id).await;
    let push = loop {
        let push = stream.until("push").await["push"].clone();
        if push.get("unsubscribe").is_some() {
            break push;
        }
    };
    assert_eq!((&push["channel"], &push["unsubscribe"]["code"]), (&json!(id), &json!(2000)));
}
