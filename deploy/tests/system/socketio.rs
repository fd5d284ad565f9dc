//! Socket.IO clients and the suites of its two protocols, each first against npm `socket.io` on Node, so that it is known to ask for
//! nothing else than that does, and then against Starling.

use std::path::{Path, PathBuf};

use deploy::{ClusterOptions, Process, Program, binary, free_port};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    clients::{node, run},
    support::{PATIENCE, SECRET, Stage, Standalone},
};

const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/examples/socketio-chat");

/// How many times slower than in the official suites everything goes that has a time: they give a client 200 ms to answer a ping,
/// and a busy machine may take as long to wake it.
const PACE: &str = "5";

/// A program that listens on a port of its own, as `PORT` tells it.
struct Server {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Server {
    async fn start(name: &str, program: impl FnOnce(Program) -> Program, path: PathBuf) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
        let program = program(Program::new(name, path)).env("PORT", port.to_string());
        let mut process = Process::spawn(&program, dir.path()).unwrap();
        let is_open = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        let listening = process.wait_until("listening", PATIENCE, is_open).await;
        listening.unwrap_or_else(|error| panic!("{error:#}"));
        Self { port, _process: process, _dir: dir }
    }

    /// An example of the gateway, which `cargo test` builds.
    async fn example(name: &str) -> Self {
        let path = binary(&format!("examples/{name}")).unwrap_or_else(|error| panic!("{error:#}"));
        Self::start(name, |program| program.env("PACE", PACE), path).await
    }

    /// The server on Node that the example app was written for.
    async fn reference() -> Self {
        let script = Path::new(APP).join("reference-server.mjs");
        let program = |program: Program| program.arg("node").arg(script).env("TOKEN_SECRET", SECRET);
        Self::start("reference-server", program, "/usr/bin/env".into()).await
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn pace() -> (&'static str, String) {
    ("PACE", PACE.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suites_ask_for_nothing_that_node_does_not_do() {
    let server = Server::reference().await;
    let urls = ["URL_A", "URL_B", "URL_LB"].map(|name| (name, server.url()));
    let node = [&urls[..], &[("SOCKETIO_NODE", "1".to_owned())]].concat();
    let alone = [pace()];
    let suites = ["engineio_suite.mjs", "socketio_suite.mjs", "socketio_diff.mjs"];
    let suites = suites.map(|script| (script, &alone[..]));
    assert_pass([&suites[..], &[("socketio.mjs", &node[..])]].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suites_pass_on_the_echo_examples() {
    let (engine, socket) = (Server::example("engineio_echo").await, Server::example("socketio_echo").await);
    let urls = [("ENGINEIO_URL", engine.url()), ("SOCKETIO_URL", socket.url()), pace()];
    let (engine, socket) = ([("URL", engine.url()), pace()], [("URL", socket.url()), pace()]);
    assert_pass(vec![
        ("engineio_suite.mjs", &engine[..]),
        ("socketio_suite.mjs", &socket[..]),
        ("socketio_diff.mjs", &urls[..]),
    ])
    .await;
}

/// Runs scripts, each with its environment, side by side: most of the time they wait.
async fn assert_pass(scripts: Vec<(&str, &[(&str, String)])>) {
    let runs = scripts.into_iter().map(|(script, env)| run(script, env));
    let failures: Vec<String> = join_all(runs).await.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_written_for_node_sees_the_same_here() {
    let (there, here) = (Server::reference().await, Standalone::start().await);
    let app = async |url: String| node(Path::new(APP), &["demo.mjs", &url], &[]).await;
    let (there, here) = (app(there.url()).await, app(here.url()).await);
    let (there, here) = (
        there.unwrap_or_else(|failure| panic!("{failure}")),
        here.unwrap_or_else(|failure| panic!("{failure}")),
    );
    let lines = there.lines().zip(here.lines());
    let differing: Vec<_> = lines.filter(|(there, here)| there != here).collect();
    assert!(differing.is_empty() && there == here, "(Node, here): {differing:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_socket_io_client_on_two_nodes() {
    let stage = Stage::start(|options: &mut ClusterOptions| {
        options.haproxy = true;
        options.gateway_env.push(("STARLING_SOCKETIO_RELAY".to_owned(), "true".to_owned()));
        options.gateway_env.push(("STARLING_SOCKETIO_NAMESPACES".to_owned(), "/,/second".to_owned()));
    })
    .await;
    let env = [
        ("URL_A", stage.gateway_url(0)),
        ("URL_B", stage.gateway_url(1)),
        ("URL_LB", stage.balancer_url().unwrap()),
        ("SOCKETIO_RELAYED", "draw".to_owned()),
        ("SOCKETIO_NAMESPACE", "/second".to_owned()),
    ];
    run("socketio.mjs", &env).await.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_only_poll_while_every_node_is_replaced() {
    let mut stage = Stage::start(|options: &mut ClusterOptions| options.haproxy = true).await;
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    let env = [
        ("URL_A", stage.gateway_url(0)),
        ("URL_LB", stage.balancer_url().unwrap()),
        ("DONE", done.to_string_lossy().into_owned()),
    ];
    let replace = async {
        stage.kill_gateway(0);
        stage.restart_gateway(0).await.unwrap_or_else(|error| panic!("{error:#}"));
        stage.restart_gateway(1).await.unwrap_or_else(|error| panic!("{error:#}"));
        std::fs::write(&done, "").unwrap();
    };
    let (talked, ()) = tokio::join!(run("socketio_replaced.mjs", &env), replace);
    talked.unwrap_or_else(|failure| panic!("{failure}"));
}
