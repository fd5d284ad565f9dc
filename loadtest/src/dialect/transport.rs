//! What carries a protocol's texts, and what the requests look like where that is not a WebSocket.

use serde::{Deserialize, Serialize};

use super::{Dialect, centrifuge};

/// What carries the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// One WebSocket for each client.
    #[default]
    #[value(name = "websocket")]
    WebSocket,
    /// Centrifuge: server-sent events down, requests up.
    Sse,
    /// Centrifuge: a response that does not end down, requests up.
    #[value(name = "http_stream", alias = "http-stream")]
    HttpStream,
    /// Socket.IO: Engine.IO's long-polling.
    Polling,
}

/// A request over HTTP: method, path, and body.
pub type Asked = (&'static str, String, String);

impl Transport {
    /// Whether the protocol can be carried so.
    pub fn carries(self, dialect: Dialect) -> bool {
        match self {
            Self::WebSocket => true,
            Self::Sse | Self::HttpStream => dialect == Dialect::Centrifuge,
            Self::Polling => dialect == Dialect::Socketio,
        }
    }

    /// The request that opens the way down; `None` for a WebSocket.
    pub fn open(self, token: &str) -> Option<Asked> {
        let connect = centrifuge::connect(token);
        match self {
            Self::WebSocket => None,
            Self::Sse => {
                Some(("GET", format!("/connection/sse?cf_connect={}", escape(&connect)), String::new()))
            }
            Self::HttpStream => Some(("POST", "/connection/http_stream".to_owned(), connect)),
            Self::Polling => Some(("GET", "/socket.io/?EIO=4&transport=polling".to_owned(), String::new())),
        }
    }

    /// The request that fetches what comes next; `None` where one response brings everything.
    pub fn fetch(self, session: &str) -> Option<Asked> {
        let path = || format!("/socket.io/?EIO=4&transport=polling&sid={session}");
        (self == Self::Polling).then(|| ("GET", path(), String::new()))
    }

    /// The request that brings a text up.
    pub fn bring(self, session: &str, node: &str, text: &str) -> Asked {
        if self == Self::Polling {
            return ("POST", format!("/socket.io/?EIO=4&transport=polling&sid={session}"), text.to_owned());
        }
        let data = serde_json::Value::from(text);
        (
            "POST",
            "/emulation".to_owned(),
            format!(r#"{{"session":"{session}","node":"{node}","data":{data}}}"#),
        )
    }

    /// Calls `hear` for each text in what has come, and says how many bytes are done with.
    ///
    /// # Errors
    /// What `hear` returns.
    pub fn texts<E>(
        self,
        bytes: &[u8],
        is_whole: bool,
        mut hear: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let end = if self == Self::Polling { 0x1e } else { b'\n' };
        let mut used = 0;
        while let Some(len) = memchr::memchr(end, &bytes[used..]) {
            let line = &bytes[used..used + len];
            used += len + 1;
            self.line(line).map_or(Ok(()), &mut hear)?;
        }
        if is_whole && used < bytes.len() {
            self.line(&bytes[used..]).map_or(Ok(()), &mut hear)?;
            used = bytes.len();
        }
        Ok(used)
    }

    fn line(self, line: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Sse => line.strip_prefix(b"data: "),
            _ => (!line.is_empty()).then_some(line),
        }
    }
}

/// Percent-encodes everything that may not stand in a query.
fn escape(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(transport: Transport, bytes: &str, is_whole: bool) -> (Vec<String>, usize) {
        let mut all = Vec::new();
        let used = transport.texts::<()>(bytes.as_bytes(), is_whole, |text| {
            all.push(String::from_utf8_lossy(text).into_owned());
            Ok(())
        });
        (all, used.unwrap())
    }

    #[test]
    fn texts_are_cut_where_the_transport_ends_them() {
        assert_eq!(texts(Transport::Sse, ":\n\ndata: {}\n\ndata: {\"a", false), (vec!["{}".to_owned()], 13));
        assert_eq!(texts(Transport::HttpStream, "{}\n{\"a", false), (vec!["{}".to_owned()], 3));
        assert_eq!(texts(Transport::Polling, "2\u{1e}6", true), (vec!["2".to_owned(), "6".to_owned()], 3));
    }

    #[test]
    fn requests_carry_texts_as_they_are() {
        let (_, path, _) = Transport::Sse.open("a.b").unwrap();
        assert!(path.contains("%7B%22id%22%3A1"), "{path}");
        let (_, _, body) = Transport::HttpStream.bring("s", "n", "{\"id\":1}");
        assert_eq!(body, r#"{"session":"s","node":"n","data":"{\"id\":1}"}"#);
        let (_, _, body) = Transport::Polling.bring("s", "", "3");
        assert_eq!(body, "3");
    }
}
