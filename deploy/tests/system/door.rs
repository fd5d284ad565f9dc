//! Who is turned away before there is a connection, and what is said.

use loadtest::{client::ClientError, raw::RawClient, token::mint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{PATIENCE, SECRET, Stage, Standalone, connect, eventually, metric, seen};

const PATH: &str = "/connection/websocket";
/// How the protocol spells `limit_exceeded` and `rate_limited`.
const LIMIT_EXCEEDED: u32 = 106;
const RATE_LIMITED: u32 = 111;
const BODY: &str = r#"{"text":"hello"}"#;

async fn node(env: &[(&str, &str)]) -> Standalone {
    let secret = [("STARLING_TOKEN_HMAC_SECRET", SECRET)];
    Standalone::start_with(&[&secret, env].concat()).await
}

/// Opens a WebSocket with these headers; the head of the answer when it is refused.
async fn open(node: &Standalone, headers: &str) -> Result<RawClient, String> {
    let (address, headers) = (node.address(), headers.to_owned());
    let opened = tokio::task::spawn_blocking(move || RawClient::open_with(&address, PATH, &headers, b""));
    opened.await.unwrap().map_err(|error| error.to_string().to_lowercase())
}

fn assert_turned_away(answer: Result<RawClient, String>, status: &str) {
    let head = answer.unwrap_err();
    assert!(head.starts_with(&format!("http/1.1 {status}")) && head.contains("\r\nretry-after: "), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_does_not_take_all_connections() {
    let node = node(&[
        ("STARLING_CONNECTIONS_PER_ADDRESS_MAX", "2"),
        ("STARLING_CONNECTIONS_MAX", "4"),
        ("STARLING_TRUSTED_PROXIES", "1"),
    ])
    .await;
    let from = |address: &str| format!("X-Forwarded-For: 203.0.113.9, {address}\r\n");
    let first = open(&node, &from("2001:db8::1")).await.unwrap();
    let _second = open(&node, &from("2001:db8::2")).await.unwrap();
    assert_turned_away(open(&node, &from("2001:db8::3")).await, "429");
    assert_eq!(node.refused("connections_per_address").await.to_string(), "1");
    let _third = open(&node, &from("2001:db8:0:1::1")).await.unwrap();
    let _fourth = open(&node, &from("192.0.2.1")).await.unwrap();
    assert_turned_away(open(&node, &from("192.0.2.2")).await, "503");
    assert_eq!(node.refused("connections").await.to_string(), "1");
    drop(first);
    eventually("a place is free again", async || open(&node, &from("2001:db8::3")).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_have_a_rate() {
    let node = node(&[("STARLING_HANDSHAKES_PER_SECOND", "1"), ("STARLING_HANDSHAKES_BURST", "3")]).await;
    let mut open_ones = Vec::new();
    let refused = loop {
        match open(&node, "").await {
            Ok(client) => open_ones.push(client),
            Err(head) => break head,
        }
        assert!(open_ones.len() < 100, "nobody is turned away");
    };
    assert!(open_ones.len() >= 3);
    assert_turned_away(Err(refused), "503");
    assert!(node.refused("handshakes_per_second").await > 0.0);
    eventually("handshakes are wanted again", async || open(&node, "").await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_do_not_take_all_places() {
    let node =
        node(&[("STARLING_HANDSHAKES_PENDING_PER_ADDRESS_MAX", "2"), ("STARLING_TRUSTED_PROXIES", "1")]);
    let node = node.await;
    let _silent = [open(&node, "").await.unwrap(), open(&node, "").await.unwrap()];
    assert_turned_away(open(&node, "").await, "429");
    assert!(node.refused("handshakes_pending_per_address").await > 0.0);
    open(&node, "X-Forwarded-For: 192.0.2.1\r\n").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_has_so_many_connections() {
    let node = node(&[("STARLING_CONNECTIONS_PER_USER_MAX", "2")]).await;
    let first = connect(&node.url(), "alice").await.unwrap();
    let _second = connect(&node.url(), "alice").await.unwrap();
    let refused = connect(&node.url(), "alice").await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { code: LIMIT_EXCEEDED, temporary: false, .. }),
        "{refused:?}"
    );
    let _other = connect(&node.url(), "bob").await.unwrap();
    assert!(node.refused("connections_per_user").await > 0.0);
    drop(first);
    let again = async || connect(&node.url(), "alice").await.map(drop).map_err(|error| error.to_string());
    eventually("a place is free again", again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_have_one_rate_on_all_nodes() {
    const BURST: u64 = 20;
    let stage = Stage::start(|options| {
        for (name, value) in
            [("STARLING_PUBLISHES_PER_USER_PER_SECOND", 1), ("STARLING_PUBLISHES_PER_USER_BURST", BURST)]
        {
            options.gateway_env.push((name.to_owned(), value.to_string()));
        }
    })
    .await;
    let clients = [
        connect(&stage.gateway_url(0), "alice").await.unwrap(),
        connect(&stage.gateway_url(1), "alice").await.unwrap(),
    ];
    let started = tokio::time::Instant::now();
    let mut accepted = 0;
    let refused = loop {
        let (client, _) = &clients[usize::from(accepted % 2 == 1)];
        match client.send("conv_alice_bob", &accepted.to_string(), BODY, false).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(started.elapsed() < PATIENCE, "{accepted} are accepted");
    };
    assert!(
        matches!(refused, ClientError::Refused { code: RATE_LIMITED, temporary: true, .. }),
        "{refused:?}"
    );
    let at_most = BURST + started.elapsed().as_secs() + 1;
    assert!((BURST..=at_most).contains(&accepted), "{accepted} by two nodes, {at_most} would be right");
    let name = "starling_limit_refusals_total";
    let refused =
        metric(&stage.gateway_health_url(0), name).await + metric(&stage.gateway_health_url(1), name).await;
    assert!(refused > 0.0);
    let (bob, _pushes) = connect(&stage.gateway_url(0), "bob").await.unwrap();
    bob.send("conv_alice_bob", "bobs-own", BODY, false).await.unwrap();
    let (client, _) = &clients[0];
    eventually("it is paid back", async || {
        let sent = client.send("conv_alice_bob", "later", BODY, true).await;
        seen(sent.is_ok(), || format!("{sent:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_stay_outside() {
    let node = node(&[("STARLING_ALLOWED_ORIGINS", "https://app.example,http://localhost:3000")]).await;
    let own = format!("Origin: http://{}\r\n", node.address());
    for good in ["", &own, "Origin: https://app.example\r\n", "Origin: http://LOCALHOST:3000\r\n"] {
        open(&node, good).await.unwrap_or_else(|head| panic!("{good}: {head}"));
    }
    for bad in [
        "Origin: null\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: http://app.example\r\n",
        "Origin: https://app.example:8443\r\n",
        "Origin: https://app.example.evil.example\r\n",
        "Origin: http://localhost\r\n",
        "Origin: https://app.example\r\nOrigin: https://evil.example\r\n",
        "Origin: https://evil.example\r\nCookie: token=whatever\r\n",
    ] {
        let head = open(&node, bad).await.unwrap_err();
        assert!(head.starts_with("http/1.1 403"), "{bad}: {head}");
    }
}

/// Sends the head of a POST and the beginning of a body that never ends, or never begins; reads the whole answer.
async fn trickle(node: &Standalone, path: &str, length: usize, beginning: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let token = mint(SECRET, "alice", 3_600);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n",
        node.address()
    );
    stream.write_all(&[head.as_bytes(), beginning].concat()).await.unwrap();
    let mut answer = Vec::new();
    // The node ends the connection: what may come yet is no request.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_has_its_time_and_its_size() {
    let node = node(&[("STARLING_BODY_SECONDS_MAX", "1")]).await;
    let paths = ["/v1/conversations", "/connection/http_stream", "/emulation"];
    for path in paths {
        for beginning in [b"".as_slice(), b"{"] {
            let answer = trickle(&node, path, 100, beginning).await;
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(r#""code":"timeout""#), "{answer}");
        }
    }
    assert_eq!(node.refused("body_seconds").await.to_string(), "6");
    drop(node);
    // With time enough for all of it, it is the size that is wrong.
    let node = self::node(&[]).await;
    for path in paths {
        let answer = trickle(&node, path, 70_000, &vec![b' '; 65_537]).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains(r#""code":"too_large""#), "{answer}");
    }
    assert_eq!(node.refused("request_bytes").await.to_string(), "3");
}
