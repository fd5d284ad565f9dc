//! A conversation of others and one that does not exist answer alike, whatever is asked and by whatever way.

use serde_json::json;

use crate::node::{Site, token};

/// Ids that nobody has: of each kind, and some that are none.
const NOBODYS: [&str; 5] =
    ["0198a7c0-0000-7000-8000-000000000000", "no-such-group", "user:nobody", "conv_x_y", "conv_a_b_c"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_http() {
    let site = Site::new();
    let node = site.start("one").await;
    let group = node.group(&["bob"]).await;
    for sender in ["alice", "bob"] {
        node.send(&token(sender), &group, "secret").await;
        node.send(&token(sender), "conv_alice_bob", "secret").await;
    }
    let eve = token("eve");
    let body = json!({ "body": 1 });
    let operations = [
        ("GET", "/messages", None),
        ("GET", "/messages?before=3", None),
        ("GET", "/messages?after=0", None),
        ("POST", "/messages", Some(body)),
        ("GET", "/members", None),
        ("POST", "/members", Some(json!({ "members": ["eve"] }))),
        ("DELETE", "/members/alice", None),
        ("DELETE", "/members/eve", None),
    ];
    for (method, path, body) in operations {
        let mut answers = Vec::new();
        for id in NOBODYS.into_iter().chain([group.as_str(), "conv_alice_bob", "user:alice", "%7B%7D"]) {
            let mut answer =
                node.ask(method, &format!("/v1/conversations/{id}{path}"), &eve, body.clone()).await;
            assert_eq!(answer.problem(), (403, "forbidden".to_owned()), "{method} {id}{path}");
            answer.headers.retain(|(name, _)| name != "date");
            answers.push(answer);
        }
        for answer in &answers {
            assert_eq!(answer, &answers[0], "{method} {path}");
        }
    }
    // Nothing of it has happened.
    assert_eq!(
        node.ask("GET", &format!("/v1/conversations/{group}/messages"), &token("bob"), None).await.json()["top"],
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_websocket() {
    let site = Site::new();
    let node = site.start("one").await;
    let group = node.group(&["bob"]).await;
    node.send(&token("alice"), &group, "secret").await;
    let (eve, _pushes) = node.connect("eve").await;
    for id in NOBODYS.into_iter().chain([group.as_str(), "conv_alice_bob", "user:alice"]) {
        let refusals = [
            ("subscribe", eve.subscribe(id, None).await.map(drop)),
            ("publish", eve.publish(id, "1").await),
            ("send", eve.send(id, "m", "1", false).await.map(drop)),
            (
                "history",
                eve.rpc::<serde_json::Value>("history", &json!({ "conversation": id })).await.map(drop),
            ),
            ("presence", eve.presence(id).await.map(drop)),
        ];
        for (operation, refusal) in refusals {
            let error = refusal.expect_err(operation).to_string();
            assert_eq!(error, "refused: 103 permission denied", "{operation} {id}");
        }
    }
}
