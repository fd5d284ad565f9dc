//! What is kept nowhere, who is online, and what users are told in their own rooms: over two nodes.

use std::time::{Duration, Instant};

use gateway::api_key::Scope;
use loadtest::client::{Client, ClientError, Push, Pushes};
use serde_json::{Value, json};

use crate::node::{PATIENCE, Site, TestNode, token, token_of};

/// A token with more claims.
fn token_with(user: &str, more: &Value) -> String {
    let mut claims = json!({ "sub": user, "exp": shared::clock::now_ms() / 1_000 + 3_600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    token_of(&claims)
}

/// The next push of which `look` makes something.
async fn find<T>(pushes: &mut Pushes, look: impl Fn(&Push) -> Option<T>) -> T {
    let found = async {
        loop {
            let push = pushes.next().await.expect("the connection lives");
            if let Some(found) = look(&push) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it never came")
}

/// The next event of this name in this conversation.
async fn event(pushes: &mut Pushes, conversation: &str, name: &str) -> Value {
    find(pushes, |push| match push {
        Push::Event(channel, of, data) if channel == conversation && of == name => {
            Some(serde_json::from_str(data.get()).unwrap())
        }
        _ => None,
    })
    .await
}

/// The next message of this kind in this conversation.
async fn message(pushes: &mut Pushes, conversation: &str, kind: &str) -> Value {
    find(pushes, |push| match push {
        Push::Publication(channel, publication)
            if channel == conversation && publication.tags["kind"] == kind =>
        {
            assert_eq!(publication.info.user, "$server");
            Some(serde_json::from_str(publication.data.get()).unwrap())
        }
        _ => None,
    })
    .await
}

async fn rpc(client: &Client, method: &str, data: Value) -> Result<Value, u32> {
    client.rpc(method, &data).await.map_err(|error| match error {
        ClientError::Refused { code, .. } => code,
        other => panic!("{other}"),
    })
}

/// Shorter than the time after which it is told again that somebody types.
const AT_ONCE: Duration = Duration::from_secs(1);
const FORBIDDEN: u32 = 103;
const NOT_FOUND: u32 = 102;

async fn subscribed(node: &TestNode, user: &str, conversation: &str) -> (Client, Pushes) {
    let (client, pushes) = node.connect(user).await;
    client.subscribe(conversation, None).await.unwrap();
    (client, pushes)
}

#[tokio::test]
async fn who_types_is_seen_until_it_stops_or_vanishes() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let chat = "conv_alice_bob";
    let (alice, _) = subscribed(&one, "alice", chat).await;
    let (_bob, mut to_bob) = subscribed(&two, "bob", chat).await;
    let here = json!({ "conversation": chat });
    let typing = |on: bool| json!({ "user": "alice", "typing": on });

    // Said again at once, it is no news; the next that is told is the end. Said later, as by a machine that stood still, it is news.
    loop {
        let began = Instant::now();
        assert_eq!(rpc(&alice, "typing", here.clone()).await, Ok(json!({})));
        assert_eq!(event(&mut to_bob, chat, "typing").await, typing(true));
        rpc(&alice, "typing", here.clone()).await.unwrap();
        let was_at_once = began.elapsed() < AT_ONCE;
        rpc(&alice, "stop_typing", here.clone()).await.unwrap();
        if was_at_once {
            assert_eq!(event(&mut to_bob, chat, "typing").await, typing(false));
            break;
        }
        while event(&mut to_bob, chat, "typing").await != typing(false) {}
    }

    rpc(&alice, "typing", here.clone()).await.unwrap();
    assert_eq!(event(&mut to_bob, chat, "typing").await, typing(true));
    drop(alice);
    assert_eq!(event(&mut to_bob, chat, "typing").await, typing(false), "its connection has ended");

    let path = format!("/v1/conversations/{chat}/typing");
    let said = one.ask("PUT", &path, &token("alice"), Some(json!({ "typing": true }))).await;
    assert_eq!(said.status, 204, "{said:?}");
    assert_eq!(event(&mut to_bob, chat, "typing").await, typing(true));
    assert_eq!(event(&mut to_bob, chat, "typing").await, typing(false), "nobody said so again");

    let (eve, _to_eve) = one.connect("eve").await;
    for stranger in [chat, "nowhere", "user:alice", "role:support", "presence:eve"] {
        let there = json!({ "conversation": stranger });
        assert_eq!(rpc(&eve, "typing", there).await, Err(FORBIDDEN), "{stranger}");
    }
    let refused = one.ask("PUT", &path, &token("eve"), Some(json!({ "typing": true }))).await;
    assert_eq!(refused.problem(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn who_says_too_often_that_it_types_is_told_so() {
    let node = Site::new().start("one").await;
    let (alice, _to_alice) = node.connect("alice").await;
    let here = json!({ "conversation": "conv_alice_bob" });
    let mut refused = None;
    for _ in 0..1_000 {
        refused = rpc(&alice, "stop_typing", here.clone()).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(111));
}

#[tokio::test]
async fn a_signal_reaches_the_members_or_one_of_them() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let group = one.group(&["bob", "carol"]).await;
    let (alice, mut to_alice) = subscribed(&one, "alice", &group).await;
    let (_bob, mut to_bob) = subscribed(&two, "bob", &group).await;
    // Carol follows the conversation nowhere, and hears of what is for her in every device.
    let (_phone, mut to_phone) = one.connect("carol").await;
    let (_desk, mut to_desk) = two.connect("carol").await;

    let offer = json!({ "conversation": group, "name": "call_offer", "data": { "sdp": [1, null] } });
    assert_eq!(rpc(&alice, "signal", offer.clone()).await, Ok(json!({})));
    let told = json!({ "user": "alice", "name": "call_offer", "data": { "sdp": [1, null] } });
    assert_eq!(event(&mut to_bob, &group, "signal").await, told);
    assert_eq!(event(&mut to_alice, &group, "signal").await, told);

    let mut to_carol = offer.clone();
    to_carol["to"] = json!("carol");
    rpc(&alice, "signal", to_carol.clone()).await.unwrap();
    let mut told_her = told.clone();
    told_her["conversation"] = json!(group);
    assert_eq!(event(&mut to_phone, "user:carol", "signal").await, told_her);
    assert_eq!(event(&mut to_desk, "user:carol", "signal").await, told_her);

    // Bob hears nothing of that: the next for him is the server's.
    let path = format!("/v1/conversations/{group}/signals");
    let key = site.key(Scope::Publish);
    let said = two.ask("POST", &path, key, Some(json!({ "name": "maintenance" }))).await;
    assert_eq!(said.status, 204, "{said:?}");
    assert_eq!(
        event(&mut to_bob, &group, "signal").await,
        json!({ "user": "$server", "name": "maintenance" })
    );
    let said =
        two.ask("POST", "/v1/conversations/user:carol/signals", key, Some(json!({ "name": "x" }))).await;
    assert_eq!(said.status, 204, "{said:?}");
    event(&mut to_phone, "user:carol", "signal").await;

    let mut to_eve = offer.clone();
    to_eve["to"] = json!("eve");
    assert_eq!(rpc(&alice, "signal", to_eve).await, Err(NOT_FOUND));
    let (eve, _to_eve) = one.connect("eve").await;
    assert_eq!(rpc(&eve, "signal", offer).await, Err(FORBIDDEN));
    assert_eq!(rpc(&eve, "signal", to_carol).await, Err(FORBIDDEN));
    let large = json!({ "conversation": group, "name": "x", "data": "x".repeat(33_000) });
    assert_eq!(rpc(&alice, "signal", large).await, Err(413));
    let history = one.ask("GET", &format!("/v1/conversations/{group}/messages"), &token("alice"), None).await;
    assert_eq!(history.json()["messages"], json!([]), "nothing of it is kept");
}

#[tokio::test]
async fn who_shares_a_conversation_sees_who_is_online() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    one.group(&["bob"]).await;
    let (alice, mut to_alice) = one.connect("alice").await;
    let room = "presence:bob";
    alice.subscribe(room, None).await.unwrap();
    assert_eq!(event(&mut to_alice, room, "online").await, json!({ "user": "bob", "online": false }));
    let (phone, _to_phone) = two.connect("bob").await;
    let online = json!({ "user": "bob", "online": true });
    assert_eq!(event(&mut to_alice, room, "online").await, online);
    let (desk, _to_desk) = one.connect("bob").await;

    // A second follower is told how things stand.
    let (other, mut to_other) = two.connect("alice").await;
    other.subscribe(room, None).await.unwrap();
    assert_eq!(event(&mut to_other, room, "online").await, online);

    // One device leaves and comes back: no news. The next is that both are gone.
    drop(phone);
    let (phone, _to_phone) = two.connect("bob").await;
    drop((phone, desk));
    let asked = json!({ "users": ["bob", "alice", "eve", "nobody"] });
    let gone = loop {
        let answer = rpc(&alice, "user_presence", asked.clone()).await.unwrap();
        let users = answer["users"].as_array().unwrap().clone();
        assert_eq!(users.len(), 2, "strangers are left out: {users:?}");
        assert_eq!(users[1], json!({ "user": "alice", "online": true }));
        if users[0]["online"] == false {
            break users[0].clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(gone["last_seen"].as_u64().is_some(), "{gone}");
    let told = event(&mut to_alice, room, "online").await;
    assert_eq!((&told["online"], told["last_seen"].is_u64()), (&json!(false), true), "{told}");
    let path = "/v1/presence";
    let answer = two.ask("POST", path, site.key(Scope::Presence), Some(asked)).await.json();
    assert_eq!(answer["users"].as_array().unwrap().len(), 4);
    assert_eq!(answer["users"][0]["last_seen"], told["last_seen"], "it is stored");

    // A stranger cannot tell one who exists from one who does not.
    let (eve, _to_eve) = one.connect("eve").await;
    for room in ["presence:bob", "presence:nobody", "presence:"] {
        let ClientError::Refused { code, .. } = eve.subscribe(room, None).await.unwrap_err() else {
            panic!()
        };
        assert_eq!(code, FORBIDDEN, "{room}");
    }
    assert_eq!(
        rpc(&eve, "user_presence", json!({ "users": ["bob", "nobody"] })).await,
        Ok(json!({ "users": [] }))
    );
    assert_eq!(alice.publish(room, "1").await.map_err(|error| error.is_definite()), Err(true));
    // Who was written to is known to the writer, even before that is stored.
    eve.send("conv_bob_eve", "m", "1", false).await.unwrap();
    eve.subscribe("presence:bob", None).await.unwrap();
}

#[tokio::test]
async fn whoever_has_a_role_is_in_its_room() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let url = |node: &TestNode| format!("http://{}", node.address);
    let support = token_with("alice", &json!({ "roles": ["support", "billing"] }));
    let (alice, mut to_alice) = Client::connect(&url(&one), &support).await.unwrap();
    let subs = &alice.connected().subs;
    assert_eq!(subs.len(), 3);
    assert!(["role:support", "role:billing", "user:alice"].iter().all(|room| subs.contains_key(*room)));
    let single = token_with("bob", &json!({ "role": "support" }));
    let (bob, mut to_bob) = Client::connect(&url(&two), &single).await.unwrap();
    let (carol, _to_carol) = one.connect("carol").await;

    let path = "/v1/roles/support/messages";
    let note = json!({ "body": { "dispute": 7 } });
    let key = site.key(Scope::Publish);
    let sent = two.ask_with("POST", path, key, &[("idempotency-key", "d-7")], Some(note.clone())).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let again = one.ask_with("POST", path, key, &[("idempotency-key", "d-7")], Some(note)).await;
    assert_eq!(again.json(), sent.json());
    for pushes in [&mut to_alice, &mut to_bob] {
        assert_eq!(message(pushes, "role:support", "notification").await, json!({ "dispute": 7 }));
    }
    assert_eq!(two.ask("POST", path, &single, Some(json!({ "body": 1 }))).await.problem().0, 403);
    for client in [&bob, &carol] {
        let refused = rpc(client, "send", json!({ "conversation": "role:support", "body": 1 })).await;
        assert_eq!(refused, Err(FORBIDDEN), "only the server speaks there");
    }
    let refused = rpc(&carol, "history", json!({ "conversation": "role:support" })).await;
    assert_eq!(refused, Err(FORBIDDEN));
    assert!(carol.subscribe("role:support", None).await.is_err());
    let page = rpc(&bob, "history", json!({ "conversation": "role:support" })).await.unwrap();
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);

    // A new token without the role takes it out of the room.
    bob.refresh(&token_with("bob", &json!({ "iat": 1 }))).await.unwrap();
    find(&mut to_bob, |push| {
        matches!(push, Push::Unsubscribed(room, 2000) if room == "role:support").then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_device_is_told_what_becomes_of_conversations() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let (_phone, mut to_phone) = one.connect("bob").await;
    let (_desk, mut to_desk) = two.connect("bob").await;
    let group = one.group(&["bob"]).await;
    let created = json!({
        "action": "created", "conversation": group, "kind": "group", "role": "member", "by": "alice",
    });
    for pushes in [&mut to_phone, &mut to_desk] {
        assert_eq!(message(pushes, "user:bob", "conversation").await, created);
    }
    let path = format!("/v1/conversations/{group}/members");
    let gone = one.ask("DELETE", &format!("{path}/bob"), &token("alice"), None).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    let key = site.key(Scope::Conversations);
    let back = two.ask("POST", &path, key, Some(json!({ "members": ["bob"] }))).await;
    assert_eq!(back.status, 204, "{back:?}");
    for pushes in [&mut to_phone, &mut to_desk] {
        let removed = json!({ "action": "removed", "conversation": group, "by": "alice" });
        assert_eq!(message(pushes, "user:bob", "conversation").await, removed);
        let added = json!({ "action": "added", "conversation": group, "role": "member" });
        assert_eq!(message(pushes, "user:bob", "conversation").await, added);
    }
}

#[tokio::test]
async fn devices_are_listed_and_sent_away() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let (phone, mut to_phone) = one.connect("alice").await;
    let (desk, mut to_desk) = two.connect("alice").await;
    let own = async || {
        let found = one.ask("GET", "/v1/connections", &token("alice"), None).await.json();
        found["connections"].as_array().unwrap().clone()
    };
    let listed = loop {
        let listed = own().await;
        if listed.len() == 2 {
            break listed;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let of = |client: &Client| {
        let id = client.connected().client.clone();
        listed.iter().find(|found| found["client"] == id).unwrap().clone()
    };
    assert_eq!((&of(&phone)["node"], &of(&desk)["node"]), (&json!("one"), &json!("two")));
    let found = of(&phone);
    assert_eq!((&found["address"], &found["user"]), (&json!("127.0.0.1"), &json!("alice")));
    assert_eq!(found["protocol"], "centrifuge/websocket");
    assert_eq!(
        rpc(&phone, "connections", json!({})).await.unwrap()["connections"].as_array().unwrap().len(),
        2
    );

    let key = site.key(Scope::Connections);
    let path = "/v1/users/alice/connections";
    assert_eq!(two.ask("GET", path, key, None).await.json()["connections"].as_array().unwrap().len(), 2);
    for other in [&token("alice"), &token("eve"), site.key(Scope::Presence)] {
        assert_eq!(two.ask("GET", path, other, None).await.problem().0, 403);
    }
    let path = "/v1/users/alice/disconnect";
    assert_eq!(two.ask("POST", path, &token("alice"), Some(json!({}))).await.problem().0, 403);
    let closed =
        |code: u16| move |push: &Push| matches!(push, Push::Closed(of, _) if *of == code).then_some(());
    let body = json!({ "client": desk.connected().client, "reconnect": true });
    assert_eq!(one.ask("POST", path, key, Some(body)).await.status, 204);
    find(&mut to_desk, closed(3011)).await;
    assert_eq!(two.ask("POST", path, key, Some(json!({}))).await.status, 204);
    find(&mut to_phone, closed(3510)).await;
    while !own().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_shares_no_conversation_any_more_follows_no_longer() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let id = one.group(&["bob", "carol"]).await;
    let (_alice, mut to_alice) = subscribed(&two, "alice", "presence:bob").await;
    let (bob, mut to_bob) = subscribed(&two, "bob", "presence:alice").await;
    let (carol, _to_carol) = subscribed(&two, "carol", "presence:alice").await;
    let path = format!("/v1/conversations/{id}/members/bob");
    assert_eq!(one.ask("DELETE", &path, &token("alice"), None).await.status, 204);
    for (pushes, room) in [(&mut to_alice, "presence:bob"), (&mut to_bob, "presence:alice")] {
        let ended = |push: &Push| matches!(push, Push::Unsubscribed(of, 2000) if of == room).then_some(());
        find(pushes, ended).await;
    }
    let code = async |client: &Client| match client.subscribe("presence:alice", None).await {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!((code(&bob).await, code(&carol).await), (FORBIDDEN, 105), "carol follows on");
}

#[tokio::test]
async fn a_token_lets_nobody_speak_where_it_is_told_who_is_online() {
    let site = Site::new();
    let node = site.start("one").await;
    let all = token_with("eve", &json!({ "conversations": ["*"] }));
    assert_eq!(node.send(&all, "orders", "hello").await.status, 200);
    assert_eq!(node.send(&all, "presence:bob", "hello").await.problem(), (403, "forbidden".to_owned()));
}
