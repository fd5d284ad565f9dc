//! What a URL asks for, how a connection begins, and how a request is refused.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use shared::domain::NodeId;

/// The version that is spoken.
const VERSION: &str = "4";
/// Characters at the start of a session id that nobody can guess: 132 bits.
pub const SID_RANDOM_CHARACTERS: usize = 22;

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Requests and responses.
    Polling,
    /// A WebSocket.
    WebSocket,
}

/// What the query of a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// How packets are to travel.
    pub transport: Transport,
    /// Which connection is meant; `None` begins one.
    pub sid: Option<String>,
    /// Whether the version is the one that is spoken; only the beginning of a connection has to say it.
    is_version: bool,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// When it names no transport.
    pub fn parse(query: &str) -> Result<Self, EngineError> {
        let of = |wanted: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| unescaped(value))
        };
        let transport = match of("transport").as_deref() {
            Some("polling") => Transport::Polling,
            Some("websocket") => Transport::WebSocket,
            _ => return Err(EngineError::TransportUnknown),
        };
        let sid = of("sid").filter(|sid| !sid.is_empty()).map(Cow::into_owned);
        Ok(Self { transport, sid, is_version: of("EIO").as_deref() == Some(VERSION) })
    }

    /// Looks at what only the beginning of a connection says.
    ///
    /// # Errors
    /// When it asks for another version.
    pub fn check_version(&self) -> Result<(), EngineError> {
        if self.is_version { Ok(()) } else { Err(EngineError::UnsupportedVersion) }
    }
}

/// A value of a query without its escapes; `None` when it is no text.
fn unescaped(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value);
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is no such transport.
    #[error("Transport unknown")]
    TransportUnknown,
    /// There is no such connection, or no longer.
    #[error("Session ID unknown")]
    SessionUnknown,
    /// A connection begins with GET.
    #[error("Bad handshake method")]
    BadHandshakeMethod,
    /// The request makes no sense now.
    #[error("Bad request")]
    BadRequest,
    /// The page may not, or no more connections are wanted.
    #[error("Forbidden")]
    Forbidden,
    /// Only version 4 is spoken.
    #[error("Unsupported protocol version")]
    UnsupportedVersion,
}

impl EngineError {
    /// All of them, for tables.
    pub const ALL: [Self; 6] = [
        Self::TransportUnknown,
        Self::SessionUnknown,
        Self::BadHandshakeMethod,
        Self::BadRequest,
        Self::Forbidden,
        Self::UnsupportedVersion,
    ];

    /// The number that clients know it by.
    pub fn code(self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedVersion => 5,
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        if self == Self::Forbidden { 403 } else { 400 }
    }

    /// The body of the answer.
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Names the connection; whoever knows it may speak for the client.
    pub sid: &'a str,
    /// Whether a WebSocket may follow.
    pub may_upgrade: bool,
    /// Time between two pings.
    pub ping_interval: Duration,
    /// Time for the answer.
    pub ping_timeout: Duration,
    /// Bytes of one payload, and of one message.
    pub payload_bytes_max: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpeningJson<'a> {
    sid: &'a str,
    upgrades: &'a [&'a str],
    ping_interval: u128,
    ping_timeout: u128,
    max_payload: usize,
}

impl Opening<'_> {
    /// The open packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = b"0".to_vec();
        let json = OpeningJson {
            sid: self.sid,
            upgrades: if self.may_upgrade { &["websocket"] } else { &[] },
            ping_interval: self.ping_interval.as_millis(),
            ping_timeout: self.ping_timeout.as_millis(),
            max_payload: self.payload_bytes_max,
        };
        serde_json::to_writer(&mut packet, &json).expect("plain data can be written to a Vec");
        packet
    }
}

/// A session id of a node: characters that nobody can guess, then the node's name.
pub fn sid_of(random: [u8; 16], node: &NodeId) -> String {
    let mut sid = URL_SAFE_NO_PAD.encode(random);
    debug_assert_eq!(sid.len(), SID_RANDOM_CHARACTERS);
    URL_SAFE_NO_PAD.encode_string(node.as_str(), &mut sid);
    sid
}

/// The node that a session id names; `None` when it is none of [`sid_of`].
pub fn split_sid(sid: &str) -> Option<NodeId> {
    let name = URL_SAFE_NO_PAD.decode(sid.get(SID_RANDOM_CHARACTERS..)?).ok()?;
    NodeId::parse(std::str::from_utf8(&name).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_wanted() {
        let query = Query::parse("EIO=4&transport=polling&t=abc").unwrap();
        assert_eq!((query.transport, query.sid.as_deref()), (Transport::Polling, None));
        assert_eq!(query.check_version(), Ok(()));
        let query = Query::parse("transport=websocket&sid=x&EIO=3").unwrap();
        assert_eq!((query.transport, query.sid.as_deref()), (Transport::WebSocket, Some("x")));
        assert_eq!(query.check_version(), Err(EngineError::UnsupportedVersion));
        assert!(Query::parse("EIO=%34&transport=%70olling").unwrap().check_version().is_ok());
        for bad in [
            "",
            "EIO=4",
            "EIO=4&transport=abc",
            "transport=polling%",
            "transport=%ff",
            "transport=%+1",
            "transport=Polling",
        ] {
            assert_eq!(Query::parse(bad), Err(EngineError::TransportUnknown), "{bad}");
        }
    }

    #[test]
    fn a_connection_begins_with_exactly_these_keys() {
        let opening = Opening {
            sid: "s",
            may_upgrade: true,
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            payload_bytes_max: 1_000_000,
        };
        let expected = r#"0{"sid":"s","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}"#;
        assert_eq!(String::from_utf8(opening.packet()).unwrap(), expected);
        let upgraded = Opening { may_upgrade: false, ..opening };
        assert!(String::from_utf8(upgraded.packet()).unwrap().contains(r#""upgrades":[],"#));
    }

    #[test]
    fn errors_have_numbers() {
        for (at, error) in EngineError::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(error.code()), at);
        }
        assert_eq!(EngineError::SessionUnknown.body(), r#"{"code":1,"message":"Session ID unknown"}"#);
    }

    #[test]
    fn a_session_id_names_its_node() {
        let node = NodeId::parse("gateway-1+a&b").unwrap();
        let sid = sid_of([255; 16], &node);
        assert_eq!(split_sid(&sid), Some(node));
        assert!(sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        for bad in
            ["", "short", "0123456789012345678901", "0123456789012345678901*", "é123456789012345678901YQ"]
        {
            assert_eq!(split_sid(bad), None, "{bad}");
        }
    }
}
