//! Which address a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// What each proxy adds the address of its client to.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Whom the request came from, `proxies` proxies away. Each of those has added the address of its own client at the right
/// end; what lies to the left of that, anybody may have written.
///
/// A request with fewer entries than there are proxies, or one that is no address, counts as the peer's.
pub fn client_address(peer: SocketAddr, headers: &HeaderMap, proxies: usize) -> IpAddr {
    let nearest_first = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    let claimed = proxies.checked_sub(1).and_then(|at| nearest_first.map(str::trim).nth(at));
    claimed.and_then(parse).unwrap_or(peer.ip())
}

/// An address, with a port or without.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(proxies: usize, headers: &[&str]) -> String {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(FORWARDED_FOR, value.parse().unwrap());
        }
        client_address("10.0.0.1:5".parse().unwrap(), &map, proxies).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        assert_eq!(from(0, &["192.0.2.1"]), "10.0.0.1", "nobody is trusted");
        assert_eq!(from(1, &["198.51.100.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(from(2, &["6.6.6.6, 198.51.100.9, 192.0.2.1"]), "198.51.100.9");
        assert_eq!(from(2, &["6.6.6.6, 198.51.100.9", "192.0.2.1"]), "198.51.100.9", "as one list");
        assert_eq!(from(1, &[]), "10.0.0.1");
        assert_eq!(from(2, &["192.0.2.1"]), "10.0.0.1", "it did not come by all proxies");
        assert_eq!(from(1, &["unknown"]), "10.0.0.1");
    }

    #[test]
    fn addresses_come_in_several_forms() {
        for (text, address) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(from(1, &[text]), address);
        }
    }
}
