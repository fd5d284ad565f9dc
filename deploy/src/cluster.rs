//! Everything together: Redis, Postgres, gateways, persisters, and HAProxy in front.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    Backend, Haproxy, PostgresOptions, PostgresServer, Process, Program, RedisCluster, RedisClusterOptions,
    RedisOptions, RedisServer, TcpProxy, binary, free_port, http_get,
};

/// Longest wait until a gateway or persister says that it is ready. It includes the migrations.
const READY_TIMEOUT: Duration = Duration::from_mins(3);
/// Longest wait for an orderly end: the gateways let their clients go first.
const STOP_TIMEOUT: Duration = Duration::from_mins(2);
const DATABASE: &str = "starling";

/// What a [`Cluster`] consists of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Number of gateways, 1 or more.
    pub gateways: usize,
    /// Number of persisters.
    pub persisters: usize,
    /// Whether HAProxy runs in front of the gateways.
    pub haproxy: bool,
    /// The balancer's port; gateway `i` then gets `port + 1 + i`. Without it all ports are free ones.
    pub port: Option<u16>,
    /// Whether each gateway reaches Redis through a [`TcpProxy`] of its own, see [`Cluster::redis_proxy`]. Not for a Redis
    /// Cluster, whose servers say themselves where they are.
    pub redis_proxies: bool,
    /// More environment variables for each gateway; they win over the harness's own.
    pub gateway_env: Vec<(String, String)>,
    /// The same for each persister.
    pub persister_env: Vec<(String, String)>,
    /// How Redis is set up, if it is one server.
    pub redis: RedisOptions,
    /// A Redis Cluster takes its place.
    pub redis_cluster: Option<RedisClusterOptions>,
    /// How Postgres is set up.
    pub postgres: PostgresOptions,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            gateways: 2,
            persisters: 2,
            haproxy: true,
            port: None,
            redis_proxies: false,
            gateway_env: Vec::new(),
            persister_env: Vec::new(),
            redis: RedisOptions::default(),
            redis_cluster: None,
            postgres: PostgresOptions::default(),
        }
    }
}

/// A gateway or a persister.
#[derive(Debug)]
struct Node {
    program: Program,
    process: Process,
    /// Public port; a persister has none.
    port: Option<u16>,
    health_port: u16,
    redis_proxy: Option<TcpProxy>,
}

#[derive(Debug)]
enum Redis {
    Server(RedisServer),
    Cluster(RedisCluster),
}

/// A running cluster. Gateways and persisters are counted from 0, in the order in which they were started; a killed one keeps
/// its place. Dropping the value kills everything and removes all data.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    gateways: Vec<Node>,
    persisters: Vec<Node>,
    haproxy: Option<Haproxy>,
    redis: Redis,
    postgres: PostgresServer,
    database_url: String,
    dir: TempDir,
}

impl Cluster {
    /// Starts everything and waits until every part is ready.
    ///
    /// # Errors
    /// When a program is missing or a part does not become ready; the error has the end of that part's log.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        // What is not built is found out before anything is started.
        binary("gateway")?;
        binary("persister")?;
        let dir =
            tempfile::Builder::new().prefix("starling-cluster-").tempdir().context("temporary directory")?;
        let redis = match &options.redis_cluster {
            None => Redis::Server(RedisServer::start(options.redis.clone()).await?),
            Some(cluster) => Redis::Cluster(RedisCluster::start(cluster.clone()).await?),
        };
        let postgres = PostgresServer::start(options.postgres.clone()).await?;
        let database_url = postgres.create_database(DATABASE).await?;
        let (gateways, persisters) = (options.gateways, options.persisters);
        let mut cluster = Self {
            options,
            gateways: Vec::new(),
            persisters: Vec::new(),
            haproxy: None,
            redis,
            postgres,
            database_url,
            dir,
        };
        for _ in 0..gateways {
            cluster.spawn_gateway().await?;
        }
        for _ in 0..persisters {
            cluster.spawn_persister()?;
        }
        for node in cluster.gateways.iter_mut().chain(&mut cluster.persisters) {
            node.wait_ready().await?;
        }
        if cluster.options.haproxy {
            let backends: Vec<Backend> = cluster.gateways.iter().filter_map(Node::backend).collect();
            let names: Vec<String> = backends.iter().map(|backend| backend.name.clone()).collect();
            let haproxy = cluster.haproxy.insert(Haproxy::start(cluster.options.port, &backends).await?);
            haproxy.wait_ready(&names).await?;
        }
        Ok(cluster)
    }

    /// `http://127.0.0.1:PORT` of HAProxy, if it runs.
    pub fn balancer_url(&self) -> Option<String> {
        self.haproxy.as_ref().map(Haproxy::url)
    }

    /// `http://127.0.0.1:PORT` of a gateway's public port.
    pub fn gateway_url(&self, index: usize) -> String {
        let port = self.gateways[index].port.expect("a gateway has a public port");
        format!("http://127.0.0.1:{port}")
    }

    /// [`Self::gateway_url`] of each gateway, the dead ones included.
    pub fn gateway_urls(&self) -> Vec<String> {
        (0..self.gateways.len()).map(|index| self.gateway_url(index)).collect()
    }

    /// `http://127.0.0.1:PORT` of the port on which a gateway answers `/healthz`, `/readyz` and `/metrics`.
    pub fn gateway_health_url(&self, index: usize) -> String {
        self.gateways[index].health_url()
    }

    /// The same for a persister.
    pub fn persister_health_url(&self, index: usize) -> String {
        self.persisters[index].health_url()
    }

    /// The process of a gateway, for its signals, memory and log.
    pub fn gateway(&mut self, index: usize) -> &mut Process {
        &mut self.gateways[index].process
    }

    /// The process of a persister.
    pub fn persister(&mut self, index: usize) -> &mut Process {
        &mut self.persisters[index].process
    }

    /// What lies between a gateway and Redis.
    ///
    /// # Panics
    /// When [`ClusterOptions::redis_proxies`] is off.
    pub fn redis_proxy(&self, index: usize) -> &TcpProxy {
        self.gateways[index].redis_proxy.as_ref().expect("ClusterOptions::redis_proxies is on")
    }

    /// Redis, to break and restart it.
    ///
    /// # Panics
    /// When [`ClusterOptions::redis_cluster`] takes its place.
    pub fn redis(&mut self) -> &mut RedisServer {
        match &mut self.redis {
            Redis::Server(server) => server,
            Redis::Cluster(_) => panic!("ClusterOptions::redis_cluster is on"),
        }
    }

    /// The Redis Cluster, to break and mend it.
    ///
    /// # Panics
    /// When [`ClusterOptions::redis_cluster`] is off.
    pub fn redis_cluster(&mut self) -> &mut RedisCluster {
        match &mut self.redis {
            Redis::Cluster(cluster) => cluster,
            Redis::Server(_) => panic!("ClusterOptions::redis_cluster is off"),
        }
    }

    /// Postgres, to break and restart it.
    pub fn postgres(&mut self) -> &mut PostgresServer {
        &mut self.postgres
    }

    /// HAProxy, if it runs.
    pub fn haproxy(&mut self) -> Option<&mut Haproxy> {
        self.haproxy.as_mut()
    }

    /// The URL of Redis itself, without a proxy; of a Redis Cluster, those of all its servers, separated by commas.
    pub fn redis_url(&self) -> String {
        match &self.redis {
            Redis::Server(server) => server.url(),
            Redis::Cluster(cluster) => cluster.url(),
        }
    }

    /// The URL of the cluster's database.
    pub fn database_url(&self) -> String {
        self.database_url.clone()
    }

    /// The directory that has the logs of the gateways and persisters, as `NAME.log`.
    pub fn log_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills a gateway as a crash would.
    pub fn kill_gateway(&mut self, index: usize) {
        self.gateways[index].process.kill9();
    }

    /// Starts a gateway again on its ports, after stopping it if it still runs, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error has its log's end.
    pub async fn restart_gateway(&mut self, index: usize) -> Result<()> {
        let dir = self.dir.path();
        self.gateways[index].restart(dir, &[]).await
    }

    /// Starts a persister again, after stopping it if it still runs, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error has its log's end.
    pub async fn restart_persister(&mut self, index: usize) -> Result<()> {
        self.restart_persister_with(index, &[]).await
    }

    /// As [`Self::restart_persister`], with more environment variables for this one life.
    ///
    /// # Errors
    /// When it does not become ready; the error has its log's end.
    pub async fn restart_persister_with(&mut self, index: usize, env: &[(&str, &str)]) -> Result<()> {
        let dir = self.dir.path();
        self.persisters[index].restart(dir, env).await
    }

    /// Every process of the cluster, dead ones included.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let nodes = self.gateways.iter_mut().chain(&mut self.persisters).map(|node| &mut node.process);
        let haproxy = self.haproxy.iter_mut().map(Haproxy::process);
        let redis: Vec<&mut Process> = match &mut self.redis {
            Redis::Server(server) => vec![server.process()],
            Redis::Cluster(cluster) => cluster.processes().collect(),
        };
        nodes.chain(haproxy).chain(redis).chain([self.postgres.process()])
    }

    /// Stops everything in an orderly way: gateways, persisters, HAProxy, Redis, Postgres.
    ///
    /// # Errors
    /// When a part did not end by itself. It was killed, and the others were stopped nevertheless.
    pub async fn stop(mut self) -> Result<()> {
        let mut result = Ok(());
        for kind in [&mut self.gateways, &mut self.persisters] {
            for node in kind.iter_mut() {
                node.process.terminate();
            }
            for node in kind {
                result = result.and(node.stop().await);
            }
        }
        if let Some(haproxy) = &mut self.haproxy {
            result = result.and(haproxy.stop().await);
        }
        result = result.and(match &mut self.redis {
            Redis::Server(server) => server.stop().await,
            Redis::Cluster(cluster) => cluster.stop().await,
        });
        result.and(self.postgres.stop().await)
    }

    async fn spawn_gateway(&mut self) -> Result<usize> {
        let index = self.gateways.len();
        let name = format!("gateway-{index}");
        let port = match self.options.port {
            Some(port) => u16::try_from(usize::from(port) + 1 + index).context("the ports end at 65535")?,
            None => free_port()?,
        };
        let redis_proxy = if self.options.redis_proxies {
            Some(TcpProxy::start(self.redis().address()).await?)
        } else {
            None
        };
        let redis_url = redis_proxy
            .as_ref()
            .map_or_else(|| self.redis_url(), |proxy| format!("redis://{}/", proxy.addr()));
        let health_port = free_port()?;
        let program = Program::new(&name, binary("gateway")?)
            .env("REDIS_URL", redis_url)
            .env("DATABASE_URL", &self.database_url)
            .env("STARLING_LISTEN", format!("127.0.0.1:{port}"))
            .env("STARLING_HEALTH_LISTEN", format!("127.0.0.1:{health_port}"))
            .env("STARLING_NODE", &name)
            .env("STARLING_DEV", "true")
            .env("STARLING_DATA_DIR", self.dir.path());
        let program =
            self.options.gateway_env.iter().fold(program, |program, (name, value)| program.env(name, value));
        let process = Process::spawn(&program, self.dir.path())?;
        self.gateways.push(Node { program, process, port: Some(port), health_port, redis_proxy });
        Ok(index)
    }

    fn spawn_persister(&mut self) -> Result<usize> {
        let index = self.persisters.len();
        let name = format!("persister-{index}");
        let health_port = free_port()?;
        let program = Program::new(&name, binary("persister")?)
            .env("REDIS_URL", self.redis_url())
            .env("DATABASE_URL", &self.database_url)
            .env("STARLING_HEALTH_LISTEN", format!("127.0.0.1:{health_port}"))
            .env("STARLING_PERSISTER", &name);
        let program = self
            .options
            .persister_env
            .iter()
            .fold(program, |program, (name, value)| program.env(name, value));
        let process = Process::spawn(&program, self.dir.path())?;
        self.persisters.push(Node { program, process, port: None, health_port, redis_proxy: None });
        Ok(index)
    }
}

impl Node {
    fn health_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.health_port)
    }

    fn backend(&self) -> Option<Backend> {
        let name = self.process.name().to_owned();
        Some(Backend { name, address: format!("127.0.0.1:{}", self.port?), health_port: self.health_port })
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.health_url());
        let is_ready = async || http_get(&url).await.is_ok_and(|response| response.status == 200);
        self.process.wait_until("ready", READY_TIMEOUT, is_ready).await
    }

    async fn stop(&mut self) -> Result<()> {
        self.process.terminate();
        self.process.wait_exit(STOP_TIMEOUT).await.map(drop)
    }

    /// `env` counts for this one life.
    async fn restart(&mut self, dir: &Path, env: &[(&str, &str)]) -> Result<()> {
        self.stop().await?;
        let program =
            env.iter().fold(self.program.clone(), |program, &(name, value)| program.env(name, value));
        self.process = Process::spawn(&program, dir)?;
        self.wait_ready().await
    }
}
