//! Which server has which slots: one server has them all, or the servers of a Redis Cluster say who has which.
//!
//! Nobody is trusted alone. A server that is cut off from the others goes on telling what it knew, so all that are known
//! are asked at once, and of those who answer in time the one counts who sees a majority and knows of the latest change.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, Value,
    aio::MultiplexedConnection, from_redis_value_ref,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    connection,
    keys::{SLOTS, Slot},
};

/// Longest wait for one server to say what it knows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the others get once one has answered.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(300);
/// Stands for the owner of a slot that nobody has.
const NOBODY: u16 = u16::MAX;

/// Where a server listens.
pub(super) type Address = (String, u16);

/// Who has which slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// One server has them all.
    Single,
    /// As the servers of a Redis Cluster say.
    Cluster(Owners),
}

/// The primaries of a Redis Cluster and their slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Owners {
    /// The primaries that have slots.
    pub primaries: Vec<Address>,
    /// The replicas of these.
    pub replicas: Vec<Address>,
    /// For each slot the index of its primary.
    slots: Vec<u16>,
}

impl Owners {
    /// The index of the slot's primary; `None` while nobody has it.
    pub fn of(&self, slot: Slot) -> Option<usize> {
        self.slots.get(usize::from(slot.0)).filter(|&&owner| owner != NOBODY).copied().map(usize::from)
    }

    /// Reads the answer to `CLUSTER SLOTS` that the server at `asked` has given.
    fn parse(answer: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let mut owners = Self { slots: vec![NOBODY; usize::from(SLOTS)], ..Self::default() };
        let mut replicas = BTreeSet::new();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [first, last, primary, others @ ..] = range.as_slice() else { return None };
            let (first, last): (u16, u16) =
                (from_redis_value_ref(first).ok()?, from_redis_value_ref(last).ok()?);
            let primary = parse_address(primary, asked)?;
            let index = owners.primaries.iter().position(|known| *known == primary).unwrap_or_else(|| {
                owners.primaries.push(primary);
                owners.primaries.len() - 1
            });
            owners.slots.get_mut(usize::from(first)..=usize::from(last))?.fill(u16::try_from(index).ok()?);
            replicas.extend(others.iter().filter_map(|replica| parse_address(replica, asked)));
        }
        owners.replicas = replicas.into_iter().collect();
        Some(owners)
    }
}

/// A server that does not know its own name gives none; it is then where it was asked.
fn parse_address(value: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(fields) = value else { return None };
    let host: Option<String> = from_redis_value_ref(fields.first()?).ok()?;
    let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.0.clone());
    Some((host, from_redis_value_ref(fields.get(1)?).ok()?))
}

/// Reads `url`: one or more addresses, separated by commas.
///
/// # Errors
/// When one of them is none.
pub(super) fn seeds(url: &str) -> RedisResult<Vec<ConnectionInfo>> {
    url.split(',').map(|url| url.trim().into_connection_info()).collect()
}

/// As `seed`, at another address of the same cluster.
pub(super) fn at(seed: &ConnectionInfo, (host, port): &Address) -> ConnectionInfo {
    seed.clone().set_addr(ConnectionAddr::Tcp(host.clone(), *port))
}

/// Asks `seeds`, and the servers that are `known` beside them.
///
/// # Errors
/// When none of them answers, or when there are several seeds that are no Redis Cluster.
pub(super) async fn discover(seeds: &[ConnectionInfo], known: Option<&Owners>) -> RedisResult<Topology> {
    let Some(seed) = seeds.first() else {
        return Err(RedisError::from((ErrorKind::InvalidClientConfig, "no URL")));
    };
    let known = known.into_iter().flat_map(|owners| owners.primaries.iter().chain(&owners.replicas));
    let mut everyone: Vec<ConnectionInfo> = known.map(|address| at(seed, address)).collect();
    for seed in seeds {
        if everyone.iter().all(|server| server.addr() != seed.addr()) {
            everyone.push(seed.clone());
        }
    }
    let mut asking: FuturesUnordered<_> = everyone.into_iter().map(ask_in_time).collect();
    let (mut best, mut refusal, mut deadline): (Option<View>, _, _) = (None, None, None);
    loop {
        let next = match deadline {
            None => asking.next().await,
            Some(deadline) => timeout_at(deadline, asking.next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Err(error)) => refusal = Some(error),
            Some(Ok(view)) => {
                deadline = deadline.or_else(|| Some(Instant::now() + OTHERS_TIMEOUT));
                if best.as_ref().is_none_or(|best| best.rank() < view.rank()) {
                    best = Some(view);
                }
            }
        }
    }
    let closed = || (ErrorKind::ClusterConnectionNotFound, "no server answers").into();
    match best.ok_or_else(|| refusal.unwrap_or_else(closed))?.topology {
        Topology::Single if seeds.len() > 1 => {
            Err((ErrorKind::InvalidClientConfig, "several addresses, and no Redis Cluster").into())
        }
        topology => Ok(topology),
    }
}

/// What one server knows.
struct View {
    topology: Topology,
    /// Whether it sees a majority of the primaries.
    is_whole: bool,
    /// Counts changes of who has which slots.
    epoch: u64,
}

impl View {
    fn rank(&self) -> (bool, bool, u64) {
        let has_slots =
            matches!(&self.topology, Topology::Cluster(Owners { primaries, .. }) if !primaries.is_empty());
        (has_slots, self.is_whole, self.epoch)
    }
}

async fn ask_in_time(server: ConnectionInfo) -> RedisResult<View> {
    let late = |_| (ErrorKind::Io, "a server does not answer in time").into();
    timeout(ANSWER_TIMEOUT, ask(server)).await.map_err(late).flatten()
}

async fn ask(server: ConnectionInfo) -> RedisResult<View> {
    let client = connection::client(server)?;
    let settings = connection::timeouts(ANSWER_TIMEOUT);
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
    if !is_in_cluster(&mut connection).await? {
        return Ok(View { topology: Topology::Single, is_whole: true, epoch: 0 });
    }
    let mut both = redis::pipe();
    both.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let (info, slots): (String, Value) = both.query_async(&mut connection).await?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let asked = match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) => (host.clone(), *port),
        _ => (String::new(), 0),
    };
    let owners = Owners::parse(&slots, &asked).ok_or_else(|| {
        RedisError::from((ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS says nothing known"))
    })?;
    Ok(View {
        topology: Topology::Cluster(owners),
        is_whole: field("cluster_state") == Some("ok"),
        epoch: field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
    })
}

async fn is_in_cluster(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let info: String = redis::cmd("INFO").arg("cluster").query_async(connection).await?;
    Ok(info.lines().any(|line| line == "cluster_enabled:1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, port: u16) -> Value {
        Value::Array(vec![
            Value::BulkString(host.into()),
            Value::Int(port.into()),
            Value::BulkString(b"an id".to_vec()),
        ])
    }

    #[test]
    fn slots_are_read_with_their_servers() {
        let range = |first, last, servers: &[Value]| {
            Value::Array([&[Value::Int(first), Value::Int(last)], servers].concat())
        };
        let answer = Value::Array(vec![
            range(0, 99, &[server("a", 1), server("c", 3)]),
            range(100, 16_382, &[server("", 2)]),
            range(50, 60, &[server("a", 1)]),
        ]);
        let owners = Owners::parse(&answer, &("asked".to_owned(), 9)).unwrap();
        assert_eq!(owners.primaries, [("a".to_owned(), 1), ("asked".to_owned(), 2)]);
        assert_eq!(owners.replicas, [("c".to_owned(), 3)]);
        let of = [0, 99, 100, 16_382, 16_383].map(|slot| owners.of(Slot(slot)));
        assert_eq!(of, [Some(0), Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn what_is_no_answer_is_not_read() {
        let asked = ("asked".to_owned(), 9);
        let odd = [
            Value::Okay,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(16_384), server("a", 1)])]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(4), Value::Nil])]),
        ];
        for answer in odd {
            assert_eq!(Owners::parse(&answer, &asked), None, "{answer:?}");
        }
    }

    #[test]
    fn a_url_may_name_several_servers() {
        let servers = seeds("redis://u:p@a:1/, redis://b").unwrap();
        let addresses: Vec<String> = servers.iter().map(|server| server.addr().to_string()).collect();
        assert_eq!(addresses, ["a:1", "b:6379"]);
        assert_eq!(at(&servers[0], &("c".to_owned(), 2)).redis_settings().username(), Some("u"));
        assert!(seeds("redis://a,b").is_err() && seeds("").is_err());
    }
}
