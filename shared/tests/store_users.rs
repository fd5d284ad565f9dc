//! What is kept of users: one suite for both stores.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support_store;

use shared::{
    domain::{Body, ConversationId, Message, MessageId, MessageKind, Role, Seq, UserId},
    store::Conversation,
};
use support_store::{Bed, room, user};
use uuid::Uuid;

async fn suite(bed: &Bed) {
    when_users_were_last_seen(bed).await;
    who_shares_a_conversation(bed).await;
}

on_both_stores!();

async fn when_users_were_last_seen(bed: &Bed) {
    let store = bed.make("last_seen").await;
    let seen = async |users: &[&str]| {
        let users: Vec<UserId> = users.iter().map(|name| user(name)).collect();
        let mut found = store.last_seen(&users).await.unwrap();
        found.sort();
        found
    };
    assert_eq!(seen(&["ann"]).await, []);
    store.note_seen(&[]).await.unwrap();
    store.note_seen(&[(user("bob"), 9), (user("ann"), 5)]).await.unwrap();
    store.note_seen(&[(user("ann"), 7), (user("bob"), 8)]).await.unwrap();
    assert_eq!(seen(&["zoe", "ann", "bob"]).await, [(user("ann"), 7), (user("bob"), 9)]);
}

async fn who_shares_a_conversation(bed: &Bed) {
    let store = bed.make("shares").await;
    let shares = async |one: &str, other: &str| {
        let there = store.sharing(&user(one), &[user("zoe"), user(other)]).await.unwrap();
        assert_eq!(store.sharing(&user(other), &[user(one)]).await.unwrap().len(), there.len());
        there == [user(other)]
    };
    assert!(!shares("ann", "bob").await);
    let conversation = Conversation {
        id: room("team"),
        kind: "group".to_owned(),
        name: None,
        members: ["ann", "bob"].map(|name| (user(name), Role::MEMBER)).into(),
        created_ms: 1,
    };
    assert!(store.create_conversation(&conversation).await.unwrap());
    assert!(shares("ann", "bob").await);
    assert!(!shares("ann", "eve").await && !shares("bob", "nobody").await);
    let direct = ConversationId::direct(&user("ann"), &user("eve")).unwrap();
    let said = Message {
        id: MessageId(Uuid::from_u128(1)),
        conversation: direct,
        seq: Seq(1),
        prev: Seq(0),
        time: 1,
        sender: user("ann"),
        client_id: None,
        reply_to: None,
        kind: MessageKind::TEXT,
        body: Body::from_json("1"),
    };
    store.writer("w").await.unwrap().commit(&[said], &[]).await.unwrap();
    assert!(shares("ann", "eve").await && !shares("bob", "eve").await);
}
