//! Fragments put together to one message.

use bytes::{Bytes, BytesMut};

use super::FrameError;

/// What a message says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// A message whose last fragment has not come yet. Its size is bounded by the [guard](super::guard) before it.
#[derive(Debug)]
pub struct Assembly {
    kind: Kind,
    bytes: BytesMut,
    /// Everything before this is known to be UTF-8; at most three bytes of an unfinished character follow.
    checked: usize,
}

impl Assembly {
    /// Begins with the payload of the first fragment.
    ///
    /// # Errors
    /// [`FrameError::InvalidUtf8`] as soon as text cannot become valid by anything that follows.
    pub fn begin(kind: Kind, first: BytesMut) -> Result<Self, FrameError> {
        let mut assembly = Self { kind, bytes: first, checked: 0 };
        assembly.check()?;
        Ok(assembly)
    }

    /// Adds the payload of a continuation frame that is not the last.
    ///
    /// # Errors
    /// As [`Assembly::begin`].
    pub fn push(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        self.bytes.extend_from_slice(payload);
        self.check()
    }

    /// Adds the payload of the last frame and gives the message.
    ///
    /// # Errors
    /// As [`Assembly::begin`], and also when text ends in the middle of a character.
    pub fn finish(mut self, payload: &[u8]) -> Result<(Kind, Bytes), FrameError> {
        self.push(payload)?;
        if self.kind == Kind::Text && self.checked < self.bytes.len() {
            return Err(FrameError::InvalidUtf8);
        }
        Ok((self.kind, self.bytes.freeze()))
    }

    fn check(&mut self) -> Result<(), FrameError> {
        if self.kind == Kind::Binary {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(FrameError::InvalidUtf8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_may_be_split_between_fragments() {
        let mut text = Assembly::begin(Kind::Text, BytesMut::from(&[0xf0, 0x9f][..])).unwrap();
        text.push(&[0x90]).unwrap();
        let (kind, bytes) = text.finish(&[0xa6]).unwrap();
        assert_eq!((kind, &bytes[..]), (Kind::Text, "🐦".as_bytes()));
    }

    #[test]
    fn invalid_text_fails_in_the_fragment_that_spoils_it() {
        assert_eq!(
            Assembly::begin(Kind::Text, BytesMut::from(&b"a\xff"[..])).unwrap_err(),
            FrameError::InvalidUtf8
        );
        let mut text = Assembly::begin(Kind::Text, BytesMut::from(&[0xed][..])).unwrap();
        assert_eq!(text.push(&[0xa0]).unwrap_err(), FrameError::InvalidUtf8);
    }

    #[test]
    fn text_must_not_end_inside_a_character() {
        let text = Assembly::begin(Kind::Text, BytesMut::from(&[0xf0, 0x9f][..])).unwrap();
        assert_eq!(text.finish(b"").unwrap_err(), FrameError::InvalidUtf8);
    }

    #[test]
    fn binary_is_not_text() {
        let binary = Assembly::begin(Kind::Binary, BytesMut::from(&[0xff][..])).unwrap();
        assert_eq!(binary.finish(&[0xfe]).unwrap(), (Kind::Binary, Bytes::from_static(&[0xff, 0xfe])));
    }

    proptest! {
        #[test]
        fn fragments_are_valid_exactly_when_their_sum_is(
            parts in prop::collection::vec(
                prop_oneof![
                    any::<String>().prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..3),
                    Just("é🐦".as_bytes()[..3].to_vec()),
                    Just("é🐦".as_bytes()[3..].to_vec()),
                ],
                1..6,
            ),
        ) {
            let whole = parts.concat();
            let (last, before) = parts.split_last().unwrap();
            let assembled = Assembly::begin(Kind::Text, BytesMut::new()).and_then(|mut text| {
                for part in before {
                    text.push(part)?;
                }
                text.finish(last)
            });
            let expected = if std::str::from_utf8(&whole).is_ok() {
                Ok((Kind::Text, Bytes::from(whole)))
            } else {
                Err(FrameError::InvalidUtf8)
            };
            prop_assert_eq!(assembled, expected);
        }
    }
}
