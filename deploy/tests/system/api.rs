//! The HTTP API over two real gateways, Redis and Postgres.

use loadtest::{
    client::{Client, Push, Pushes},
    http::{delete, get, post},
    token::mint,
};
use serde_json::{Value, json};

use crate::support::{PATIENCE, SECRET, Stage, connect};

/// A key of an application server.
pub const KEY: &str = "sk_system-test";
/// How it is configured.
pub const KEY_LINE: &str = "system:publish+presence+connections:\
    6e53b22e08e436b257331ee2ebd93fbe15038d753b2b67be0535955f141a7f32";
const TOKEN_SECONDS: u64 = 3_600;

async fn next(pushes: &mut Pushes) -> Push {
    loop {
        match tokio::time::timeout(PATIENCE, pushes.next()).await.expect("nothing came").unwrap() {
            Push::Join(..) | Push::Leave(..) | Push::Stored(_) | Push::Event(..) => {}
            Push::Publication(_, publication)
                if publication
                    .tags
                    .get("kind")
                    .is_some_and(|kind| kind == "conversation" || kind == "members") => {}
            push => return push,
        }
    }
}

async fn subscribed(url: &str, user: &str, group: &str) -> (Client, Pushes) {
    let (client, pushes) = connect(url, user).await.unwrap();
    client.subscribe(group, None).await.unwrap();
    (client, pushes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_managed_on_one_node_and_followed_on_the_other() {
    let stage = Stage::start(|options| {
        options.gateway_env.push(("STARLING_API_KEYS".to_owned(), KEY_LINE.to_owned()));
    })
    .await;
    let (one, two) = (stage.gateway_url(0), stage.gateway_url(1));
    let alice = mint(SECRET, "alice", TOKEN_SECONDS);
    let made: Value = post(
        &format!("{one}/v1/conversations"),
        &alice,
        &json!({ "kind": "group", "members": ["bob", "carol"] }),
    )
    .await
    .unwrap();
    let group = made["id"].as_str().unwrap();
    let path = format!("/v1/conversations/{group}");
    let (bob, mut bob_pushes) = subscribed(&two, "bob", group).await;
    let (_carol, mut carol_pushes) = subscribed(&two, "carol", group).await;

    let sent: Value = post(&format!("{one}{path}/messages"), KEY, &json!({ "body": 1 })).await.unwrap();
    for pushes in [&mut bob_pushes, &mut carol_pushes] {
        let push = next(pushes).await;
        let Push::Publication(_, publication) = &push else { panic!("{push:?}") };
        assert_eq!(
            (publication.offset, publication.info.user.as_str()),
            (sent["seq"].as_u64().unwrap(), "$server")
        );
    }

    delete(&format!("{one}{path}/members/bob"), &alice).await.unwrap();
    let push = next(&mut bob_pushes).await;
    assert!(matches!(&push, Push::Unsubscribed(channel, 2000) if channel == group), "{push:?}");
    bob.subscribe(group, None).await.unwrap_err();
    let members: Value = get(&format!("{two}{path}/members"), Some(&alice)).await.unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 2);
    let list: Value = get(&format!("{two}/v1/conversations"), Some(&alice)).await.unwrap();
    assert_eq!(list["conversations"][0]["id"], group);
    post::<()>(&format!("{two}{path}/members"), &alice, &json!({ "members": ["bob"] })).await.unwrap();

    // What the server said is stored under its own name, and read back by whoever may.
    stage.wait_stored(1).await;
    let history: Value = get(&format!("{two}{path}/messages"), Some(&alice)).await.unwrap();
    let said = history["messages"].as_array().unwrap().iter().find(|message| message["kind"] == "text");
    assert_eq!(
        said.map(|message| (&message["sender"], &message["seq"])),
        Some((&json!("$server"), &sent["seq"]))
    );
}
