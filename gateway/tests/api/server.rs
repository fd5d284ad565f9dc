//! What application servers do, each key within its scopes.

use gateway::api_key::Scope;
use loadtest::client::Push;
use serde_json::{Value, json};

use crate::node::{Site, next, next_text, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_what_its_scope_names_and_nothing_else() {
    let site = Site::new();
    let node = site.start("one").await;
    let id = node.group(&["bob"]).await;
    let (conversation, user) = (format!("/v1/conversations/{id}"), "/v1/users/bob");
    let message = json!({ "body": 1 });
    let operations = [
        (Scope::Publish, "POST", format!("{conversation}/messages"), Some(message.clone())),
        (Scope::Publish, "POST", format!("{user}/messages"), Some(message.clone())),
        (
            Scope::Publish,
            "POST",
            "/v1/publish".to_owned(),
            Some(json!({ "messages": [{ "user": "bob", "body": 1 }] })),
        ),
        (Scope::Publish, "POST", "/v1/broadcast".to_owned(), Some(json!({ "users": ["bob"], "body": 1 }))),
        (
            Scope::Conversations,
            "POST",
            "/v1/conversations".to_owned(),
            Some(json!({ "kind": "group", "members": ["bob"] })),
        ),
        (Scope::Conversations, "GET", format!("{conversation}/members"), None),
        (
            Scope::Conversations,
            "POST",
            format!("{conversation}/members"),
            Some(json!({ "members": ["dan"] })),
        ),
        (Scope::Conversations, "DELETE", format!("{conversation}/members/dan"), None),
        (Scope::History, "GET", format!("{conversation}/messages"), None),
        (Scope::Users, "GET", format!("{user}/conversations"), None),
        (Scope::Revoke, "POST", "/v1/revocations".to_owned(), Some(json!({ "user": "mallory" }))),
    ];
    for (needed, method, path, body) in operations {
        for scope in Scope::ALL {
            let answer = node.ask(method, &path, site.key(scope), body.clone()).await;
            if scope == needed {
                assert!((200..300).contains(&answer.status), "{method} {path} by {scope:?}: {answer:?}");
            } else {
                assert_eq!(answer.problem(), (403, "forbidden".to_owned()), "{method} {path} by {scope:?}");
                assert!(answer.body.contains(needed.as_str()), "{answer:?}");
            }
        }
        for stranger in ["sk_", "sk_0123", &site.key(needed)[..60]] {
            let answer = node.ask(method, &path, stranger, body.clone()).await;
            assert_eq!(answer.problem(), (401, "unauthorized".to_owned()), "{method} {path}");
        }
    }
    for path in ["/v1/publish", "/v1/broadcast", "/v1/users/bob/messages"] {
        let body = json!({ "messages": [{ "user": "bob", "body": 1 }] });
        let body = if path == "/v1/publish" { body } else { message.clone() };
        assert_eq!(node.ask("POST", path, &token("bob"), Some(body)).await.status, 403, "{path}");
    }
    let own = json!({ "user": "bob" });
    assert_eq!(node.ask("POST", "/v1/revocations", &token("bob"), Some(own)).await.status, 403);
    assert_eq!(node.ask("GET", "/v1/users/bob/conversations", &token("bob"), None).await.status, 403);
    assert_eq!(node.ask("GET", "/v1/conversations", site.key(Scope::Users), None).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_reaches_conversations_and_users_on_every_node() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let key = site.key(Scope::Publish);
    let (bob, mut pushes) = two.connect("bob").await;
    bob.subscribe("conv_bob_carol", None).await.unwrap();
    let sent = one.send(key, "conv_bob_carol", "to the conversation").await;
    assert_eq!(sent.json()["seq"], 1);
    let Push::Publication(_, publication) = next(&mut pushes).await else { panic!("no publication") };
    assert_eq!(publication.info.user, "$server");

    // By the personal room, without a subscription.
    let named = [("idempotency-key", "n-1")];
    let body = json!({ "body": { "text": "to the user" } });
    let first = one.ask_with("POST", "/v1/users/bob/messages", key, &named, Some(body.clone())).await;
    assert_eq!(next_text(&mut pushes).await, ("user:bob".to_owned(), "to the user".to_owned()));
    let again = two.ask_with("POST", "/v1/users/bob/messages", key, &named, Some(body)).await;
    assert_eq!((again.status, again.json()), (200, first.json()));

    let history =
        one.ask("GET", "/v1/conversations/conv_bob_carol/messages", &token("carol"), None).await.json();
    assert_eq!(history["messages"][0]["sender"], "$server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_message_by_message() {
    let site = Site::new();
    let node = site.start("one").await;
    let key = site.key(Scope::Publish);
    let batch = json!({ "messages": [
        { "conversation": "conv_alice_bob", "body": { "text": "1" }, "client_id": "a" },
        { "conversation": "conv_alice_bob", "body": { "text": "2" }, "kind": "void" },
        { "conversation": "conv_alice_bob", "body": "x".repeat(33_000) },
        { "user": "bob", "body": { "text": "3" }, "client_id": "a" },
        { "conversation": "kept-by-the-application", "body": { "text": "4" } },
        { "conversation": "conv_alice_bob", "body": { "text": "1" }, "client_id": "a" },
    ] });
    let answer = node.ask("POST", "/v1/publish", key, Some(batch)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].clone();
    let codes: Vec<&Value> = (0..6).map(|at| &results[at]["problem"]["code"]).collect();
    assert_eq!(
        codes,
        [&Value::Null, &json!("invalid"), &json!("too_large"), &Value::Null, &Value::Null, &Value::Null]
    );
    assert_eq!(results[3]["conversation"], "user:bob");
    assert_eq!(results[5]["sent"], results[0]["sent"], "the same name is the same message");
    assert_ne!(results[3]["sent"]["id"], results[0]["sent"]["id"]);
    for bad in [
        json!({ "messages": [] }),
        json!({ "messages": [{ "body": 1 }] }),
        json!({ "messages": [{ "user": "bob", "conversation": "x", "body": 1 }] }),
    ] {
        assert_eq!(node.ask("POST", "/v1/publish", key, Some(bad)).await.problem().0, 400);
    }
    let many = json!({ "messages": vec![json!({ "user": "bob", "body": 1 }); 1_001] });
    assert_eq!(
        node.ask("POST", "/v1/publish", key, Some(many)).await.problem(),
        (413, "too_large".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_can_be_repeated_as_a_whole() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let key = site.key(Scope::Publish);
    let users: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    let broadcast = json!({ "users": users, "conversations": ["news", "news"], "body": { "text": "hello" } });
    let named = [("idempotency-key", "b-1")];
    let (_first, mut pushes) = two.connect("u7").await;
    let first = one.ask_with("POST", "/v1/broadcast", key, &named, Some(broadcast.clone())).await;
    let results = first.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), 41);
    assert!(results.iter().all(|result| result["sent"]["seq"] == 1), "{results:?}");
    assert_eq!(next_text(&mut pushes).await, ("user:u7".to_owned(), "hello".to_owned()));
    let again = two.ask_with("POST", "/v1/broadcast", key, &named, Some(broadcast)).await;
    assert_eq!(again.json(), first.json());
    let empty = one.ask("POST", "/v1/broadcast", key, Some(json!({ "body": 1 }))).await;
    assert_eq!(empty.problem(), (400, "invalid".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_manages_conversations_of_others() {
    let site = Site::new();
    let node = site.start("one").await;
    let key = site.key(Scope::Conversations);
    let group = json!({ "kind": "group", "name": "Lunch", "members": ["bob"] });
    let made = node.ask("POST", "/v1/conversations", key, Some(group)).await.json();
    assert_eq!(made["members"], json!(["bob"]));
    let members = format!("/v1/conversations/{}/members", made["id"].as_str().unwrap());
    assert_eq!(node.ask("POST", &members, key, Some(json!({ "members": ["ann"] }))).await.status, 204);
    assert_eq!(node.ask("DELETE", &format!("{members}/bob"), key, None).await.status, 204);
    let list = node.ask("GET", &members, &token("ann"), None).await.json();
    assert_eq!(list, json!({ "members": [{ "user": "ann", "role": "member" }] }));
    let direct = json!({ "kind": "direct", "members": ["ann", "bob"] });
    let direct = node.ask("POST", "/v1/conversations", key, Some(direct)).await.json();
    assert_eq!(direct["id"], "conv_ann_bob");
    let of_ann = node.ask("GET", "/v1/users/ann/conversations", site.key(Scope::Users), None).await.json();
    assert_eq!(of_ann["conversations"].as_array().unwrap().len(), 2);
    let missing = node.ask("GET", "/v1/conversations/none/members", key, None).await;
    assert_eq!(missing.problem(), (404, "not_found".to_owned()));
}
