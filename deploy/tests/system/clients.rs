//! The stock clients and a real browser, run by Node, against a cluster.

use std::{path::Path, process::Stdio, time::Duration};

use deploy::ClusterOptions;
use tokio::process::Command;

use crate::support::{SECRET, Stage, Standalone};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/tests/clients");
/// Each script gives up by itself before.
const SCRIPT_TIMEOUT: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_and_a_browser_on_two_nodes() {
    let stage = Stage::start(|options: &mut ClusterOptions| options.haproxy = true).await;
    let shots = tempfile::tempdir().unwrap();
    let urls = [
        ("URL_A", stage.gateway_url(0)),
        ("URL_B", stage.gateway_url(1)),
        ("URL_LB", stage.balancer_url().unwrap()),
        ("SHOT_DIR", shots.path().to_string_lossy().into_owned()),
    ];
    let mut failures = Vec::new();
    for script in ["sdk.mjs", "transports.mjs", "page.mjs"] {
        failures.extend(run(script, &urls).await.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_client_on_a_standalone_node() {
    let node = Standalone::start().await;
    let urls = [("URL_A", node.url()), ("URL_B", node.url())];
    run("sdk.mjs", &urls).await.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Runs a script of [`SCRIPTS`] to its end.
pub async fn run(script: &str, env: &[(&str, String)]) -> Result<(), String> {
    node(Path::new(SCRIPTS), &[script], env).await.map(drop)
}

/// Runs Node with `arguments`, of which the first is a script in `dir`, to its end, shows what it printed, and returns what it
/// printed to its standard output, or says which script failed.
pub async fn node(dir: &Path, arguments: &[&str], env: &[(&str, String)]) -> Result<String, String> {
    let script = arguments.join(" ");
    assert!(
        dir.join("node_modules/.package-lock.json").is_file(),
        "the npm packages are not installed: run `make test`, or `npm ci` in {}",
        dir.display()
    );
    let mut command = Command::new("node");
    command.args(arguments).current_dir(dir).env("TOKEN_SECRET", SECRET).stdin(Stdio::null());
    command.envs(env.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
    let output = match tokio::time::timeout(SCRIPT_TIMEOUT, command.output()).await {
        Ok(output) => output.expect("node runs: `make test` installs it"),
        Err(_) => return Err(format!("{script} does not end")),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("--- {script}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(format!("{script} failed, see its output above")) }
}
