//! Tokens are secrets: a process that is as talkative as it can be says them nowhere. And a cluster takes them back.

use deploy::http_get;
use loadtest::{
    client::{ClientError, Push},
    http,
    token::mint,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{PATIENCE, SECRET, Stage, Standalone, connect, eventually, metric, seen};

/// Closes the connection for ever.
const REVOKED: u16 = 3503;

/// Asks for a stream, and waits until the first thing is said: that of a good token does not end.
async fn begin_stream(address: &str, path: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("\ndata: ") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut said)).await;
        assert!(read.unwrap().unwrap() > 0, "nothing is said: {}", String::from_utf8_lossy(&said));
    }
    assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
}

/// Asks for the path in a way that is no HTTP, which ends the connection; what was wrong with it is in the log.
async fn ask_wrongly(address: &str, path: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/9.9\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_in_no_log_and_in_no_metric() {
    let env = [("STARLING_TOKEN_HMAC_SECRET", SECRET), ("RUST_LOG", "trace")];
    let mut gateway = Standalone::start_with(&env).await;
    let (url, health) = (gateway.url(), gateway.health_url());
    // Whatever carries a token: good ones, and ones that are refused.
    let tokens = [
        mint(SECRET, "alice", 600),
        mint("another secret", "alice", 600),
        format!("{}x", mint(SECRET, "bob", 1)),
    ];
    for token in &tokens {
        let is_good = *token == tokens[0];
        assert_eq!(loadtest::client::Client::connect(&url, token).await.is_ok(), is_good);
        let history = format!("{url}/v1/conversations/conv_alice_bob/messages");
        assert_eq!(http::get::<Value>(&history, Some(token)).await.is_ok(), is_good);
        let connect = format!("%7B%22id%22%3A1%2C%22connect%22%3A%7B%22token%22%3A%22{token}%22%7D%7D");
        begin_stream(&gateway.address(), &format!("/connection/sse?cf_connect={connect}")).await;
        ask_wrongly(&gateway.address(), &format!("/connection/sse?cf_connect={connect}")).await;
        // No route at all.
        assert_eq!(http_get(&format!("{url}/nothing?token={token}")).await.unwrap().status, 404);
    }
    let metrics = http_get(&format!("{health}/metrics")).await.unwrap().body;
    gateway.process().terminate();
    gateway.process().wait_exit(PATIENCE).await.unwrap();
    let log = std::fs::read_to_string(gateway.process().log_path()).unwrap();
    // It was written, and as much of it as there is.
    assert!(log.contains("DEBUG"), "{log}");
    assert!(metrics.contains("starling_connections_opened_total 2"), "{metrics}");
    for token in &tokens {
        let signature = token.rsplit('.').next().unwrap();
        let payload = token.split('.').nth(1).unwrap();
        for secret in [signature, payload, SECRET] {
            assert!(!metrics.contains(secret));
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_node_of_a_cluster() {
    let stage = Stage::start(|_| {}).await;
    let mut lines = Vec::new();
    for url in stage.gateway_urls() {
        lines.push((connect(&url, "alice").await.unwrap(), connect(&url, "bob").await.unwrap()));
    }
    let client = redis::Client::open(stage.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("starling:revocations").arg("*").arg("user").arg("alice").arg("before").arg(1);
    let _: String = add.query_async(&mut connection).await.unwrap();
    for ((_alice, pushes), (bob, _)) in &mut lines {
        let end = async {
            loop {
                if let Push::Closed(code, _) = pushes.next().await.unwrap() {
                    return code;
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, end).await, Ok(REVOKED));
        bob.publish("conv_alice_bob", "1").await.unwrap();
    }
    for url in stage.gateway_urls() {
        assert!(matches!(connect(&url, "alice").await, Err(ClientError::Closed)));
    }
    for index in 0..2 {
        eventually("the metric says it", async || {
            let read = metric(&stage.gateway_health_url(index), "starling_revocations_total").await;
            seen(read > 0.0, || format!("{read}"))
        })
        .await;
    }
}
