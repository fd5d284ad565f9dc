//! Socket.IO clients and the suites of its two protocols, each first against npm `socket.io` on Node, so that it is known to ask for
//! nothing else than that does.

use std::path::Path;

use deploy::{Process, Program, free_port};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    clients::run,
    support::{PATIENCE, SECRET},
};

const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/examples/socketio-chat");

/// The chat server on Node that the example app was written for.
struct Reference {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Reference {
    async fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
        let script = Path::new(APP).join("reference-server.mjs");
        let program = Program::new("reference-server", "/usr/bin/env").arg("node").arg(script);
        let program = program.env("TOKEN_SECRET", SECRET).env("PORT", port.to_string());
        let mut process = Process::spawn(&program, dir.path()).unwrap();
        let is_open = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        let listening = process.wait_until("listening", PATIENCE, is_open).await;
        listening.unwrap_or_else(|error| panic!("{error:#}"));
        Self { port, _process: process, _dir: dir }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suites_ask_for_nothing_that_node_does_not_do() {
    let mut failures = Vec::new();
    for script in ["engineio_suite.mjs", "socketio_suite.mjs", "socketio_diff.mjs"] {
        failures.extend(run(script, &[]).await.err());
    }
    let server = Reference::start().await;
    let urls = ["URL_A", "URL_B", "URL_LB"].map(|name| (name, server.url()));
    let env = [&urls[..], &[("SOCKETIO_NODE", "1".to_owned())]].concat();
    failures.extend(run("socketio.mjs", &env).await.err());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
