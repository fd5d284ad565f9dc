//! The versioned envelope in which messages and ephemeral events travel through Redis.
//!
//! May use: domain. Deliberately absent: Redis, and every decision about where a record goes.
//!
//! Two layers, since the seq is only known inside Redis: the sender encodes a [`payload`](encode_payload), the publish
//! script puts a text header `M<seq> <prev> <time>\n` in front of it. `golden/` holds bytes that must stay readable.

mod live;
mod payload;

pub use live::{
    RecordError, decode_live, encode_ephemeral, encode_message, is_coming_or_going, message_header,
};
pub use payload::{Payload, decode_payload, encode_payload};
