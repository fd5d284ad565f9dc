//! The load scenarios against real servers: what they count must be right, whatever the machine is busy with.

use std::{path::Path, process::Stdio};

use deploy::{Process, Program, free_port};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    clients,
    support::{PATIENCE, SECRET, Standalone, eventually, metric, seen},
};

/// The tester's exit code when the machine was too busy for it to tell delays; what it counted holds all the same.
const LIMITED: i32 = 2;
const PHOENIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../loadtest/peers/phoenix");

fn tester(url: &str, arguments: &[&str]) -> Child {
    Command::new(deploy::binary("loadtest").unwrap())
        .args(arguments)
        .args(["--url", url, "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Its exit code, its report, and what it said beside that.
async fn finish(tester: Child) -> (i32, Value, String) {
    let output = tester.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

/// Runs a scenario for a second, and returns its exit code and its report.
async fn run(node: &Standalone, arguments: &[&str]) -> (i32, Value) {
    let short = [arguments, &["--token-secret", SECRET, "--seconds", "1", "--warmup", "0"]].concat();
    let (code, report, said) = finish(tester(&node.url(), &short)).await;
    assert!(report.is_object(), "{arguments:?}: {said}");
    (code, report)
}

fn count(report: &Value, name: &str) -> u64 {
    report["total"][name].as_u64().unwrap()
}

/// Every message was accepted and came to all its members, or its loss has a name.
fn assert_exact(arguments: &[&str], (code, report): &(i32, Value), members: u64) {
    assert!(*code == 0 || *code == LIMITED, "{arguments:?}: {code}, {report:#}");
    let accepted = count(report, "accepted");
    assert!(accepted > 0, "{arguments:?}: {report:#}");
    assert_eq!(count(report, "publishes"), accepted, "{arguments:?}: {report:#}");
    assert_eq!(count(report, "due"), accepted * members, "{arguments:?}: {report:#}");
    let came = count(report, "delivered") + count(report, "not_recovered");
    assert_eq!(came, accepted * members, "{arguments:?}: {report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_counts_each_delivery_once() {
    let node = Standalone::start().await;
    for (arguments, members) in [
        (["fanout", "--members=20", "--rate=20", "--workers=2"].as_slice(), 20),
        (["fanout", "--members=20", "--outstanding=2", "--bytes=1024"].as_slice(), 20),
        (["chat", "--conversations=20", "--rate=20"].as_slice(), 2),
        (["soak", "--conversations=20", "--rate=20"].as_slice(), 2),
        (["storm", "--connections=20", "--members=10", "--rate=20"].as_slice(), 10),
        (["storm", "--protocol=socketio", "--connections=20", "--members=10", "--rate=20"].as_slice(), 10),
        (["fanout", "--members=20", "--rate=20", "--transport=sse", "--workers=2"].as_slice(), 20),
        (["fanout", "--members=20", "--rate=20", "--transport=http_stream"].as_slice(), 20),
        (
            ["fanout", "--members=20", "--rate=20", "--protocol=socketio", "--transport=polling"].as_slice(),
            20,
        ),
        (["storm", "--transport=sse", "--connections=20", "--members=10", "--rate=20"].as_slice(), 10),
    ] {
        let found = run(&node, arguments).await;
        assert_exact(arguments, &found, members);
        assert_eq!(count(&found.1, "unrecoverable"), 0, "{arguments:?}: {:#}", found.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_more_than_a_resume_brings_reads_on_in_the_history() {
    let limits = [("STARLING_TOKEN_HMAC_SECRET", SECRET), ("STARLING_CATCHUP_MESSAGES_MAX", "1")];
    let node = Standalone::start_with(&limits).await;
    let storm = ["storm", "--connections=10", "--members=10", "--rate=100", "--spread-ms=2000"];
    for protocol in ["--protocol=centrifuge", "--protocol=socketio"] {
        let arguments = [storm.as_slice(), &[protocol]].concat();
        let found = run(&node, &arguments).await;
        assert_exact(&arguments, &found, 10);
        assert!(count(&found.1, "limited") > 0, "{arguments:?}: {:#}", found.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phoenix_server_is_measured_and_what_it_does_not_keep_is_not_lost() {
    let script = clients::node(Path::new(PHOENIX), &["check.mjs"], &[]).await;
    script.unwrap_or_else(|failure| panic!("{failure}"));

    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let program = Program::new("phoenix", "/usr/bin/env")
        .arg("node")
        .arg(format!("{PHOENIX}/server.mjs"))
        .env("PORT", port.to_string());
    let mut peer = Process::spawn(&program, dir.path()).unwrap();
    let is_open = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    peer.wait_until("listening", PATIENCE, is_open).await.unwrap();
    let url = format!("http://127.0.0.1:{port}");
    for (arguments, members) in [
        (["fanout", "--members=20", "--rate=20", "--workers=2"].as_slice(), 20),
        (["chat", "--conversations=20", "--rate=20"].as_slice(), 2),
        (["storm", "--connections=20", "--members=10", "--rate=50"].as_slice(), 10),
    ] {
        let common = ["--protocol=phoenix", "--plain", "--seconds=1", "--warmup=0"];
        let (code, report, said) = finish(tester(&url, &[arguments, &common].concat())).await;
        assert!(report.is_object(), "{arguments:?}: {said}");
        assert_exact(arguments, &(code, report.clone()), members);
        let is_storm = arguments[0] == "storm";
        assert_eq!(count(&report, "unrecoverable") > 0, is_storm, "{arguments:?}: {report:#}");
    }
    let arguments = ["idle", "--connections=20", "--protocol=phoenix", "--plain", "--seconds=1"];
    let (code, report, said) = finish(tester(&url, &arguments)).await;
    assert!(code == 0 && report["absent"] == 0, "{said}, {report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_are_held_by_every_transport() {
    let node = Standalone::start().await;
    for (protocol, transport) in [
        ("centrifuge", "sse"),
        ("centrifuge", "http_stream"),
        ("socketio", "websocket"),
        ("socketio", "polling"),
    ] {
        let arguments = ["idle", "--connections=20", "--protocol", protocol, "--transport", transport];
        let (code, report) = run(&node, &arguments).await;
        assert!(code == 0 || code == LIMITED, "{arguments:?}: {report:#}");
        assert_eq!(count(&report, "connected"), 20, "{arguments:?}: {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_objective_is_said_by_the_exit_code() {
    let mut node = Standalone::start().await;
    let pid = node.process().pid().to_string();
    let page = tempfile::NamedTempFile::new().unwrap();
    let path = page.path().to_str().unwrap();
    let idle = ["idle", "--connections=20", "--pid", &pid, "--report", path];
    let (code, report) = run(&node, &[idle.as_slice(), &["--max-kib=100000"]].concat()).await;
    assert!(code == 0 || code == LIMITED, "{report:#}");
    assert_eq!(report["connections"], 20);
    assert!(report["server"][0]["kib_per_connection"].is_number(), "{report:#}");
    assert!(std::fs::read_to_string(path).unwrap().contains("<svg"));

    // Nothing was published, so that nothing can be said of it.
    let (code, report) = run(&node, &[idle.as_slice(), &["--max-p99-ms=1"]].concat()).await;
    assert!(code == 1 || code == LIMITED, "{report:#}");
    assert_eq!(report["objectives"][0]["found"], Value::Null, "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_for_the_capacity_counts_what_is_under_way_and_says_what_broke() {
    let node = Standalone::start().await;
    // No delivery takes a nanosecond, so the first step breaks, twice.
    let search = ["capacity", "--room=20", "--from=50", "--max-p99-ms=0.000001"];
    let (_, report) = run(&node, &search).await;
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{report:#}");
    assert!(steps.iter().all(|step| step["lost"] == 0 && step["failed"] == 0), "{report:#}");
    assert!(report["capacity"]["limit"].as_str().unwrap().contains("p99"), "{report:#}");
    assert_eq!(report["capacity"]["publishes_per_second"], 0.0, "{report:#}");
    // Without the server's process nobody can say that it was the server.
    assert_eq!(report["capacity"]["is_servers"], false, "{report:#}");
    assert_eq!(count(&report, "delivered"), count(&report, "accepted") * 20, "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_is_followed_by_another() {
    let env = [
        ("STARLING_TOKEN_HMAC_SECRET", SECRET),
        ("STARLING_PUBLISHES_PER_USER_PER_SECOND", "10"),
        ("STARLING_PUBLISHES_PER_USER_BURST", "4"),
    ];
    let node = Standalone::start_with(&env).await;
    let (_, report) = run(&node, &["fanout", "--members=3", "--outstanding=8"]).await;
    let refused = report["total"]["refused"].as_object().unwrap().values().filter_map(Value::as_u64);
    // If those that are under way ended with their refusal, there would be no more than so many.
    assert!(refused.sum::<u64>() > 8, "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_ends_the_run() {
    let mut node = Standalone::start().await;
    let url = node.url();
    let fanout = ["fanout", "--members=20", "--rate=20", "--token-secret", SECRET, "--seconds=600"];
    let tester = tester(&url, &fanout);
    published(&node).await;
    node.process().kill9();
    let (code, report, said) = finish(tester).await;
    assert_eq!(code, 1, "{said}, {report:#}");
    assert_eq!((&report["is_gone"], &report["absent"]), (&Value::Bool(true), &Value::from(20)), "{report:#}");

    let (code, _, said) = finish(self::tester(&url, &["idle", "--connections=1", "--plain"])).await;
    assert!(code == 1 && said.contains("is not there"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_reports_what_it_saw() {
    let node = Standalone::start().await;
    let fanout = ["fanout", "--members=20", "--rate=20", "--token-secret", SECRET, "--seconds=600"];
    let tester = tester(&node.url(), &fanout);
    published(&node).await;
    // The shell's own `kill`: a program of that name is missing on small systems.
    let interrupt = format!("kill -s INT {}", tester.id().unwrap());
    assert!(std::process::Command::new("/bin/sh").args(["-c", &interrupt]).status().unwrap().success());
    let (code, report, said) = finish(tester).await;
    assert!(code == 0 || code == LIMITED, "{code}: {said}, {report:#}");
    assert_eq!(report["over"], "interrupted", "{report:#}");
    assert_eq!(count(&report, "delivered"), count(&report, "accepted") * 20, "{report:#}");
}

/// Waits until messages are being sent.
async fn published(node: &Standalone) {
    let url = node.health_url();
    let sent = async || {
        let sent = metric(&url, "starling_publishes_total").await;
        seen(sent > 20.0, || format!("{sent} were published"))
    };
    eventually("messages are sent", sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_said_at_once() {
    let node = Standalone::start().await;
    let wrong = "another secret, which is long enough too";
    for (arguments, word) in [
        (["idle", "--connections=5", "--token-secret", wrong].as_slice(), "3500"),
        (["idle", "--protocol=socketio", "--token-secret", wrong].as_slice(), "unauthorized"),
        // With a key of its own a node gives no tokens away.
        (["idle"].as_slice(), "404"),
        (["idle", "--protocol=socketio", "--transport=sse"].as_slice(), "not carried"),
        (["soak", "--minutes=1", "--seconds=1"].as_slice(), "cannot be used with"),
        (["fanout", "--rate=0"].as_slice(), "above 0"),
    ] {
        let (code, report, said) = finish(tester(&node.url(), arguments)).await;
        assert!(code == 1 && said.contains(word), "{arguments:?}: {code}, {said}, {report:#}");
    }
}
