//! The load scenarios against a real server: what they count must be right, whatever the machine is busy with.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{SECRET, Standalone};

/// The tester's exit code when the machine was too busy for it to tell delays; what it counted holds all the same.
const LIMITED: i32 = 2;

/// Runs a scenario for a second, and returns its exit code and its report.
async fn run(node: &Standalone, arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(deploy::binary("loadtest").unwrap())
        .args(arguments)
        .args(["--url", &node.url(), "--token-secret", SECRET, "--json", "--seconds", "1", "--warmup", "0"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code().unwrap(), report)
}

fn count(report: &Value, name: &str) -> u64 {
    report["total"][name].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_counts_each_delivery_once() {
    let node = Standalone::start().await;
    for (arguments, members) in [
        (["fanout", "--members=20", "--rate=20", "--workers=2"].as_slice(), 20),
        (["fanout", "--members=20", "--outstanding=2"].as_slice(), 20),
        (["chat", "--conversations=20", "--rate=20"].as_slice(), 2),
        (["storm", "--connections=20", "--members=10", "--rate=20"].as_slice(), 10),
    ] {
        let (code, report) = run(&node, arguments).await;
        assert!(code == 0 || code == LIMITED, "{arguments:?}: {code}, {report:#}");
        let accepted = count(&report, "accepted");
        assert!(accepted > 0, "{arguments:?}: {report:#}");
        assert_eq!(count(&report, "publishes"), accepted, "{arguments:?}: {report:#}");
        assert_eq!(count(&report, "due"), accepted * members, "{arguments:?}: {report:#}");
        assert_eq!(count(&report, "delivered"), accepted * members, "{arguments:?}: {report:#}");
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
