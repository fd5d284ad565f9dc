//! A private HAProxy in front of the gateways, with the configuration that `proxy/haproxy.cfg` recommends to everybody.

use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{Process, Program, free_port, program::installed};

const TEMPLATE: &str = include_str!("../proxy/haproxy.cfg");
/// The backend's name in the template.
const BACKEND: &str = "gateways";
/// The administration socket, in the directory in which HAProxy runs.
const SOCKET: &str = "admin.sock";
const READY_TIMEOUT: Duration = Duration::from_mins(2);
const STOP_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest answer on the administration socket that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// One gateway, as HAProxy needs to know it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// A name without spaces.
    pub name: String,
    /// `host:port` of the public port.
    pub address: String,
    /// The port that answers `/readyz`, on the same host.
    pub health_port: u16,
}

/// A running HAProxy. It gives each request to the next gateway that is ready.
#[derive(Debug)]
pub struct Haproxy {
    port: u16,
    process: Process,
    dir: TempDir,
}

impl Haproxy {
    /// Starts it on `port` of 127.0.0.1, or on a free one, and waits until it listens. The gateways need not be up yet.
    ///
    /// # Errors
    /// When HAProxy is not installed or does not come up; the error has its log's end.
    pub async fn start(port: Option<u16>, backends: &[Backend]) -> Result<Self> {
        let path = installed("haproxy", "haproxy")?;
        let dir =
            tempfile::Builder::new().prefix("starling-haproxy-").tempdir().context("temporary directory")?;
        let port = port.map_or_else(free_port, Ok)?;
        let config = dir.path().join("haproxy.cfg");
        tokio::fs::write(&config, config_text(port, backends)).await.context("cannot write haproxy.cfg")?;
        let program = Program::new("haproxy", path).arg("-db").arg("-f").arg(config);
        let mut process = Process::spawn(&program, dir.path())?;
        let socket = dir.path().join(SOCKET);
        process
            .wait_until("ready", READY_TIMEOUT, async || UnixStream::connect(&socket).await.is_ok())
            .await?;
        Ok(Self { port, process, dir })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The names of the gateways that its checks have found ready, to which it gives requests.
    ///
    /// # Errors
    /// When HAProxy does not answer.
    pub async fn ready_backends(&self) -> Result<Vec<String>> {
        let table = self.ask("show stat").await?;
        ready_servers(&table).context("HAProxy's table is not as expected")
    }

    /// Waits until exactly the gateways of these names are ready, in any order.
    ///
    /// # Errors
    /// When that does not happen in time; the error says which ones are ready.
    pub async fn wait_ready(&mut self, names: &[String]) -> Result<()> {
        let mut expected = names.to_vec();
        expected.sort_unstable();
        let mut last = Vec::new();
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            last = self.ready_backends().await?;
            last.sort_unstable();
            if last == expected {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("HAProxy finds {last:?} ready, not {expected:?}\n{}", self.process.log_tail())
    }

    /// Stops it and cuts its connections.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.terminate();
        self.process.wait_exit(STOP_TIMEOUT).await.map(drop)
    }

    async fn ask(&self, command: &str) -> Result<String> {
        let mut stream =
            UnixStream::connect(self.dir.path().join(SOCKET)).await.context("HAProxy is away")?;
        stream.write_all(format!("{command}\n").as_bytes()).await.context("HAProxy does not listen")?;
        let mut answer = String::new();
        let mut limited = stream.take(ANSWER_BYTES_MAX);
        limited.read_to_string(&mut answer).await.context("HAProxy does not answer")?;
        Ok(answer)
    }
}

/// The template with the addresses of this machine in place of its examples.
fn config_text(port: u16, backends: &[Backend]) -> String {
    let here = TEMPLATE.lines().filter_map(|line| match line.split_whitespace().next() {
        Some("stats") => Some(format!("    stats socket unix@{SOCKET} mode 600 level admin\n")),
        Some("bind") => Some(format!("    bind 127.0.0.1:{port}\n")),
        Some("server") => None,
        _ => Some(format!("{line}\n")),
    });
    // The backend is the template's last section.
    let servers = backends.iter().map(|Backend { name, address, health_port }| {
        format!("    server {name} {address} port {health_port}\n")
    });
    here.chain(servers).collect()
}

/// The table is CSV with a head line that begins with `# `.
fn ready_servers(table: &str) -> Option<Vec<String>> {
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let column = |name| columns.iter().position(|column| *column == name);
    let (proxy, server, status, check) =
        (column("pxname")?, column("svname")?, column("status")?, column("check_status")?);
    let is_ready = |fields: &[&str]| {
        let is_server = fields[proxy] == BACKEND && fields[server] != "BACKEND";
        // Before its first check a server counts as up. While failed checks add up it is still given requests.
        let is_checked = !fields[check].is_empty() && !fields[check].contains("INI");
        is_server && is_checked && fields[status].starts_with("UP")
    };
    let rows =
        lines.map(|line| line.split(',').collect::<Vec<_>>()).filter(|fields| fields.len() == columns.len());
    Some(rows.filter(|fields| is_ready(fields)).map(|fields| fields[server].to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        net::{TcpListener, TcpStream},
        sync::watch,
        task::JoinSet,
    };

    use super::*;
    use crate::http_get;

    /// Answers `/readyz` by `ready`, `/stream` with a response that does not end, `/upgrade` by sending back all it gets, and
    /// everything else with its name.
    struct Server {
        backend: Backend,
        ready: watch::Sender<bool>,
        _connections: JoinSet<()>,
    }

    impl Server {
        async fn start(name: &'static str) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (ready, is_ready) = watch::channel(true);
            let mut acceptor = JoinSet::new();
            acceptor.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(serve(stream, name, is_ready.clone()));
                }
            });
            let backend =
                Backend { name: name.to_owned(), address: address.to_string(), health_port: address.port() };
            Self { backend, ready, _connections: acceptor }
        }
    }

    async fn serve(mut stream: TcpStream, name: &str, is_ready: watch::Receiver<bool>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let answer = match path {
            "/readyz" if *is_ready.borrow() => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "/readyz" => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "/stream" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_owned(),
            "/upgrade" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n".to_owned()
            }
            _ => format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            ),
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        if path == "/stream" {
            // Ends only when the client goes.
            let _ = stream.read_u8().await;
        } else if path == "/upgrade" {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    }

    async fn names_seen(haproxy: &Haproxy) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..12 {
            seen.push(http_get(&format!("{}/", haproxy.url())).await.unwrap().body);
        }
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    async fn read_until(stream: &mut TcpStream, end: &[u8]) {
        let mut got = Vec::new();
        while !got.ends_with(end) {
            // Something that is gathered instead of passed on would never come.
            got.push(tokio::time::timeout(READY_TIMEOUT, stream.read_u8()).await.unwrap().unwrap());
        }
    }

    #[tokio::test]
    async fn requests_go_round_the_ready_gateways() {
        let (a, b) = (Server::start("a").await, Server::start("b").await);
        let mut haproxy = Haproxy::start(None, &[a.backend.clone(), b.backend.clone()]).await.unwrap();
        haproxy.wait_ready(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        assert_eq!(names_seen(&haproxy).await, ["a", "b"]);

        b.ready.send_replace(false);
        haproxy.wait_ready(&["a".to_owned()]).await.unwrap();
        assert_eq!(names_seen(&haproxy).await, ["a"]);

        b.ready.send_replace(true);
        haproxy.wait_ready(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        haproxy.stop().await.unwrap();
        assert!(http_get(&haproxy.url()).await.is_err());
    }

    #[tokio::test]
    async fn streams_and_upgrades_pass_at_once() {
        let a = Server::start("a").await;
        let mut haproxy = Haproxy::start(None, std::slice::from_ref(&a.backend)).await.unwrap();
        haproxy.wait_ready(&["a".to_owned()]).await.unwrap();
        let address = haproxy.url().replace("http://", "");

        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_until(&mut stream, b"first\r\n").await;

        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"ping").await.unwrap();
        read_until(&mut stream, b"ping").await;
    }

    #[tokio::test]
    async fn the_template_is_valid_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("haproxy.cfg");
        std::fs::write(&config, TEMPLATE).unwrap();
        let check = Program::new("haproxy", installed("haproxy", "haproxy").unwrap())
            .arg("-c")
            .arg("-f")
            .arg(&config);
        crate::process::run(&check, dir.path()).await.unwrap();
    }
}
