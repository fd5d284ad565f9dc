//! What a message may say, whichever protocol brings it: any JSON, so long and so deep.

use bytes::Bytes;
use serde_json::value::RawValue;
use shared::domain::{BODY_BYTES_MAX, Body, Refusal};

use crate::limits::{self, Limit};

/// Deepest nesting of arrays and objects in a message body.
pub const BODY_DEPTH_MAX: usize = 32;

/// The body of a message, if it is neither too large nor nested too deep.
///
/// # Errors
/// [`Refusal::TooLarge`] or [`Refusal::Invalid`].
pub fn message_body(json: &RawValue) -> Result<Body, Refusal> {
    let json = json.get().as_bytes();
    if json.len() > BODY_BYTES_MAX {
        limits::refused(Limit::BodyBytes);
        return Err(Refusal::TooLarge);
    }
    if json_depth(json) > BODY_DEPTH_MAX {
        limits::refused(Limit::JsonDepth);
        return Err(Refusal::Invalid);
    }
    Ok(Body::from_json(Bytes::copy_from_slice(json)))
}

/// How deep arrays and objects are nested in a JSON text; of a text that is not JSON, some number.
pub fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in json {
        match (is_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => is_string = !is_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
