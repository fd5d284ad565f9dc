//! Free loopback ports.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{LazyLock, Mutex},
};

use anyhow::{Context, Result, bail};

/// Ports given out lie in this range. It is below the range from which Linux takes the source ports of outgoing connections
/// (32768 and up): a port inside that one can be taken while its server is down, and, worse, a client that keeps dialling it
/// can be connected to itself.
const PORT_FIRST: u16 = 12_000;
const PORT_LAST: u16 = 31_999;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port of 127.0.0.1 on which nothing listens, never given twice by this process. The search starts at a random place, so
/// that test binaries which run side by side stay out of each other's way.
///
/// # Errors
/// When every port of the range is taken.
pub fn free_port() -> Result<u16> {
    let mut given = GIVEN.lock().ok().context("another thread panicked while it took a port")?;
    let count = PORT_LAST - PORT_FIRST + 1;
    let random = RandomState::new().hash_one(std::process::id());
    let start = u16::try_from(random % u64::from(count)).expect("a remainder of a u16 is a u16");
    for step in 0..count {
        let port = PORT_FIRST + (start + step) % count;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 between {PORT_FIRST} and {PORT_LAST} is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_never_given_twice() {
        let ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        let distinct: HashSet<&u16> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
    }
}
