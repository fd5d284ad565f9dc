//! Client protocols: each is one folder that maps bytes to [`shared::domain::Command`] and
//! [`shared::domain::Reply`] and [`shared::domain::Event`] to bytes.
//!
//! May use: the domain, `dialect`, `frame`, `view`, the names of `limits`. Deliberately absent: sockets, tasks, clocks, axum, and
//! one protocol in another. Adding a protocol is a folder, and its line here.

mod body;
pub mod centrifuge;
pub mod engineio;
pub mod socketio;

use body::json_depth;
pub use body::{BODY_DEPTH_MAX, message_body};

#[cfg(test)]
mod tests {
    use super::centrifuge::{HTTP_STREAM, SSE, WEBSOCKET};

    #[test]
    fn each_dialect_stands_at_its_own_index() {
        for (at, dialect) in [&WEBSOCKET, &SSE, &HTTP_STREAM].iter().enumerate() {
            assert_eq!(dialect.index, at, "{dialect:?}");
        }
    }
}
