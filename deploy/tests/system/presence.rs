//! Who is online, from where, and who types: over two real gateways, while one is killed and Redis is emptied.

use loadtest::{
    client::{Client, Push, Pushes},
    http::get,
    token::mint,
};
use serde_json::{Value, json};

use crate::support::{PATIENCE, SECRET, Stage, connect, eventually, seen};

const CHAT: &str = "conv_alice_bob";
const ROOM: &str = "presence:bob";
/// How long a dead node's connections count as there, in seconds: short, so that nobody waits long for a death to be seen.
const PRESENCE_SECONDS: &str = "6";

async fn stage() -> Stage {
    Stage::start(|options| {
        let setting = ("STARLING_PRESENCE_SECONDS".to_owned(), PRESENCE_SECONDS.to_owned());
        options.gateway_env.push(setting);
    })
    .await
}

/// Waits until it is told in the room of bob's presence that bob is online, or not. Returns what was told.
async fn told(pushes: &mut Pushes, online: bool) -> Value {
    event(pushes, ROOM, |data| data["online"] == online).await
}

async fn event(pushes: &mut Pushes, room: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            match pushes.next().await.expect("the connection lives") {
                Push::Event(channel, _, data) if channel == room => {
                    let data: Value = serde_json::from_str(data.get()).unwrap();
                    if is_it(&data) {
                        return data;
                    }
                }
                Push::Closed(code, reason) => panic!("closed with {code} {reason}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it is never told")
}

/// Alice, who has written to bob and follows him.
async fn follower(stage: &Stage) -> (Client, Pushes) {
    let (alice, pushes) = connect(&stage.gateway_url(0), "alice").await.unwrap();
    alice.send(CHAT, "m-1", "1", false).await.unwrap();
    alice.subscribe(ROOM, None).await.unwrap();
    (alice, pushes)
}

/// Bob's connections, as the first gateway knows them.
async fn devices(stage: &Stage) -> Vec<Value> {
    let token = mint(SECRET, "bob", 3_600);
    let url = format!("{}/v1/connections", stage.gateway_url(0));
    let found: Value = get(&url, Some(&token)).await.unwrap();
    found["connections"].as_array().unwrap().clone()
}

async fn wait_devices(stage: &Stage, count: usize) {
    eventually("bob's devices are listed", async || {
        let found = devices(stage).await;
        seen(found.len() == count, || format!("{found:?}"))
    })
    .await;
}

async fn is_online(alice: &Client) -> bool {
    let answer: Value = alice.rpc("user_presence", &json!({ "users": ["bob"] })).await.unwrap();
    answer["users"][0]["online"] == true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_takes_its_users_offline() {
    let mut stage = stage().await;
    let (alice, mut to_alice) = follower(&stage).await;
    assert_eq!(told(&mut to_alice, false).await, json!({ "user": "bob", "online": false }));
    let (bob, _to_bob) = connect(&stage.gateway_url(1), "bob").await.unwrap();
    told(&mut to_alice, true).await;
    wait_devices(&stage, 1).await;

    stage.kill_gateway(1);
    let gone = told(&mut to_alice, false).await;
    assert!(gone["last_seen"].is_u64(), "{gone}");
    assert!(!is_online(&alice).await);
    wait_devices(&stage, 0).await;
    let answer: Value = alice.rpc("user_presence", &json!({ "users": ["bob"] })).await.unwrap();
    assert_eq!(answer["users"][0]["last_seen"], gone["last_seen"], "it is stored");
    drop(bob);

    stage.restart_gateway(1).await.unwrap();
    let (_bob, _to_bob) = connect(&stage.gateway_url(1), "bob").await.unwrap();
    told(&mut to_alice, true).await;
    assert!(is_online(&alice).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_comes_back_after_redis_has_lost_it() {
    let stage = stage().await;
    let (alice, mut to_alice) = follower(&stage).await;
    let (bob, _to_bob) = connect(&stage.gateway_url(1), "bob").await.unwrap();
    told(&mut to_alice, true).await;

    stage.flush().await;
    eventually("bob is online again", async || {
        seen(is_online(&alice).await && devices(&stage).await.len() == 1, || "not yet".to_owned())
    })
    .await;

    // Who leaves before anybody has entered again what was lost is missed by nobody.
    stage.flush().await;
    drop(bob);
    told(&mut to_alice, false).await;
    wait_devices(&stage, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_types_and_calls_is_heard_on_the_other_node() {
    let stage = stage().await;
    let (alice, _to_alice) = connect(&stage.gateway_url(0), "alice").await.unwrap();
    let (bob, mut to_bob) = connect(&stage.gateway_url(1), "bob").await.unwrap();
    bob.subscribe(CHAT, None).await.unwrap();
    let _: Value = alice.rpc("typing", &json!({ "conversation": CHAT })).await.unwrap();
    event(&mut to_bob, CHAT, |data| *data == json!({ "user": "alice", "typing": true })).await;
    let call = json!({ "conversation": CHAT, "name": "call_offer", "data": { "sdp": 1 }, "to": "bob" });
    let _: Value = alice.rpc("signal", &call).await.unwrap();
    event(&mut to_bob, "user:bob", |data| data["name"] == "call_offer" && data["conversation"] == CHAT).await;
    // Said again: it ends by itself after a while.
    let _: Value = alice.rpc("typing", &json!({ "conversation": CHAT })).await.unwrap();
    drop(alice);
    event(&mut to_bob, CHAT, |data| *data == json!({ "user": "alice", "typing": false })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_raises_the_count_of_who_follows_nothing() {
    let stage = stage().await;
    let (alice, _to_alice) = connect(&stage.gateway_url(0), "alice").await.unwrap();
    let (_phone, mut to_phone) = connect(&stage.gateway_url(0), "bob").await.unwrap();
    let (desk, mut to_desk) = connect(&stage.gateway_url(1), "bob").await.unwrap();
    let mut last = 0;
    for n in 1..=3 {
        last = alice.send(CHAT, &format!("m-{n}"), "1", false).await.unwrap().seq;
    }
    let count = |unread: u64| json!({ "conversation": CHAT, "unread": unread, "seq": last });
    for pushes in [&mut to_phone, &mut to_desk] {
        event(pushes, "user:bob", |data| *data == count(3)).await;
    }
    let _: Value = desk.rpc("mark_read", &json!({ "conversation": CHAT, "seq": last })).await.unwrap();
    for pushes in [&mut to_phone, &mut to_desk] {
        event(pushes, "user:bob", |data| *data == count(0)).await;
    }
}
