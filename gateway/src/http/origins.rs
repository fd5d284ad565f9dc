//! From which web pages a browser may talk to this server.
//!
//! A browser lets any page open a WebSocket anywhere, so the server must look whose page it is. Tokens are never taken from
//! cookies, which a browser would add by itself; this is the second line.

use std::{collections::HashSet, net::IpAddr};

use axum::http::{HeaderMap, HeaderValue, header};

/// A scheme, a host and a port; what else a URL may have is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]` in any case; `None` for everything else, `null` among it.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let is_scheme = !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let (host, port) = authority_of(&scheme, authority)?;
        is_scheme.then_some(Self { scheme, host, port })
    }

    /// Whether the page was served under this `Host`. The scheme is not compared: TLS ends before this server.
    fn is_of(&self, host: &str) -> bool {
        authority_of(&self.scheme, host).is_some_and(|(host, port)| host == self.host && port == self.port)
    }
}

/// Host in lower case and port, the scheme's own where none is written.
fn authority_of(scheme: &str, text: &str) -> Option<(String, u16)> {
    // An IPv6 address has colons of its own, within brackets.
    let (host, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], text[at + 1..].parse().ok()?),
        _ => (
            text,
            match scheme {
                "https" | "wss" => 443,
                "http" | "ws" => 80,
                _ => 0,
            },
        ),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_host)).then(|| (host.to_ascii_lowercase(), port))
}

/// An origin in the configuration is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not an origin such as https://app.example or http://localhost:3000; patterns are not known here"
)]
pub struct NoOrigin(String);

/// Which web pages may talk to this server: those it serves itself, and those that are listed.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: HashSet<Origin>,
}

impl Origins {
    /// Allows exactly these origins beside the server's own.
    ///
    /// # Errors
    /// With the one that is none.
    pub fn new(allowed: &[String]) -> Result<Self, NoOrigin> {
        let parse = |text: &String| Origin::parse(text.trim()).ok_or_else(|| NoOrigin(text.clone()));
        Ok(Self { allowed: allowed.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// Whether a request may be answered. One without an `Origin` does not come from a page, and shows a token anyway.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return true,
            (Some(origin), None) => origin.to_str().ok().and_then(Origin::parse),
            (Some(_), Some(_)) => None,
        };
        let Some(origin) = origin else { return false };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| origin.is_of(host)) || self.allowed.contains(&origin)
    }

    /// Whether a request asks for this server by a name that cannot be somebody else's: an address, `localhost`, or the
    /// host of a listed origin. Whoever owns another name could let it mean this server once a page of theirs is loaded.
    pub fn is_own_name(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
        if self.allowed.iter().any(|origin| origin.is_of(host)) {
            return true;
        }
        let Some((name, _)) = authority_of("http", host) else { return false };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
    }

    /// The page's origin, if the page may read answers: as a browser wants to have it confirmed.
    pub fn confirm(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(header::ORIGIN).filter(|_| self.admit(headers)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(host: &'static str, origins: &[&str]) -> bool {
        let listed = ["https://app.example", "HTTP://Localhost:3000", "https://[2001:db8::1]:8443"];
        let allowed = Origins::new(&listed.map(str::to_owned)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        allowed.admit(&headers)
    }

    #[test]
    fn only_the_own_page_and_listed_ones_are_admitted() {
        for good in [
            "http://chat.example:8000",
            "https://CHAT.example:8000",
            "https://app.example",
            "https://app.example:443",
            "https://APP.EXAMPLE",
            "http://localhost:3000",
            "https://[2001:DB8::1]:8443",
        ] {
            assert!(admits("chat.example:8000", &[good]), "{good}");
        }
        assert!(admits("chat.example:8000", &[]), "what is no page says no origin");
        assert!(admits("Chat.Example", &["https://chat.example"]), "behind a proxy that ends TLS");
        assert!(admits("chat.example:80", &["http://chat.example"]));
    }

    #[test]
    fn all_others_are_not() {
        for bad in [
            "null",
            "",
            "*",
            "https://",
            "://app.example",
            "https://evil.example",
            "https://app.example.evil",
            "https://evil.app.example",
            "https://evilapp.example",
            "https://app.example@evil.example",
            "https://app.example/",
            "https://app.example#",
            "https://app.example:1",
            "https://app.example:",
            "https://app.example:99999",
            "http://app.example",
            "https://localhost:3000",
            "http://localhost",
            "http://chat.example",
            "https://chat.example:8001",
            "app.example",
            "file://",
            "https://app.example, https://evil.example",
        ] {
            assert!(!admits("chat.example:8000", &[bad]), "{bad}");
        }
        assert!(
            !admits("chat.example", &["https://app.example", "https://app.example"]),
            "one has said it twice"
        );
        assert!(!admits("null", &["null"]));
    }

    #[test]
    fn a_name_of_somebody_else_is_not_the_own() {
        let allowed = Origins::new(&["https://app.example".to_owned()]).unwrap();
        let is_own = |host: &str| {
            let host = HeaderValue::from_str(host).unwrap();
            allowed.is_own_name(&HeaderMap::from_iter([(header::HOST, host)]))
        };
        for own in
            ["localhost:8000", "LOCALHOST", "127.0.0.1:8000", "10.1.2.3", "[::1]:8000", "app.example:443"]
        {
            assert!(is_own(own), "{own}");
        }
        for other in
            ["evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "app.example:8000", ""]
        {
            assert!(!is_own(other), "{other}");
        }
        assert!(!allowed.is_own_name(&HeaderMap::new()));
    }

    #[test]
    fn what_is_no_origin_cannot_be_listed() {
        for bad in ["*", "null", "app.example", "https://*.app.example", "https://app.example/", ""] {
            assert!(Origins::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
