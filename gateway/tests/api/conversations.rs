//! Making, listing, sending, and reading back.

use serde_json::{Value, json};

use crate::node::{Site, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_conversation_is_made_once_and_a_group_each_time() {
    let site = Site::new();
    let node = site.start("one").await;
    let alice = token("alice");
    let direct = json!({ "kind": "direct", "members": ["bob"] });
    let made = node.ask("POST", "/v1/conversations", &alice, Some(direct.clone())).await;
    assert_eq!((made.status, &made.json()["id"]), (201, &json!("conv_alice_bob")));
    let again = node.ask("POST", "/v1/conversations", &alice, Some(direct)).await;
    assert_eq!((again.status, again.json()), (200, made.json()));
    assert_ne!(node.group(&["bob"]).await, node.group(&["bob"]).await);
    for bad in [
        json!({ "kind": "direct", "members": ["bob", "carol"] }),
        json!({ "kind": "direct", "members": ["alice"] }),
        json!({ "kind": "group", "members": ["a b"] }),
        json!({ "kind": "group", "members": ["$server"] }),
        json!({ "kind": "group", "members": [], "name": "" }),
        json!({ "kind": "party", "members": [] }),
        json!({ "kind": "group", "members": [], "owner": "bob" }),
    ] {
        let answer = node.ask("POST", "/v1/conversations", &alice, Some(bad.clone())).await;
        assert_eq!(answer.problem(), (400, "invalid".to_owned()), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_two_pairs_share_is_not_handed_over() {
    let site = Site::new();
    let node = site.start("one").await;
    let make = async |user: &str, other: &str| {
        let body = json!({ "kind": "direct", "members": [other] });
        node.ask("POST", "/v1/conversations", &token(user), Some(body)).await
    };
    assert_eq!(make("a", "b_c").await.json()["id"], "conv_a_b_c");
    assert_eq!(make("a_b", "c").await.problem(), (403, "forbidden".to_owned()));
    assert_eq!(node.send(&token("c"), "conv_a_b_c", "mine?").await.status, 403);
    assert_eq!(node.send(&token("b_c"), "conv_a_b_c", "mine").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_send_gets_the_first_answer() {
    let site = Site::new();
    let (one, two) = (site.start("one").await, site.start("two").await);
    let alice = token("alice");
    let path = "/v1/conversations/conv_alice_bob/messages";
    let key = [("idempotency-key", "k-1")];
    let first = one.ask_with("POST", path, &alice, &key, Some(json!({ "body": 1 }))).await;
    assert_eq!((first.status, &first.json()["seq"]), (200, &json!(1)));
    assert!(first.json()["id"].is_string() && first.json()["time"].is_u64());
    let again = two.ask_with("POST", path, &alice, &key, Some(json!({ "body": 1, "retry": true }))).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    // The name is the sender's own.
    let other = two.ask_with("POST", path, &token("bob"), &key, Some(json!({ "body": 1 }))).await;
    assert_eq!(other.json()["seq"], 2);
    let unnamed = one.ask("POST", path, &alice, Some(json!({ "body": null, "kind": "image" }))).await;
    assert_eq!(unnamed.json()["seq"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_refused_by_name() {
    let site = Site::new();
    let node = site.start("one").await;
    let alice = token("alice");
    let path = "/v1/conversations/conv_alice_bob/messages";
    let deep = format!("{{\"body\":{}{}}}", "[".repeat(33), "]".repeat(33));
    let long = format!("{{\"body\":\"{}\"}}", "x".repeat(32 * 1024));
    let huge = format!("{{\"body\":\"{}\"}}", "x".repeat(64 * 1024));
    for (body, status, code) in [
        ("", 400, "invalid"),
        ("{}", 400, "invalid"),
        ("{\"body\":1,\"kind\":\"void\"}", 400, "invalid"),
        ("{\"body\":1,\"kind\":\"No\"}", 400, "invalid"),
        ("{\"body\":1,\"seq\":1}", 400, "invalid"),
        // No store has such a place: accepted, the message could not be kept.
        ("{\"body\":1,\"reply_to\":9223372036854775808}", 400, "invalid"),
        ("{\"body\":1", 400, "invalid"),
        (&deep, 400, "invalid"),
        (&long, 413, "too_large"),
        (&huge, 413, "too_large"),
    ] {
        let answer = node.raw("POST", path, &alice, &[], body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{}", &body[..body.len().min(40)]);
    }
    let named =
        node.ask_with("POST", path, &alice, &[("idempotency-key", "a b")], Some(json!({ "body": 1 }))).await;
    assert_eq!(named.problem(), (400, "invalid".to_owned()));
    let history = node.ask("GET", path, &alice, None).await;
    assert_eq!(history.json()["messages"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_paged_both_ways_without_a_hole() {
    let site = Site::new();
    let node = site.start("one").await;
    let alice = token("alice");
    let path = "/v1/conversations/conv_alice_bob/messages";
    for n in 1..=7 {
        assert_eq!(node.send(&alice, "conv_alice_bob", &format!("m{n}")).await.status, 200);
    }
    let page = async |query: &str| node.ask("GET", &format!("{path}?{query}"), &alice, None).await.json();
    let seqs = |page: &Value| {
        page["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };

    let mut back = page("limit=3").await;
    assert_eq!((seqs(&back), &back["older"], &back["newer"]), (vec![7, 6, 5], &json!(5), &Value::Null));
    let mut all = seqs(&back);
    while let Some(before) = back["older"].as_u64() {
        back = page(&format!("limit=3&before={before}")).await;
        all.extend(seqs(&back));
    }
    assert_eq!(all, [7, 6, 5, 4, 3, 2, 1]);

    let mut on = page("limit=3&after=0").await;
    assert_eq!((seqs(&on), &on["older"], &on["newer"]), (vec![1, 2, 3], &Value::Null, &json!(3)));
    let mut all = seqs(&on);
    while let Some(after) = on["newer"].as_u64() {
        on = page(&format!("limit=3&after={after}")).await;
        all.extend(seqs(&on));
    }
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 7]);
    let middle = page("limit=2&before=5").await;
    assert_eq!((seqs(&middle), &middle["older"], &middle["newer"]), (vec![4, 3], &json!(3), &json!(4)));

    for bad in ["limit=0", "limit=501", "limit=x", "after=1&before=2", "after=-1"] {
        let answer = node.ask("GET", &format!("{path}?{bad}"), &alice, None).await;
        assert_eq!(answer.problem(), (400, "invalid".to_owned()), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_lists_its_own_conversations() {
    let site = Site::new();
    let node = site.start("one").await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(node.group(&["bob"]).await);
    }
    node.group(&["carol"]).await;
    let bob = token("bob");
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/v1/conversations?limit=2{next}");
        let page = node.ask("GET", &path, &bob, None).await.json();
        for entry in page["conversations"].as_array().unwrap() {
            assert_eq!((&entry["kind"], &entry["role"]), (&json!("group"), &json!("member")));
            found.push(entry["id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(after) => next = format!("&after={after}"),
            None => break,
        }
    }
    made.reverse();
    assert_eq!(found, made, "newest first");
    let bad = node.ask("GET", "/v1/conversations?limit=201", &bob, None).await;
    assert_eq!(bad.problem(), (400, "invalid".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_managed_by_the_owner() {
    let site = Site::new();
    let node = site.start("one").await;
    let id = node.group(&["bob"]).await;
    let members = format!("/v1/conversations/{id}/members");
    let (alice, bob) = (token("alice"), token("bob"));
    let add = |who: &'static str| Some(json!({ "members": [who] }));
    assert_eq!(node.ask("POST", &members, &bob, add("carol")).await.problem(), (403, "forbidden".to_owned()));
    assert_eq!(node.ask("POST", &members, &alice, add("carol")).await.status, 204);
    assert_eq!(node.ask("POST", &members, &alice, add("carol")).await.status, 204);
    let list = node.ask("GET", &members, &bob, None).await;
    let expected = json!({ "members": [
        { "user": "alice", "role": "owner" },
        { "user": "bob", "role": "member" },
        { "user": "carol", "role": "member" },
    ] });
    assert_eq!(list.json(), expected);
    let remove = async |bearer: &str, who: &str| {
        node.ask("DELETE", &format!("{members}/{who}"), bearer, None).await.status
    };
    assert_eq!(remove(&bob, "carol").await, 403);
    assert_eq!(remove(&bob, "bob").await, 204, "a member may leave");
    assert_eq!(remove(&bob, "bob").await, 403, "it is a stranger now");
    assert_eq!(remove(&alice, "carol").await, 204);
    assert_eq!(remove(&alice, "carol").await, 204, "again changes nothing");
    let none = Some(json!({ "members": [] }));
    assert_eq!(node.ask("POST", &members, &alice, none).await.status, 400);
    let many: Vec<String> = (0..1_000).map(|n| format!("u{n}")).collect();
    let many = node.ask("POST", &members, &alice, Some(json!({ "members": many }))).await;
    assert_eq!(many.problem(), (429, "limit_exceeded".to_owned()));

    let direct = "/v1/conversations/conv_alice_bob/members";
    let pair = node.ask("GET", direct, &bob, None).await.json();
    assert_eq!(pair["members"][0], json!({ "user": "alice", "role": "member" }));
    assert_eq!(node.ask("POST", direct, &bob, add("carol")).await.problem(), (400, "invalid".to_owned()));
    assert_eq!(node.ask("DELETE", &format!("{direct}/bob"), &bob, None).await.status, 400);
}
