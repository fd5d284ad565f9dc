//! A private Redis.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Process, Program, free_port, program::installed};

/// Longest wait for the first answer; loading a large append-only file takes most of it.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// Longest wait for one answer to PING, and for an orderly end.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// When Redis asks for its append-only file, which is on in any case, to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it answers.
    Always,
    /// Once a second. While the disk is busy it also puts off the write itself, so a killed process may lose what it has answered.
    EverySecond,
    /// Whenever the system likes. What was answered is written: the death of the process loses nothing, that of the machine does.
    Never,
}

/// How a [`RedisServer`] is set up.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// What `appendfsync` is.
    pub fsync: Fsync,
    /// More lines for `redis.conf`. They come last, so they win.
    pub extra: Vec<String>,
}

impl RedisOptions {
    /// For tests that kill processes, and wait for no disk.
    pub fn without_disk() -> Self {
        Self { fsync: Fsync::Never, ..Self::default() }
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { fsync: Fsync::Always, extra: Vec::new() }
    }
}

/// A `redis-server` on a free port of 127.0.0.1, with an append-only file in a directory that goes away with it.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    program: Program,
    process: Process,
    dir: TempDir,
}

impl RedisServer {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When Redis is not installed or does not come up; the error has its log's end.
    pub async fn start(options: RedisOptions) -> Result<Self> {
        let path = installed("redis-server", "redis-server")?;
        let dir =
            tempfile::Builder::new().prefix("starling-redis-").tempdir().context("temporary directory")?;
        let port = free_port()?;
        let config = dir.path().join("redis.conf");
        tokio::fs::write(&config, config_text(port, &options)).await.context("cannot write redis.conf")?;
        let program = Program::new("redis", path).arg(config);
        let process = Process::spawn(&program, dir.path())?;
        let mut server = Self { port, program, process, dir };
        server.wait_ready().await?;
        Ok(server)
    }

    /// `redis://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// `127.0.0.1:PORT`, for a [`crate::TcpProxy`].
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the append-only file lies.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it as a crash would.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again, on the same port and data, and waits until these are loaded. A server that still runs is stopped first.
    ///
    /// # Errors
    /// When it does not come up; the error has its log's end.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.process = Process::spawn(&self.program, self.dir.path())?;
        self.wait_ready().await
    }

    /// Stops it in an orderly way. The data stay until the value is dropped.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.terminate();
        self.process.wait_exit(STOP_TIMEOUT).await.map(drop)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        let is_ready =
            async || matches!(tokio::time::timeout(PING_TIMEOUT, ping(&address)).await, Ok(Ok(true)));
        self.process.wait_until("ready", READY_TIMEOUT, is_ready).await
    }
}

/// While it loads its data, Redis answers PING with an error.
async fn ping(address: &str) -> std::io::Result<bool> {
    const PONG: &[u8] = b"+PONG\r\n";
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; PONG.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer == PONG)
}

fn config_text(port: u16, options: &RedisOptions) -> String {
    let fsync = match options.fsync {
        Fsync::Always => "always",
        Fsync::EverySecond => "everysec",
        Fsync::Never => "no",
    };
    let mut text = format!(
        "bind 127.0.0.1\n\
         port {port}\n\
         daemonize no\n\
         save \"\"\n\
         appendonly yes\n\
         appendfsync {fsync}\n\
         maxmemory-policy noeviction\n"
    );
    for line in &options.extra {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_survives_a_crash() {
        let mut server = RedisServer::start(RedisOptions::default()).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut connection).await.unwrap();
        let before: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.unwrap();
        server.kill9();
        assert!(client.get_multiplexed_async_connection().await.is_err());
        server.restart().await.unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let after: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.unwrap();
        assert_ne!(run_id(&before), run_id(&after));
        let value: String = redis::cmd("GET").arg("key").query_async(&mut connection).await.unwrap();
        assert_eq!(value, "value");
    }

    fn run_id(info: &str) -> &str {
        info.lines().find(|line| line.starts_with("run_id:")).unwrap()
    }

    #[tokio::test]
    async fn options_reach_the_server_and_its_data_go_with_it() {
        let options = RedisOptions { fsync: Fsync::EverySecond, extra: vec!["maxmemory 32mb".to_owned()] };
        let server = RedisServer::start(options).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for (name, expected) in [
            ("maxmemory", "33554432"),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("maxmemory-policy", "noeviction"),
            ("save", ""),
            ("bind", "127.0.0.1"),
        ] {
            let answer: Vec<String> =
                redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await.unwrap();
            assert_eq!(answer, [name, expected]);
        }
        let dir = server.data_dir();
        assert!(dir.exists());
        drop(server);
        assert!(!dir.exists());
    }
}
