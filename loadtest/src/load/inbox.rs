//! From the bytes of a socket to the texts in them, whatever carries them.

use super::{
    frame::{self, Frame},
    open::Ended,
    response::Responses,
};
use crate::dialect::Transport;

/// What is in the bytes.
pub enum Piece<'a> {
    /// A text of the protocol.
    Text(&'a [u8]),
    /// The WebSocket's own ping, with its payload.
    Ping(&'a [u8]),
    /// A response is over, and the next one is to be asked for.
    Fetched,
}

/// Takes the bytes of one connection.
pub struct Inbox {
    transport: Transport,
    responses: Responses,
    /// What has come and is not whole yet.
    rest: Vec<u8>,
}

impl Inbox {
    pub fn new(transport: Transport) -> Self {
        Self { transport, responses: Responses::default(), rest: Vec::new() }
    }

    /// Hands over each piece of what has come.
    pub fn take(
        &mut self,
        bytes: &[u8],
        hear: &mut dyn FnMut(Piece<'_>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        if self.transport != Transport::WebSocket {
            return self.responses(bytes, hear);
        }
        // Most reads bring whole frames, which need no copy.
        if self.rest.is_empty() {
            let used = frames(bytes, hear)?;
            self.rest.extend(&bytes[used..]);
            return Ok(());
        }
        self.rest.extend(bytes);
        let used = frames(&self.rest, hear)?;
        self.forget(used);
        Ok(())
    }

    fn responses(
        &mut self,
        bytes: &[u8],
        hear: &mut dyn FnMut(Piece<'_>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let mut at = 0;
        while at < bytes.len() {
            let (used, is_over) = self.responses.take(&bytes[at..], &mut self.rest)?;
            at += used;
            let used = self.transport.texts(&self.rest, is_over, |text| hear(Piece::Text(text)))?;
            self.forget(used);
            match self.transport {
                Transport::Polling if is_over => hear(Piece::Fetched)?,
                _ if is_over => return Err(Ended::Lost),
                _ => {}
            }
        }
        Ok(())
    }

    fn forget(&mut self, used: usize) {
        self.rest.drain(..used);
        // Of many thousand clients, most have nothing under way.
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
    }
}

/// Takes all whole frames, and says how many bytes they are.
fn frames(bytes: &[u8], hear: &mut dyn FnMut(Piece<'_>) -> Result<(), Ended>) -> Result<usize, Ended> {
    let mut used = 0;
    while let Some((frame, len)) = frame::parse(&bytes[used..]) {
        used += len;
        match frame {
            Frame::Message(text) => hear(Piece::Text(text))?,
            Frame::Ping(payload) => hear(Piece::Ping(payload))?,
            Frame::Pong => {}
            Frame::Close(code) => return Err(Ended::Closed(code)),
            Frame::Strange => return Err(Ended::Strange("an unexpected frame".to_owned())),
        }
    }
    Ok(used)
}
