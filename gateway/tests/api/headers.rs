//! What every answer says to browsers, and the document that describes the rest.

use serde_json::json;

use crate::node::{FRIEND, Site, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_safe_by_default() {
    let site = Site::new();
    let node = site.start("one").await;
    let bob = token("bob");
    for (method, path, bearer, status) in [
        ("GET", "/v1/conversations", bob.as_str(), 200),
        ("GET", "/v1/conversations", "", 401),
        ("GET", "/nothing", "", 404),
        ("PUT", "/v1/conversations", &bob, 405),
        ("GET", "/openapi.json", "", 200),
        ("GET", "/docs", "", 200),
        ("GET", "/docs/docs.js", "", 200),
        ("GET", "/docs/docs.css", "", 200),
        ("GET", "/chat", "", 200),
    ] {
        let answer = node.ask(method, path, bearer, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
        if status >= 400 {
            answer.problem();
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("strict-transport-security", "max-age=60"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method} {path}: {name}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(answer.header("cache-control").is_some());
    }
    assert_eq!(
        node.ask("GET", "/v1/conversations", "", None).await.header("www-authenticate"),
        Some("Bearer")
    );
    let refused = node.ask("PUT", "/v1/conversations", &bob, None).await;
    let mut allowed: Vec<&str> = refused.header("allow").unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_pages_may_read_answers() {
    let site = Site::new();
    let node = site.start("one").await;
    let bob = token("bob");
    let preflight = [("access-control-request-method", "DELETE")];
    for (origin, is_friend) in [(FRIEND, true), ("https://evil.example", false), ("null", false)] {
        let origin = ("origin", origin);
        let answer = node.ask_with("GET", "/v1/conversations", &bob, &[origin], None).await;
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, is_friend.then_some(FRIEND));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
        let before = node
            .ask_with("OPTIONS", "/v1/conversations/x/members/y", "", &[origin, preflight[0]], None)
            .await;
        assert_eq!(before.header("access-control-allow-origin").is_some(), is_friend);
        let headers = before.header("access-control-allow-headers").unwrap_or_default();
        assert_eq!(headers.contains("idempotency-key"), is_friend);
        let asks =
            [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "x-app")];
        let before = node.ask_with("OPTIONS", "/socket.io/?EIO=4&transport=polling", "", &asks, None).await;
        assert_eq!(before.header("access-control-allow-credentials"), is_friend.then_some("true"));
        assert_eq!(before.header("access-control-allow-headers"), is_friend.then_some("x-app"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_document_is_there_and_asks_who_it_is() {
    let site = Site::new();
    let node = site.start("one").await;
    let document = node.ask("GET", "/openapi.json", "", None).await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", "conv_a_b").replace("{user}", "a");
            let answer = node.ask(&method.to_uppercase(), &path, "", Some(json!({}))).await;
            assert_eq!(answer.problem(), (401, "unauthorized".to_owned()), "{method} {path}");
            operations += 1;
        }
    }
    assert_eq!(operations, 34);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_could_read_otherwise_is_refused() {
    let site = Site::new();
    let node = site.start("one").await;
    for header in [
        ("host", "evil.example"),
        ("content-length", "3"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", "chunked, identity"),
        ("content-length ", "0"),
    ] {
        let answer = node.raw("GET", "/openapi.json", "", &[header], "").await;
        assert_eq!(answer.status, 400, "{header:?}: {answer:?}");
    }
    let nested = format!("{{\"body\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let path = "/v1/conversations/conv_alice_bob/messages";
    let answer = node.raw("POST", path, &token("alice"), &[], &nested).await;
    assert_eq!(answer.problem(), (400, "invalid".to_owned()));
}
