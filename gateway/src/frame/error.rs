//! What can be wrong with an inbound frame, and the close code that says so.

/// Why an inbound WebSocket stream is refused. The connection cannot go on after any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set although no extension was negotiated.
    #[error("reserved bits set")]
    ReservedBits,
    /// The opcode has no meaning in RFC 6455.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client must mask every frame.
    #[error("frame not masked")]
    Unmasked,
    /// The length is written in more bytes than it needs.
    #[error("length not minimal")]
    LengthNotMinimal,
    /// A control frame carries more than 125 bytes.
    #[error("control frame too long")]
    ControlTooLong,
    /// A control frame is not final.
    #[error("control frame fragmented")]
    ControlFragmented,
    /// More control frames in one window than [`crate::frame::guard::CONTROL_FRAMES_PER_WINDOW_MAX`].
    #[error("too many control frames")]
    TooManyControlFrames,
    /// A continuation frame where no message is open.
    #[error("continuation without a start")]
    ContinuationUnexpected,
    /// A new data frame while a fragmented message is open.
    #[error("message not finished")]
    ContinuationMissing,
    /// The message has more fragments than [`FrameLimits::fragments_max`](crate::frame::FrameLimits).
    #[error("too many fragments")]
    TooManyFragments,
    /// The message is, or says that it will be, longer than the limit.
    #[error("message too big")]
    TooBig,
    /// The message was not finished in the time allowed.
    #[error("message too slow")]
    TooSlow,
    /// A text message or the reason of a close frame is not UTF-8.
    #[error("invalid utf-8")]
    InvalidUtf8,
    /// A close frame has a payload of one byte or a code that must not be sent.
    #[error("invalid close frame")]
    InvalidClose,
    /// The frame reader refused what the guard had passed.
    #[error("protocol error")]
    Protocol,
}

impl FrameError {
    /// The code of the close frame that answers this error (RFC 6455, section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooBig | Self::TooManyFragments => 1009,
            Self::InvalidUtf8 => 1007,
            Self::TooSlow | Self::TooManyControlFrames => 1008,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::LengthNotMinimal
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::ContinuationUnexpected
            | Self::ContinuationMissing
            | Self::InvalidClose
            | Self::Protocol => 1002,
        }
    }
}
