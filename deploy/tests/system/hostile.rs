//! Hostile clients against a real gateway: each is shown the door, the memory stays bounded, and others do not notice.

use std::time::Duration;

use loadtest::{
    raw::{RawClient, TEXT, frame},
    token::mint,
};

use crate::support::{SECRET, Standalone, Traffic, connect};

const PATH: &str = "/connection/websocket";
/// How far the gateway's resident memory may grow under attack, in KiB.
const GROWTH_KIB_MAX: u64 = 32 * 1024;
/// What an attacker tries to make the gateway keep, in bytes; far more than the above.
const POUR_BYTES: usize = 256 << 20;
/// How many say that something huge is coming, and how many say nothing.
const CROWD: usize = 300;
const STALE: u16 = 3502;
const CONVERSATION: &str = "conv_alice_bob";

fn open(address: &str) -> RawClient {
    RawClient::open(address, PATH, b"").unwrap()
}

/// A client that has shown its token, and may then do more.
fn authenticated(address: &str) -> RawClient {
    let mut client = open(address);
    let token = mint(SECRET, "mallory", 3600);
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
    client.write(&frame(TEXT, connect.as_bytes())).unwrap();
    let (first, answer) = client.read_frame().unwrap();
    assert!(first == TEXT && answer.starts_with(br#"{"id":1,"connect":"#), "{answer:?}");
    client
}

/// Each offence ends the connection with its code, before and after a token was shown.
fn offend(address: &str) {
    let offences: [(&str, Vec<u8>, u16); 6] = [
        ("unmasked", b"\x81\x02{}".to_vec(), 1002),
        ("oversize frame", frame(TEXT, &vec![b' '; 65_537]), 1009),
        ("endless length", b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(), 1009),
        ("empty fragments", [frame(0x01, b""), frame(0x00, b"").repeat(64)].concat(), 1009),
        ("not text", frame(TEXT, b"\xff"), 1007),
        ("flood of pongs", frame(0x8a, b"").repeat(101), 1008),
    ];
    for start in [open, authenticated] {
        for (name, bytes, code) in &offences {
            let mut client = start(address);
            client.write(bytes).unwrap();
            assert_eq!(client.close_code().unwrap(), *code, "{name}");
            assert!(client.has_ended(), "{name}");
        }
    }
}

/// One message in endless pieces.
fn pour(address: &str) {
    for size in [1_000, 60_000] {
        let mut client = authenticated(address);
        client.write(&frame(0x01, &vec![b' '; size])).unwrap();
        let poured = client.pour(&frame(0x00, &vec![b' '; size]), POUR_BYTES);
        assert!(poured < POUR_BYTES, "the gateway hangs up long before");
        assert_eq!(client.close_code().unwrap(), 1009);
    }
}

/// Many clients that say that 64 MiB are coming.
fn announce(address: &str) {
    let announced = |_| {
        let mut client = open(address);
        client.write(&[0x81, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        client
    };
    let mut clients: Vec<_> = (0..CROWD).map(announced).collect();
    for client in &mut clients {
        assert_eq!(client.close_code().unwrap(), 1009);
    }
}

fn end_of(mut crowd: Vec<RawClient>) {
    for client in &mut crowd {
        assert_eq!(client.close_code().unwrap(), STALE);
        assert!(client.has_ended());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_are_shown_the_door_and_others_do_not_notice() {
    let mut node = Standalone::start().await;
    let traffic = Traffic { conversations: 2, messages: 100, ..Traffic::default() };
    // Once before, so that what ordinary work takes is not put down to the attack.
    traffic.finish(node.traffic(traffic).await).await;
    let before = node.process().rss_kib().unwrap();
    let run = node.traffic(traffic).await;

    let address = node.address();
    let crowd: Vec<_> = tokio::task::spawn_blocking({
        let address = address.clone();
        move || (0..CROWD).map(|_| open(&address)).collect()
    })
    .await
    .unwrap();
    let mut most = node.process().rss_kib().unwrap();
    for attack in [offend, pour, announce] {
        let address = address.clone();
        let attack = tokio::task::spawn_blocking(move || attack(&address));
        while !attack.is_finished() {
            most = most.max(node.process().rss_kib().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        attack.await.unwrap();
    }
    // The crowd that says nothing is still there.
    let (client, _pushes) = connect(&node.url(), "alice").await.unwrap();
    assert_eq!(client.send(CONVERSATION, "meanwhile", "{}", false).await.unwrap().seq, 1);
    most = most.max(node.process().rss_kib().unwrap());
    tokio::task::spawn_blocking(move || end_of(crowd)).await.unwrap();
    traffic.finish(run).await;
    most = most.max(node.process().rss_kib().unwrap());
    eprintln!("resident memory: {before} KiB before, at most {most} KiB under attack");
    assert!(most < before + GROWTH_KIB_MAX, "{before} KiB before, {most} KiB under attack");
}
