//! The payload of an inbound close frame.

use fastwebsockets::CloseCode;

use super::FrameError;

/// The code in a close frame's payload; `None` when the payload is empty.
///
/// # Errors
/// [`FrameError::InvalidClose`] for a payload of one byte or a code that must not be sent, [`FrameError::InvalidUtf8`]
/// for a reason that is not text.
pub fn parse(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(FrameError::InvalidClose) };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(FrameError::InvalidClose);
    }
    std::str::from_utf8(reason).map_err(|_| FrameError::InvalidUtf8)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_code(code: u16) -> Result<Option<u16>, FrameError> {
        parse(&code.to_be_bytes())
    }

    #[test]
    fn codes_that_may_be_sent_are_accepted() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            assert_eq!(parse_code(code), Ok(Some(code)));
        }
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03\xe8bye"), Ok(Some(1000)));
    }

    #[test]
    fn codes_that_must_not_be_sent_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(parse_code(code), Err(FrameError::InvalidClose), "{code}");
        }
        assert_eq!(parse(b"\x03"), Err(FrameError::InvalidClose));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(FrameError::InvalidUtf8));
    }
}
