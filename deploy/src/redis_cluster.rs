//! A private Redis Cluster.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{Process, RedisOptions, RedisServer, free_port};

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;
/// After this long without an answer, in milliseconds, a server counts as dead, and its replica takes its place. Long enough that
/// none counts as dead because the machine is busy.
const NODE_TIMEOUT_MS: u32 = 4_000;
/// Longest wait until all servers know each other and have what they are to have.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// Pause between two looks at that.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// How many keys one command moves, at most.
const KEYS_PER_MOVE_MAX: &str = "100";
/// Longest a command that moves keys may take, in milliseconds.
const MOVE_TIMEOUT_MS: &str = "30000";

/// How a [`RedisCluster`] is set up.
#[derive(Debug, Clone)]
pub struct RedisClusterOptions {
    /// Number of primaries, 1 or more; fewer than 3 cannot replace a dead one.
    pub primaries: usize,
    /// Number of replicas of each.
    pub replicas: usize,
    /// How each server is set up.
    pub server: RedisOptions,
}

impl Default for RedisClusterOptions {
    fn default() -> Self {
        Self { primaries: 3, replicas: 0, server: RedisOptions::default() }
    }
}

/// Some `redis-server`s on free ports of 127.0.0.1 that share the slots evenly. They are counted from 0: first the primaries,
/// in the order of their slots, then their replicas, in the same order.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<RedisServer>,
    primaries: usize,
}

impl RedisCluster {
    /// Starts the servers and waits until they are a cluster.
    ///
    /// # Errors
    /// When Redis is not installed, or they do not come together.
    pub async fn start(options: RedisClusterOptions) -> Result<Self> {
        let RedisClusterOptions { primaries, replicas, server } = options;
        let mut servers = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..primaries * (1 + replicas) {
            let bus = free_port()?;
            let mut server = server.clone();
            server.extra.splice(0..0, config_lines(bus));
            servers.push(RedisServer::start(server).await?);
            buses.push(bus.to_string());
        }
        let cluster = Self { servers, primaries };
        cluster.assign(&buses).await?;
        cluster.wait_until("acquainted", async |server| cluster.is_acquainted(server).await).await?;
        for (index, replica) in cluster.servers.iter().enumerate().skip(primaries) {
            let primary = call(&cluster.servers[index % primaries], &["CLUSTER", "MYID"]).await?.concat();
            call(replica, &["CLUSTER", "REPLICATE", &primary]).await?;
        }
        cluster.wait_until("replicated", async |server| cluster.is_replicated(server).await).await?;
        Ok(cluster)
    }

    /// Gives each primary its slots, and makes the first server meet the others.
    async fn assign(&self, buses: &[String]) -> Result<()> {
        for (index, (server, bus)) in self.servers.iter().zip(buses).enumerate() {
            call(server, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?;
            if index < self.primaries {
                let edge = |share: usize| share * usize::from(SLOTS) / self.primaries;
                let (first, last) = (edge(index).to_string(), (edge(index + 1) - 1).to_string());
                call(server, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
            }
            let port = server.port().to_string();
            call(&self.servers[0], &["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await?;
        }
        Ok(())
    }

    /// The addresses of all servers, as `REDIS_URL` takes them.
    pub fn url(&self) -> String {
        self.servers.iter().map(RedisServer::url).collect::<Vec<_>>().join(",")
    }

    /// All servers, dead ones included.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// One server, to break and restart it.
    pub fn server(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// The processes of all servers.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.servers.iter_mut().map(RedisServer::process)
    }

    /// Which server has the slot, as another one, or itself, says.
    ///
    /// # Errors
    /// When nobody has it, or nobody answers.
    pub async fn owner(&self, slot: u16) -> Result<usize> {
        for server in &self.servers {
            // Of those that are up, any will do; one that is down says nothing.
            let Ok(owner) = owner_as_told_by(server, slot).await else { continue };
            let index = self.servers.iter().position(|server| server.port() == owner);
            return index.with_context(|| format!("slot {slot} is on port {owner}, which is no server's"));
        }
        bail!("nobody says who has slot {slot}")
    }

    /// Moves a slot with its keys to another primary, as resharding does: in between, keys are on both sides.
    ///
    /// # Errors
    /// When a server does not do its part.
    pub async fn move_slot(&self, slot: u16, to: usize) -> Result<()> {
        let (from, to) = (&self.servers[self.owner(slot).await?], &self.servers[to]);
        let (source, target) = (
            call(from, &["CLUSTER", "MYID"]).await?.concat(),
            call(to, &["CLUSTER", "MYID"]).await?.concat(),
        );
        let (name, port) = (slot.to_string(), to.port().to_string());
        call(to, &["CLUSTER", "SETSLOT", &name, "IMPORTING", &source]).await?;
        call(from, &["CLUSTER", "SETSLOT", &name, "MIGRATING", &target]).await?;
        loop {
            let keys = call(from, &["CLUSTER", "GETKEYSINSLOT", &name, KEYS_PER_MOVE_MAX]).await?;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", MOVE_TIMEOUT_MS, "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            call(from, &words).await?;
        }
        for server in [to, from] {
            call(server, &["CLUSTER", "SETSLOT", &name, "NODE", &target]).await?;
        }
        Ok(())
    }

    /// Stops all servers in an orderly way.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn stop(&mut self) -> Result<()> {
        let mut result = Ok(());
        for server in &mut self.servers {
            result = result.and(server.stop().await);
        }
        result
    }

    /// Waits until all servers are ready to serve: after one was restarted, say.
    ///
    /// # Errors
    /// When they do not become so.
    pub async fn wait_whole(&self) -> Result<()> {
        self.wait_until("whole", async |server| {
            Ok(call(server, &["CLUSTER", "INFO"]).await?.concat().contains("cluster_state:ok"))
        })
        .await
    }

    async fn wait_until(&self, what: &str, is_so: impl AsyncFn(&RedisServer) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        for server in &self.servers {
            while !is_so(server).await? {
                if Instant::now() >= deadline {
                    bail!("the Redis Cluster was not {what} after {READY_TIMEOUT:?}");
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(())
    }

    async fn is_acquainted(&self, server: &RedisServer) -> Result<bool> {
        let nodes = call(server, &["CLUSTER", "NODES"]).await?.concat();
        let info = call(server, &["CLUSTER", "INFO"]).await?.concat();
        let are_all_known = nodes.lines().count() == self.servers.len() && !nodes.contains("handshake");
        Ok(are_all_known
            && info.contains("cluster_state:ok")
            && info.contains("cluster_slots_assigned:16384"))
    }

    /// Whether the server knows who follows whom, and, if it follows itself, has everything.
    async fn is_replicated(&self, server: &RedisServer) -> Result<bool> {
        let nodes = call(server, &["CLUSTER", "NODES"]).await?.concat();
        let info = call(server, &["INFO", "replication"]).await?.concat();
        let replicas = nodes.lines().filter(|line| line.contains("slave")).count();
        let has_all = info.contains("role:master") || info.contains("master_link_status:up");
        Ok(replicas == self.servers.len() - self.primaries && has_all)
    }
}

/// A slot that nobody has is no reason to refuse the others.
fn config_lines(bus: u16) -> Vec<String> {
    vec![
        "cluster-enabled yes".to_owned(),
        "cluster-config-file nodes.conf".to_owned(),
        format!("cluster-port {bus}"),
        format!("cluster-node-timeout {NODE_TIMEOUT_MS}"),
        "cluster-require-full-coverage no".to_owned(),
    ]
}

/// The port of the slot's owner.
async fn owner_as_told_by(server: &RedisServer, slot: u16) -> Result<u16> {
    let nodes = call(server, &["CLUSTER", "NODES"]).await?.concat();
    let has_slot = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse(), last.parse()), (Ok::<u16, _>(first), Ok::<u16, _>(last)) if (first..=last).contains(&slot))
    };
    let owner = nodes.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let owner = owner
        .filter(|fields| fields.len() > 8)
        .find(|fields| fields[8..].iter().any(|range| has_slot(range)));
    let address = owner.context("nobody has the slot")?[1].to_owned();
    let port = address.split('@').next().and_then(|address| address.rsplit(':').next());
    port.and_then(|port| port.parse().ok()).with_context(|| format!("no address: {address}"))
}

/// Sends one command over a connection of its own, and gives what was answered as texts, one for each element.
async fn call(server: &RedisServer, words: &[&str]) -> Result<Vec<String>> {
    let answer = timeout(ANSWER_TIMEOUT, try_call(&server.address(), words)).await;
    answer
        .context("no answer in time")?
        .with_context(|| format!("{} to {}", words.join(" "), server.address()))
}

async fn try_call(address: &str, words: &[&str]) -> Result<Vec<String>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        write!(request, "${}\r\n{word}\r\n", word.len())?;
    }
    stream.write_all(request.as_bytes()).await?;
    let (mut missing, mut answers) = (1_usize, Vec::new());
    while missing > 0 {
        missing -= 1;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        match line.split_at_checked(1).context("the connection has ended")? {
            ("*", count) => missing += count.parse::<usize>()?,
            ("$", "-1") => answers.push(String::new()),
            ("$", length) => {
                let mut text = vec![0; length.parse::<usize>()? + 2];
                stream.read_exact(&mut text).await?;
                text.truncate(text.len() - 2);
                answers.push(String::from_utf8_lossy(&text).into_owned());
            }
            ("-", error) => bail!("{error}"),
            (_, simple) => answers.push(simple.to_owned()),
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn servers_share_the_slots_and_one_moves() {
        let cluster = RedisCluster::start(RedisClusterOptions::default()).await.unwrap();
        let mut owners = Vec::new();
        for slot in [0, 5460, 5461, 10_921, 10_922, SLOTS - 1] {
            owners.push(cluster.owner(slot).await.unwrap());
        }
        assert_eq!(owners, [0, 0, 1, 1, 2, 2]);
        // "foo" lies in slot 12182.
        call(&cluster.servers[2], &["SET", "foo", "bar"]).await.unwrap();
        cluster.move_slot(12_182, 0).await.unwrap();
        assert_eq!(cluster.owner(12_182).await.unwrap(), 0);
        assert_eq!(call(&cluster.servers[0], &["GET", "foo"]).await.unwrap(), ["bar"]);
    }
}
