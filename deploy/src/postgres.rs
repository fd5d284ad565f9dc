//! A private Postgres.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    Process, Program, free_port,
    process::{run, signal},
    program::installed,
};

const DEBIAN_PACKAGE: &str = "postgresql";
/// Postgres refuses to run as root; Debian's package makes this user.
const UNPRIVILEGED_USER: &str = "postgres";
/// Longest wait until it takes connections; crash recovery takes most of it.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
const STOP_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for killed processes to be gone, and the pause between two looks.
const GONE_TIMEOUT: Duration = Duration::from_mins(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const CONNECTIONS_MAX: u32 = 200;

/// How a [`PostgresServer`] is set up.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// False makes commits faster. They still survive the death of every Postgres process, but not that of the machine.
    pub fsync: bool,
    /// More lines for `postgresql.conf`. They come last, so they win.
    pub extra: Vec<String>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, extra: Vec::new() }
    }
}

/// A Postgres cluster on a free port of 127.0.0.1, in a directory that goes away with it. The superuser is `postgres`,
/// without a password.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    program: Program,
    process: Process,
    dir: TempDir,
}

impl PostgresServer {
    /// Makes the cluster, starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When Postgres is not installed or does not come up; the error has its log's end.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let postgres = installed("postgres", DEBIAN_PACKAGE)?;
        let dir =
            tempfile::Builder::new().prefix("starling-postgres-").tempdir().context("temporary directory")?;
        let user = give_to_unprivileged_user(dir.path())?;
        let data = dir.path().join("data");
        let initdb = Program::new("initdb", installed("initdb", DEBIAN_PACKAGE)?)
            .arg("--auth=trust")
            .arg("--username=postgres")
            .arg("--encoding=UTF8")
            .arg("--locale=C")
            .arg("--no-sync")
            .arg(&data)
            .user(user.clone());
        run(&initdb, dir.path()).await?;
        let port = free_port()?;
        append(&data.join("postgresql.conf"), &config_text(port, dir.path(), &options))?;
        let program = Program::new("postgres", postgres).arg("-D").arg(&data).user(user);
        let process = Process::spawn(&program, dir.path())?;
        let mut server = Self { port, program, process, dir };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Makes the database `name` and gives its URL.
    ///
    /// # Errors
    /// When the name is not made of lower-case letters, digits and `_`, or exists already.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        ensure!(
            !name.is_empty() && name.bytes().all(is_plain),
            "`{name}` is not a plain name for a database"
        );
        run(&self.tool("createdb")?.arg(name), self.dir.path()).await?;
        Ok(self.url(name))
    }

    /// `postgres://postgres@127.0.0.1:PORT/DATABASE`. The database `postgres` exists from the start.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// `127.0.0.1:PORT`, for a [`crate::TcpProxy`].
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills the server and all of its children at once, as a crash would.
    pub fn kill9(&mut self) {
        // Its children are not in its process group. Once it is stopped it makes no new ones.
        self.process.signal("STOP");
        wait_until(|| !self.process.is_running() || state_of(self.process.pid()) == Some('T'));
        let mut pids = children(self.process.pid());
        pids.push(self.process.pid());
        let targets: Vec<String> = pids.iter().map(u32::to_string).collect();
        if self.process.is_running() {
            signal("KILL", &targets);
        }
        self.process.kill9();
        // As long as one of them has the shared memory, no other server starts on the same data.
        wait_until(|| pids.iter().all(|pid| matches!(state_of(*pid), None | Some('Z' | 'X'))));
    }

    /// Starts it again, on the same port and data, and waits for its recovery. A server that still runs is stopped first.
    ///
    /// # Errors
    /// When it does not come up; the error has its log's end.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.process = Process::spawn(&self.program, self.dir.path())?;
        self.wait_ready().await
    }

    /// Stops it in an orderly way, without waiting for its clients. The data stay until the value is dropped.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.signal("INT");
        self.process.wait_exit(STOP_TIMEOUT).await.map(drop)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let probe = self.tool("pg_isready")?.arg("--quiet");
        let dir = self.dir.path();
        self.process.wait_until("ready", READY_TIMEOUT, async || run(&probe, dir).await.is_ok()).await
    }

    /// One of Postgres's client programs, told where the server is.
    fn tool(&self, name: &str) -> Result<Program> {
        Ok(Program::new(name, installed(name, DEBIAN_PACKAGE)?)
            .arg("--host=127.0.0.1")
            .arg(format!("--port={}", self.port))
            .arg("--username=postgres"))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn config_text(port: u16, socket_dir: &Path, options: &PostgresOptions) -> String {
    let fsync = if options.fsync { "" } else { "fsync = off\nfull_page_writes = off\n" };
    let mut text = format!(
        "\nlisten_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = '{}'\n\
         max_connections = {CONNECTIONS_MAX}\n\
         {fsync}",
        socket_dir.display()
    );
    for line in &options.extra {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn append(path: &Path, text: &str) -> Result<()> {
    let mut all = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    all.push_str(text);
    std::fs::write(path, all).with_context(|| format!("cannot write {}", path.display()))
}

/// When this process is root, hands `dir` to the user as whom Postgres is to run, and names that user.
fn give_to_unprivileged_user(dir: &Path) -> Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    // A directory that was just made belongs to the user as whom this process runs.
    let owner = dir.metadata().context("cannot look at a new directory")?.uid();
    if owner != 0 {
        return Ok(None);
    }
    let accounts = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let (user, group) = accounts.lines().find_map(account_ids).with_context(|| {
        format!("Postgres cannot run as root, and there is no user `{UNPRIVILEGED_USER}`: install {DEBIAN_PACKAGE}")
    })?;
    std::os::unix::fs::chown(dir, Some(user), Some(group)).context("cannot hand a directory to Postgres")?;
    Ok(Some(UNPRIVILEGED_USER.to_owned()))
}

/// User and group id in a line of `/etc/passwd` (`name:x:uid:gid:…`), if it is the right user's.
fn account_ids(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    (fields.next()? == UNPRIVILEGED_USER).then_some(())?;
    fields.next()?;
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = Path::new("/proc").read_dir() else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("stat"))))
        .filter(|(_, stat)| parent_of(stat) == Some(parent))
        .map(|(pid, _)| pid)
        .collect()
}

fn parent_of(stat: &Path) -> Option<u32> {
    state_and_parent(stat)?.1.parse().ok()
}

/// The state of a process, such as `T` (stopped) or `Z` (dead, and nobody has asked how it ended); `None` once it is gone.
fn state_of(pid: u32) -> Option<char> {
    state_and_parent(&Path::new("/proc").join(pid.to_string()).join("stat"))?.0.chars().next()
}

/// `pid (name) state parent …`; the name may have spaces and brackets of its own.
fn state_and_parent(stat: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(stat).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}

/// Waits, for a while: who calls drops things, and must not panic.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + GONE_TIMEOUT;
    while !is_so() && Instant::now() < deadline {
        std::thread::sleep(LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::{Client, NoTls};

    use super::*;

    async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    #[tokio::test]
    async fn what_was_committed_survives_a_crash() {
        let mut server = PostgresServer::start(PostgresOptions::default()).await.unwrap();
        let url = server.create_database("chat").await.unwrap();
        let mut client = connect(&url).await.unwrap();
        client.batch_execute("CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2)").await.unwrap();
        let open = client.transaction().await.unwrap();
        open.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();

        let pids = children(server.process.pid());
        assert!(!pids.is_empty());
        server.kill9();
        assert!(open.batch_execute("SELECT 1").await.is_err());
        assert!(connect(&url).await.is_err());
        server.restart().await.unwrap();
        assert!(server.process.log_tail().contains("was not properly shut down"), "this was no crash");

        let client = connect(&url).await.unwrap();
        let sum: i64 = client.query_one("SELECT sum(x) FROM t", &[]).await.unwrap().get(0);
        assert_eq!(sum, 3);
    }

    #[tokio::test]
    async fn an_orderly_stop_does_not_wait_for_clients_and_the_data_go_at_the_end() {
        let options = PostgresOptions { fsync: false, extra: vec!["work_mem = '5MB'".to_owned()] };
        let mut server = PostgresServer::start(options).await.unwrap();
        let url = server.url("postgres");
        let client = connect(&url).await.unwrap();
        let work_mem: String = client.query_one("SHOW work_mem", &[]).await.unwrap().get(0);
        assert_eq!(work_mem, "5MB");
        server.stop().await.unwrap();
        assert!(connect(&url).await.is_err());
        let dir = server.dir.path().to_owned();
        assert!(dir.exists());
        drop(server);
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn a_name_that_needs_quotes_is_refused() {
        let server = PostgresServer::start(PostgresOptions::default()).await.unwrap();
        assert!(server.create_database("a b").await.is_err());
        assert!(server.create_database("postgres").await.unwrap_err().to_string().contains("already exists"));
    }
}
