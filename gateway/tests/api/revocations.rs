//! Tokens that an application server takes back.

use gateway::api_key::Scope;
use loadtest::client::{Client, ClientError, Push, Pushes};
use serde_json::json;
use shared::clock::now_ms;

use crate::node::{PATIENCE, Site, TestNode, next, token, token_of};

const REVOKED: u16 = 3503;

async fn connect(node: &TestNode, token: &str) -> (Client, Pushes) {
    Client::connect(&format!("http://{}", node.address), token).await.unwrap()
}

/// What the node answers to whoever shows the token.
async fn status(node: &TestNode, token: &str) -> u16 {
    node.ask("GET", "/v1/conversations", token, None).await.status
}

async fn assert_closed(pushes: &mut Pushes) {
    assert!(matches!(next(pushes).await, Push::Closed(REVOKED, _)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_takes_back_is_closed_and_kept_out_on_every_node() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let key = site.key(Scope::Revoke);
    let now = now_ms() / 1_000;
    let token_of = |jti: &str, user: &str, made: u64| {
        token_of(&json!({ "sub": user, "exp": now + 3_600, "iat": made, "jti": jti }))
    };
    let (lost, kept) = (token_of("lost", "alice", now - 10), token_of("kept", "alice", now - 10));
    let (bob, later) = (token_of("b-1", "bob", now - 10), token_of("b-2", "bob", now - 5));
    let (_one, mut lost_pushes) = connect(&one, &lost).await;
    let (_two, mut bob_pushes) = connect(&two, &bob).await;
    let (untouched, _pushes) = connect(&two, &kept).await;

    for _ in 0..2 {
        let revoked = two.ask("POST", "/v1/revocations", key, Some(json!({ "jti": "lost" }))).await;
        assert_eq!((revoked.status, revoked.body.as_str()), (204, ""));
    }
    assert_closed(&mut lost_pushes).await;
    let before = json!({ "user": "bob", "before": now - 7 });
    assert_eq!(one.ask("POST", "/v1/revocations", key, Some(before)).await.status, 204);
    assert_closed(&mut bob_pushes).await;

    for node in [&one, &two] {
        for token in [&lost, &bob] {
            let shut_out = async {
                while status(node, token).await != 401 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, shut_out).await.unwrap();
            let refused = Client::connect(&format!("http://{}", node.address), token).await;
            assert!(matches!(refused, Err(ClientError::Closed)));
        }
        assert_eq!((status(node, &kept).await, status(node, &later).await), (200, 200));
    }
    untouched.publish("conv_alice_bob", "1").await.unwrap();

    // Without a time: all that were made up to now.
    assert_eq!(one.ask("POST", "/v1/revocations", key, Some(json!({ "user": "bob" }))).await.status, 204);
    let shut_out = async { while status(&two, &later).await != 401 {} };
    tokio::time::timeout(PATIENCE, shut_out).await.unwrap();
    assert_eq!(status(&two, &token("carol")).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_revocation_is_refused_by_name() {
    let site = Site::new();
    let node = site.start("one").await;
    let far = now_ms() / 1_000 + 3_600;
    for bad in [
        json!({}),
        json!({ "jti": "" }),
        json!({ "jti": "x".repeat(256) }),
        json!({ "jti": "a", "user": "alice" }),
        json!({ "jti": "a", "before": 1 }),
        json!({ "before": 1 }),
        json!({ "user": "a b" }),
        json!({ "user": "alice", "before": far }),
        json!({ "user": "alice", "before": -1 }),
        json!({ "user": "alice", "until": 1 }),
    ] {
        let answer = node.ask("POST", "/v1/revocations", site.key(Scope::Revoke), Some(bad.clone())).await;
        assert_eq!(answer.problem(), (400, "invalid".to_owned()), "{bad}");
    }
}
