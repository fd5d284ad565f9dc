//! What a token lets its bearer do, for how long, and what takes it back: on whole gateways, over WebSocket and HTTP.

use std::{sync::Arc, time::Duration};

use deploy::{RedisOptions, RedisServer, TcpProxy, eventually};
use gateway::{
    action::{self, Denial, MembersChanged, Revoke},
    revocation::UNREAD_MAX,
};
use jsonwebtoken::{EncodingKey, Header};
use loadtest::{
    client::{Client, ClientError, Push, Pushes},
    http::{self, HttpError},
};
use serde_json::{Value, json};
use shared::{
    broker::redis::RedisConfig,
    clock::now_ms,
    domain::{ConversationId, Refusal, UserId},
    revocations::{Revocations, redis::RedisRevocations},
};

use crate::node::{PATIENCE, REVOCATION_LIFE, Site, TestNode, token_of};

const INVALID_TOKEN: u16 = 3500;
const REVOKED: u16 = 3503;
/// The protocol's codes of refusals.
const UNAVAILABLE: u32 = 100;
const FORBIDDEN: u32 = 103;
const TOKEN_EXPIRED: u32 = 109;

fn now() -> u64 {
    now_ms() / 1_000
}

/// A token of the user that was made ten seconds ago.
fn token_for(user: &str, extra: &Value) -> String {
    let mut claims = json!({ "sub": user, "exp": now() + 600, "iat": now() - 10 });
    claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    token_of(&claims)
}

async fn gateway() -> TestNode {
    Site::new().start("alone").await
}

/// The code that the server ends the connection with.
async fn end_of(pushes: &mut Pushes) -> u16 {
    let end = async {
        loop {
            if let Push::Closed(code, _) = pushes.next().await.expect("the end is the last push") {
                return code;
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the connection goes on")
}

fn code_of<T>(answer: Result<T, ClientError>) -> u32 {
    match answer.err().expect("it was let in") {
        ClientError::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

/// The status of an HTTP request.
async fn status(gateway: &TestNode, token: &str, conversation: &str) -> u16 {
    let url = format!("{}/v1/conversations/{conversation}/messages", gateway.url());
    match http::get::<Value>(&url, Some(token)).await {
        Ok(_) => 200,
        Err(HttpError::Status { status, .. }) => status.as_u16(),
        Err(error) => panic!("{error}"),
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

#[tokio::test]
async fn a_token_lets_its_bearer_into_the_conversations_that_it_names() {
    let gateway = gateway().await;
    let granted = token_for("alice", &json!({ "conversations": ["orders.*", "conv_bob_carol"] }));
    let mut heard = 0;
    let (alice, mut pushes) = Client::connect(&gateway.url(), &granted).await.unwrap();
    let (bob, _others) = Client::connect(&gateway.url(), &token_for("bob", &json!({}))).await.unwrap();
    for conversation in ["orders.7", "conv_bob_carol", "conv_alice_zoe"] {
        alice.subscribe(conversation, None).await.unwrap();
        alice.send(conversation, "id", "1", false).await.unwrap();
        assert_eq!(alice.presence(conversation).await.unwrap().len(), 1);
        assert_eq!(status(&gateway, &granted, conversation).await, 200);
    }
    for conversation in ["orders", "lunch", "user:bob", "conv_bob_zoe"] {
        assert_eq!(code_of(alice.subscribe(conversation, None).await), FORBIDDEN, "{conversation}");
        assert_eq!(code_of(alice.send(conversation, "id", "1", false).await), FORBIDDEN, "{conversation}");
        assert_eq!(status(&gateway, &granted, conversation).await, 403, "{conversation}");
    }
    assert_eq!(code_of(bob.subscribe("orders.7", None).await), FORBIDDEN);
    // Who is in by its token stays in, although no list of members has it.
    let orders = ConversationId::parse("orders.7").unwrap();
    action::members_changed(&gateway.node, &MembersChanged::new(orders, 1)).await;
    alice.send("orders.7", "after", "2", false).await.unwrap();
    let hears = async {
        loop {
            match pushes.next().await.expect("the connection goes on") {
                Push::Publication(conversation, _) if conversation == "orders.7" => {
                    heard += 1;
                    if heard == 2 {
                        return;
                    }
                }
                Push::Unsubscribed(conversation, code) => panic!("{conversation} {code}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, hears).await.unwrap();
}

#[tokio::test]
async fn a_token_is_renewed_for_the_same_user_alone() {
    let gateway = gateway().await;
    let first = token_for("alice", &json!({ "conversations": ["lunch", "orders.*"] }));
    let (alice, mut pushes) = Client::connect(&gateway.url(), &first).await.unwrap();
    for conversation in ["lunch", "orders.7", "conv_alice_bob"] {
        alice.subscribe(conversation, None).await.unwrap();
    }
    assert!(
        alice.refresh(&token_for("alice", &json!({ "conversations": ["orders.*"] }))).await.unwrap() > 500
    );
    // What the new token does not allow any more ends; the rest goes on.
    let ended = async {
        loop {
            match pushes.next().await.expect("the connection goes on") {
                Push::Unsubscribed(conversation, _) => return conversation,
                Push::Join(..) | Push::Leave(..) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, ended).await.unwrap(), "lunch");
    assert_eq!(code_of(alice.subscribe("lunch", None).await), FORBIDDEN);
    alice.send("orders.7", "id", "1", false).await.unwrap();
    alice.send("conv_alice_bob", "id", "1", false).await.unwrap();
    alice.refresh(&token_for("bob", &json!({}))).await.unwrap_err();
    assert_eq!(end_of(&mut pushes).await, INVALID_TOKEN);
}

#[tokio::test]
async fn tokens_that_are_no_good_are_refused_by_name() {
    let gateway = gateway().await;
    let old = token_of(&json!({ "sub": "alice", "exp": now() - 60 }));
    assert_eq!(code_of(Client::connect(&gateway.url(), &old).await), TOKEN_EXPIRED);
    assert_eq!(status(&gateway, &old, "conv_alice_bob").await, 401);
    let forged = jsonwebtoken::encode(
        &Header::default(),
        &json!({ "sub": "alice", "exp": now() + 60 }),
        &EncodingKey::from_secret(b"another"),
    );
    let forged = forged.unwrap();
    assert!(matches!(Client::connect(&gateway.url(), &forged).await, Err(ClientError::Closed)));
    assert_eq!(status(&gateway, &forged, "conv_alice_bob").await, 401);
}

/// Revocations hold on the node where they were made and on the other one, for those who are there and those who come.
async fn revoked_everywhere(a: TestNode, b: TestNode) {
    let named = token_for("alice", &json!({ "jti": "t-1" }));
    let other = token_for("alice", &json!({ "jti": "t-2" }));
    let (_named_on_a, mut named_on_a) = Client::connect(&a.url(), &named).await.unwrap();
    let (_named_on_b, mut named_on_b) = Client::connect(&b.url(), &named).await.unwrap();
    let (other_on_b, mut pushes_of_other) = Client::connect(&b.url(), &other).await.unwrap();
    let (bob, _pushes_of_bob) = Client::connect(&b.url(), &token_for("bob", &json!({}))).await.unwrap();
    action::revoke(&a.node, Revoke::Token("t-1".to_owned())).await.unwrap();
    assert_eq!((end_of(&mut named_on_a).await, end_of(&mut named_on_b).await), (REVOKED, REVOKED));
    for gateway in [&a, &b] {
        assert!(matches!(Client::connect(&gateway.url(), &named).await, Err(ClientError::Closed)));
        assert_eq!(action::authenticate(&gateway.node, &named).await, Err(Denial::Revoked));
        assert_eq!(status(gateway, &named, "conv_alice_bob").await, 401);
        assert_eq!(status(gateway, &other, "conv_alice_bob").await, 200);
    }
    other_on_b.send("conv_alice_bob", "still-here", "1", false).await.unwrap();

    action::revoke(&a.node, Revoke::User(user("alice"), Some(now() - 5))).await.unwrap();
    assert_eq!(end_of(&mut pushes_of_other).await, REVOKED);
    let newer = token_for("alice", &json!({ "iat": now() - 5 }));
    let undated = token_of(&json!({ "sub": "alice", "exp": now() + 600 }));
    let (_newer, mut pushes_of_newer) = Client::connect(&b.url(), &newer).await.unwrap();
    assert_eq!(action::authenticate(&b.node, &undated).await, Err(Denial::Revoked));
    let this_second = token_for("alice", &json!({ "iat": now() }));
    action::revoke(&b.node, Revoke::User(user("alice"), None)).await.unwrap();
    assert_eq!(end_of(&mut pushes_of_newer).await, REVOKED);
    eventually(async || {
        (action::authenticate(&a.node, &this_second).await == Err(Denial::Revoked)).then_some(())
    })
    .await;

    bob.send("conv_alice_bob", "untouched", "1", false).await.unwrap();
    for bad in [Revoke::Token(String::new()), Revoke::User(user("bob"), Some(now() + 3_600))] {
        assert_eq!(action::revoke(&a.node, bad).await, Err(Refusal::Invalid));
    }
}

#[tokio::test]
async fn what_is_revoked_is_revoked_on_both_nodes_of_one_process() {
    let site = Site::new();
    let (a, b) = (site.start("a").await, site.start("b").await);
    revoked_everywhere(a, b).await;
}

async fn redis() -> RedisServer {
    RedisServer::start(RedisOptions::default()).await.unwrap()
}

fn over(url: String) -> Arc<dyn Revocations> {
    Arc::new(RedisRevocations::new(&RedisConfig::new(url), REVOCATION_LIFE).unwrap())
}

#[tokio::test]
async fn what_is_revoked_is_revoked_on_both_nodes_over_redis() {
    let (site, redis) = (Site::new(), redis().await);
    let a = site.start_with("a", over(redis.url()), UNREAD_MAX).await;
    let b = site.start_with("b", over(redis.url()), UNREAD_MAX).await;
    revoked_everywhere(a, b).await;
}

#[tokio::test]
async fn a_node_that_was_cut_off_lets_nobody_in_and_then_makes_up_for_it() {
    let (site, redis) = (Site::new(), redis().await);
    let proxy = TcpProxy::start(redis.address()).await.unwrap();
    // Long enough that a busy machine does not make it look cut off before it is.
    let unread_max = Duration::from_secs(10);
    let a = site.start_with("a", over(redis.url()), UNREAD_MAX).await;
    let b = site.start_with("b", over(format!("redis://{}/", proxy.addr())), unread_max).await;
    let (alice, bob) = (token_for("alice", &json!({ "jti": "t-1" })), token_for("bob", &json!({})));
    let (alice_on_b, mut pushes_of_alice) = Client::connect(&b.url(), &alice).await.unwrap();
    let (bob_on_b, _pushes_of_bob) = Client::connect(&b.url(), &bob).await.unwrap();
    // Silent, not closed: nothing tells the node that it hears nothing.
    proxy.stall_all();
    action::revoke(&a.node, Revoke::Token("t-1".to_owned())).await.unwrap();
    eventually(async || {
        (action::authenticate(&b.node, &bob).await == Err(Denial::Unavailable)).then_some(())
    })
    .await;
    assert_eq!(code_of(Client::connect(&b.url(), &bob).await), UNAVAILABLE);
    assert_eq!(status(&b, &bob, "conv_alice_bob").await, 503);
    // Whoever is in stays in, and whoever is refused is refused on one node alone.
    alice_on_b.send("conv_alice_bob", "unaware", "1", false).await.unwrap();
    assert!(action::authenticate(&a.node, &bob).await.is_ok());
    proxy.resume();
    assert_eq!(end_of(&mut pushes_of_alice).await, REVOKED);
    eventually(async || (action::authenticate(&b.node, &bob).await.is_ok()).then_some(())).await;
    assert_eq!(action::authenticate(&b.node, &alice).await, Err(Denial::Revoked));
    bob_on_b.send("conv_alice_bob", "still-here", "1", false).await.unwrap();
}

#[tokio::test]
async fn what_redis_has_lost_is_put_back_by_a_node_that_knows_it() {
    put_back_after(true).await;
}

#[tokio::test]
async fn what_redis_has_lost_without_a_break_is_put_back_too() {
    put_back_after(false).await;
}

async fn put_back_after(restart: bool) {
    let (site, mut redis) = (Site::new(), redis().await);
    let a = site.start_with("a", over(redis.url()), UNREAD_MAX).await;
    let alice = token_for("alice", &json!({ "jti": "t-1" }));
    let bob = token_for("bob", &json!({}));
    action::revoke(&a.node, Revoke::Token("t-1".to_owned())).await.unwrap();
    action::revoke(&a.node, Revoke::User(user("bob"), None)).await.unwrap();
    eventually(async || (action::authenticate(&a.node, &bob).await == Err(Denial::Revoked)).then_some(()))
        .await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: String = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    if restart {
        redis.restart().await.unwrap();
    }
    let b = site.start_with("b", over(redis.url()), UNREAD_MAX).await;
    for revoked in [&alice, &bob] {
        eventually(async || {
            (action::authenticate(&b.node, revoked).await == Err(Denial::Revoked)).then_some(())
        })
        .await;
    }
}
