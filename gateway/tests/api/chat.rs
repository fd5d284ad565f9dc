//! Who may do what to conversations, members and messages, and what comes of it.

use gateway::api_key::Scope;
use loadtest::client::Push;
use serde_json::{Value, json};

use crate::node::{Answer, Site, TestNode, token};

const NO: &str = "forbidden";

/// A group of alice's with a member, an observer, a muted member, and one who was removed.
async fn crew(node: &TestNode) -> String {
    let members = json!([{ "user": "mod", "role": "moderator" }, "bob", { "user": "olga", "role": "observer" }, "mute", "gone"]);
    let made = json!({ "kind": "group", "members": members });
    let made = node.ask("POST", "/v1/conversations", &token("alice"), Some(made)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/conversations/{id}");
    let alice = token("alice");
    assert_eq!(
        node.ask("PUT", &format!("{path}/members/mute/mute"), &alice, Some(json!({}))).await.status,
        204
    );
    assert_eq!(node.ask("DELETE", &format!("{path}/members/gone"), &alice, None).await.status, 204);
    id
}

fn code(answer: &Answer) -> String {
    if (200..300).contains(&answer.status) { "ok".to_owned() } else { answer.problem().1 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_what_its_table_says() {
    let site = Site::new();
    let node = site.start("one").await;
    let id = crew(&node).await;
    let path = format!("/v1/conversations/{id}");
    let seq = node.send(&token("alice"), &id, "first").await.json()["seq"].as_u64().unwrap();
    let message = format!("/messages/{seq}");
    let operations: Vec<(&str, String, Option<Value>, [&str; 6])> = vec![
        // By a stranger, one who was removed, a muted member, an observer, a member, a moderator.
        ("POST", "/messages".to_owned(), Some(json!({ "body": 1 })), [NO, NO, "muted", NO, "ok", "ok"]),
        ("PATCH", message.clone(), Some(json!({ "body": 2 })), [NO, NO, "muted", NO, NO, NO]),
        ("PUT", format!("{message}/reactions/x"), None, [NO, NO, "muted", NO, "ok", "ok"]),
        ("DELETE", format!("{message}/reactions/x"), None, [NO, NO, "muted", NO, "ok", "ok"]),
        ("POST", "/members".to_owned(), Some(json!({ "members": ["new"] })), [NO, NO, "muted", NO, NO, "ok"]),
        (
            "PATCH",
            "/members/bob".to_owned(),
            Some(json!({ "role": "observer" })),
            [NO, NO, "muted", NO, NO, NO],
        ),
        ("PUT", "/members/new/mute".to_owned(), Some(json!({})), [NO, NO, "muted", NO, NO, "ok"]),
        ("DELETE", "/members/new/mute".to_owned(), None, [NO, NO, "muted", NO, NO, "ok"]),
        ("PUT", "/bans/spam".to_owned(), Some(json!({})), [NO, NO, "muted", NO, NO, "ok"]),
        ("DELETE", "/bans/spam".to_owned(), None, [NO, NO, "muted", NO, NO, "ok"]),
        ("DELETE", "/members/new".to_owned(), None, [NO, NO, "muted", NO, NO, "ok"]),
        ("DELETE", "/members/alice".to_owned(), None, [NO, NO, "muted", NO, NO, NO]),
        ("PUT", "/bans/alice".to_owned(), Some(json!({})), [NO, NO, "muted", NO, NO, NO]),
        ("PUT", "/members/alice/mute".to_owned(), Some(json!({})), [NO, NO, "muted", NO, NO, NO]),
        ("PATCH", String::new(), Some(json!({ "name": "Crew" })), [NO, NO, "muted", NO, NO, "ok"]),
        ("DELETE", message.clone(), None, [NO, NO, "muted", NO, NO, "ok"]),
        ("GET", "/messages".to_owned(), None, [NO, NO, "ok", "ok", "ok", "ok"]),
        ("GET", "/members".to_owned(), None, [NO, NO, "ok", "ok", "ok", "ok"]),
        ("GET", "/receipts".to_owned(), None, [NO, NO, "ok", "ok", "ok", "ok"]),
        ("GET", String::new(), None, [NO, NO, "ok", "ok", "ok", "ok"]),
        ("PUT", "/read".to_owned(), Some(json!({ "seq": 1 })), [NO, NO, "ok", "ok", "ok", "ok"]),
        ("PUT", "/delivered".to_owned(), Some(json!({ "seq": 1 })), [NO, NO, "ok", "ok", "ok", "ok"]),
    ];
    for (method, rest, body, expected) in operations {
        for (user, expected) in ["eve", "gone", "mute", "olga", "bob", "mod"].into_iter().zip(expected) {
            let answer = node.ask(method, &format!("{path}{rest}"), &token(user), body.clone()).await;
            assert_eq!(code(&answer), expected, "{method} {rest} by {user}: {answer:?}");
        }
    }
    for user in ["eve", "gone"] {
        let answer = node.ask("POST", &format!("{path}/leave"), &token(user), None).await;
        assert_eq!(code(&answer), NO);
    }
    for user in ["mute", "olga"] {
        assert_eq!(node.ask("POST", &format!("{path}/leave"), &token(user), None).await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_owner_leaves_to_a_moderator_and_is_not_made_less() {
    let site = Site::new();
    let node = site.start("one").await;
    let id = crew(&node).await;
    let path = format!("/v1/conversations/{id}");
    let alice = token("alice");
    let less =
        node.ask("PATCH", &format!("{path}/members/alice"), &alice, Some(json!({ "role": "member" }))).await;
    assert_eq!(code(&less), "invalid");
    let unknown =
        node.ask("PATCH", &format!("{path}/members/bob"), &alice, Some(json!({ "role": "pope" }))).await;
    assert_eq!(code(&unknown), "invalid");
    assert_eq!(node.ask("POST", &format!("{path}/leave"), &alice, None).await.status, 204);
    let shown = node.ask("GET", &path, &token("mod"), None).await.json();
    assert_eq!(shown["role"], "owner", "{shown}");
    assert_eq!(code(&node.ask("GET", &path, &alice, None).await), NO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_has_its_own_roles_and_nobody_else_makes_them() {
    let site = Site::new();
    let node = site.start("one").await;
    let made = json!({ "kind": "dispute", "members": [{ "user": "mod", "role": "moderator" }] });
    let made = node.ask("POST", "/v1/conversations", &token("ann"), Some(made)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let shown = node.ask("GET", &format!("/v1/conversations/{id}"), &token("ann"), None).await.json();
    assert_eq!((&shown["role"], &shown["kind"]), (&json!("client"), &json!("dispute")));
    assert_eq!(node.send(&token("ann"), &id, "help").await.status, 200);
    for bad in [
        json!({ "kind": "order", "members": [] }),
        json!({ "kind": "group", "members": [{ "user": "bob", "role": "client" }] }),
        json!({ "kind": "direct", "members": [{ "user": "bob", "role": "owner" }] }),
    ] {
        let answer = node.ask("POST", "/v1/conversations", &token("ann"), Some(bad.clone())).await;
        assert_eq!(code(&answer), "invalid", "{bad}");
    }
    for kind in ["void", "edit", "delete", "reaction", "members", "conversation"] {
        for bearer in [token("ann"), site.key(Scope::Publish).to_owned()] {
            let body = json!({ "body": 1, "kind": kind });
            let answer =
                node.ask("POST", &format!("/v1/conversations/{id}/messages"), &bearer, Some(body)).await;
            assert_eq!(code(&answer), "invalid", "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_open_the_same_direct_conversation_at_once() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    for n in 0..10 {
        let (ann, bob) = (format!("ann{n}"), format!("bob{n}"));
        let make = async |node: &TestNode, by: &str, other: &str| {
            let body = json!({ "kind": "direct", "members": [other] });
            node.ask("POST", "/v1/conversations", &token(by), Some(body)).await
        };
        let (first, second) = tokio::join!(make(&one, &ann, &bob), make(&two, &bob, &ann));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        assert_eq!(first.json(), second.json());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_receipts_reach_members_on_the_other_node() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let id = one.group(&["bob"]).await;
    let path = format!("/v1/conversations/{id}");
    let (bob, mut pushes) = two.connect("bob").await;
    bob.subscribe(&id, None).await.unwrap();
    let alice = token("alice");
    one.send(&alice, &id, "first").await;
    let message = format!("{path}/messages/1");
    let edit = r#"{"body":{ "n":9007199254740993,"a":1,"a":2 }}"#;
    assert_eq!(one.raw("PATCH", &message, &alice, &[], edit).await.status, 200);
    one.ask("PUT", &format!("{message}/reactions/%F0%9F%91%8D"), &token("bob"), None).await;
    one.ask("DELETE", &message, &alice, None).await;
    one.ask("PUT", &format!("{path}/members/bob/mute"), &alice, Some(json!({}))).await;
    let mut kinds = Vec::new();
    while kinds.len() < 5 {
        let push = tokio::time::timeout(crate::node::PATIENCE, pushes.next()).await.unwrap().unwrap();
        if let Push::Publication(channel, publication) = push
            && channel == id
        {
            let kind = publication.tags["kind"].clone();
            if kind == "edit" {
                assert!(publication.data.get().ends_with(r#""body":{ "n":9007199254740993,"a":1,"a":2 }}"#));
                assert_eq!(publication.tags["reply_to"], "1");
            }
            kinds.push(kind);
        }
    }
    assert_eq!(kinds, ["text", "edit", "reaction", "delete", "members"]);
    one.ask("PUT", &format!("{path}/read"), &alice, Some(json!({ "seq": 3 }))).await;
    let event = loop {
        let push = tokio::time::timeout(crate::node::PATIENCE, pushes.next()).await.unwrap().unwrap();
        if let Push::Event(channel, name, data) = push
            && channel == id
        {
            break (name, data);
        }
    };
    assert_eq!(event.0, "receipt");
    let receipts = one.ask("GET", &format!("{path}/receipts"), &alice, None).await.json();
    assert_eq!(receipts, json!({ "receipts": [{ "user": "alice", "read": 3, "delivered": 3 }] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_of_existing_apps_mean_the_same() {
    let site = Site::new();
    let node = site.start("one").await;
    let id = node.group(&["bob"]).await;
    let (alice, bob) = (token("alice"), token("bob"));
    let body = json!({ "conversation": id, "body": { "text": "hi" } });
    assert_eq!(node.ask("POST", "/api/messages/send", &alice, Some(body)).await.json()["seq"], 1);
    let list = node.ask("GET", "/api/messages/conversations", &bob, None).await.json();
    assert_eq!(list["conversations"][0]["id"], id.as_str());
    let path = format!("/api/messages/conversations/{id}");
    assert_eq!(node.ask("GET", &path, &bob, None).await.json()["id"], id.as_str());
    assert_eq!(node.ask("PUT", &format!("{path}/read"), &bob, Some(json!({ "seq": 1 }))).await.status, 204);
    assert_eq!(code(&node.ask("GET", &path, &token("eve"), None).await), NO);
}
