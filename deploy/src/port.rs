//! Free loopback ports.

use std::{
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};

/// Ports given out lie in this range. It is below the range from which Linux takes the source ports of outgoing connections
/// (32768 and up): a port inside that one can be taken while its server is down, and, worse, a client that keeps dialling it
/// can be connected to itself.
const PORT_FIRST: u16 = 12_000;
const PORT_LAST: u16 = 31_999;

/// Who is given a port has not bound it yet, and frees it while its server is down. Nobody else is given it meanwhile: the UDP port
/// of the same number, which nobody uses, is held for as long as this process lives, and says so to all others.
static GIVEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 on which nothing listens, never given twice while this process lives, by whichever process. The search
/// starts at a random place, so that test binaries which run side by side seldom look at the same.
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
        let Ok(held) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.push(held);
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 between {PORT_FIRST} and {PORT_LAST} is free")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_port_is_never_given_twice() {
        let ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        let distinct: HashSet<&u16> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
    }

    #[test]
    fn another_process_is_not_given_the_same_port() {
        let port = free_port().unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "it is free for its server");
        // What another process would ask first.
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
