//! What is decided before the first command: the format that a client asks for, and where an emulated command belongs.

use serde::Deserialize;
use shared::domain::{Disconnect, NodeId};

const SUBPROTOCOL_JSON: &str = "centrifuge-json";
const SUBPROTOCOL_PROTOBUF: &str = "centrifuge-protobuf";

/// The body of a POST to `/emulation`: commands of a client that listens on SSE or HTTP streaming.
#[derive(Deserialize)]
pub struct Emulation {
    /// Names the stream; whoever knows it may speak for the client, so it never reaches a log.
    pub session: String,
    /// The process that holds the stream.
    pub node: NodeId,
    /// What [`super::decode`] takes.
    pub data: String,
}

impl Emulation {
    /// Reads the body of the request.
    ///
    /// # Errors
    /// [`Disconnect::BadRequest`] when it is malformed; the answer is 400, and the stream lives on.
    pub fn parse(body: &[u8]) -> Result<Self, Disconnect> {
        serde_json::from_slice(body).map_err(|_| Disconnect::BadRequest)
    }
}

/// Looks at the query of a WebSocket handshake.
///
/// # Errors
/// [`Disconnect::InappropriateProtocol`] when it asks for Protobuf.
pub fn check_query(query: &str) -> Result<(), Disconnect> {
    let asks_protobuf =
        query.split('&').any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"));
    if asks_protobuf { Err(Disconnect::InappropriateProtocol) } else { Ok(()) }
}

/// Chooses among the subprotocols that a WebSocket handshake offers, as its header lists them.
///
/// # Errors
/// [`Disconnect::InappropriateProtocol`] when Protobuf is offered and JSON is not.
pub fn choose_subprotocol(offered: &str) -> Result<Option<&'static str>, Disconnect> {
    let is_offered = |name| offered.split(',').any(|offer| offer.trim() == name);
    if is_offered(SUBPROTOCOL_JSON) {
        Ok(Some(SUBPROTOCOL_JSON))
    } else if is_offered(SUBPROTOCOL_PROTOBUF) {
        Err(Disconnect::InappropriateProtocol)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_is_refused_however_it_is_asked_for() {
        let refused = Err(Disconnect::InappropriateProtocol);
        assert_eq!(check_query("a=b&cf_protocol=protobuf"), refused);
        assert_eq!(check_query("format=protobuf"), refused);
        assert_eq!(check_query("cf_protocol=json&cf_protocol_version=v2"), Ok(()));
        assert_eq!(check_query(""), Ok(()));
        assert_eq!(choose_subprotocol("centrifuge-protobuf"), Err(Disconnect::InappropriateProtocol));
        assert_eq!(choose_subprotocol("centrifuge-protobuf, centrifuge-json"), Ok(Some("centrifuge-json")));
        assert_eq!(choose_subprotocol(""), Ok(None));
        assert_eq!(choose_subprotocol("chat"), Ok(None));
    }

    #[test]
    fn an_emulated_command_names_its_stream() {
        let parsed = Emulation::parse(br#"{"session":"s-1","node":"n1","data":"{\"id\":2}\n{}"}"#).unwrap();
        assert_eq!((parsed.session.as_str(), parsed.node.as_str()), ("s-1", "n1"));
        assert_eq!(parsed.data, "{\"id\":2}\n{}");
        for bad in
            ["", "{}", r#"{"session":"s","node":"","data":""}"#, r#"{"session":"s","node":"n","data":{}}"#]
        {
            assert_eq!(Emulation::parse(bad.as_bytes()).err(), Some(Disconnect::BadRequest), "{bad}");
        }
    }
}
