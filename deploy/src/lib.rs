//! A whole Starling cluster on one machine: private Redis, Postgres, HAProxy, gateways and persisters, each on a free
//! loopback port with its data in a directory that goes away with it.
//!
//! `make cluster` runs it by the `cluster` binary; the tests of every crate use it as a development dependency, and break
//! it on purpose: [`Process::kill9`], [`TcpProxy::stall_all`].
//!
//! May touch: processes, loopback sockets, temporary directories. Deliberately absent: any other crate of Starling. The
//! harness starts built binaries and knows them by their environment variables alone, so that it can serve as a
//! development dependency of all of them. Also absent: fakes. What is started here is the real thing.
//!
//! Linux only: it reads `/proc`.

mod cluster;
mod haproxy;
mod http;
mod patience;
mod port;
mod postgres;
mod process;
mod program;
mod proxy;
mod redis;
mod redis_cluster;

pub use cluster::{Cluster, ClusterOptions};
pub use haproxy::{Backend, Haproxy};
pub use http::{HttpResponse, http_get};
pub use patience::{PATIENCE, eventually};
pub use port::free_port;
pub use postgres::{PostgresOptions, PostgresServer};
pub use process::Process;
pub use program::{Program, binary};
pub use proxy::TcpProxy;
pub use redis::{Fsync, RedisOptions, RedisServer};
pub use redis_cluster::{RedisCluster, RedisClusterOptions};
