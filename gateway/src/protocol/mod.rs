//! Client protocols: each is one folder that maps bytes to [`shared::domain::Command`] and
//! [`shared::domain::Reply`] and [`shared::domain::Event`] to bytes.
//!
//! May use: the domain, `dialect`, `frame`. Deliberately absent: sockets, tasks, clocks, axum, and one protocol in another.
//! Adding a protocol is a folder with its `README.md` and `golden/`, and its lines here.

pub mod centrifuge;
pub mod engineio;
pub mod socketio;

use crate::dialect::Dialect;

/// Every dialect that is spoken; each stands at its own index.
pub static DIALECTS: [&Dialect; 3] = [&centrifuge::WEBSOCKET, &centrifuge::SSE, &centrifuge::HTTP_STREAM];

#[cfg(test)]
mod tests {
    use super::DIALECTS;
    use crate::dialect::DIALECTS_MAX;

    #[test]
    fn each_dialect_stands_at_its_own_index() {
        for (at, dialect) in DIALECTS.iter().enumerate() {
            assert_eq!((dialect.index, at < DIALECTS_MAX), (at, true), "{dialect:?}");
        }
    }
}
