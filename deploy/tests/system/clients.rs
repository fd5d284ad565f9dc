//! The stock clients and a real browser, run by Node, against a cluster.

use std::{path::Path, process::Stdio, time::Duration};

use deploy::ClusterOptions;
use tokio::process::Command;

use crate::{
    api::{KEY, KEY_LINE},
    support::{SECRET, Stage, Standalone},
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/tests/clients");
const CHAT_APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/examples/centrifuge-chat");
/// Each script gives up by itself before.
const SCRIPT_TIMEOUT: Duration = Duration::from_mins(8);

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_app_on_the_stock_client() {
    let key = ("STARLING_API_KEYS".to_owned(), KEY_LINE.to_owned());
    let stage = Stage::start(|options: &mut ClusterOptions| options.gateway_env.push(key)).await;
    let standalone =
        Standalone::start_with(&[("STARLING_API_KEYS", KEY_LINE), ("STARLING_TOKEN_HMAC_SECRET", SECRET)])
            .await;
    let env = [("API_KEY", KEY.to_owned())];
    let (near, far, alone) = (stage.gateway_url(0), stage.gateway_url(1), standalone.url());
    let mut failures = Vec::new();
    for urls in [vec![&near, &far], vec![&alone]] {
        let arguments: Vec<&str> =
            ["demo.mjs"].into_iter().chain(urls.iter().map(|url| url.as_str())).collect();
        failures.extend(node(Path::new(CHAT_APP), &arguments, &env).await.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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
