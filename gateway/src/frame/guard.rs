//! The guard in front of the frame reader.
//!
//! `fastwebsockets` 0.10 accepts unmasked frames, over-long pongs, lengths that are not minimal and any number of
//! fragments, and reserves memory from the declared length. [`FrameGuard`] looks at every byte before the reader does and
//! refuses those. It hands bytes on only up to the end of the current frame, so the reader never holds a byte of the
//! next one and can be thrown away at every frame boundary.

use std::time::Duration;

use super::FrameError;

/// Bytes of one message, all fragments together.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Frames of one message.
pub const FRAGMENTS_MAX: u32 = 64;
/// Seconds from the first byte of a message to its last.
pub const MESSAGE_SECONDS_MAX: u64 = 30;
/// Control frames between two calls of [`FrameGuard::open_window`].
pub const CONTROL_FRAMES_PER_WINDOW_MAX: u32 = 100;
/// Payload bytes of one control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What one client message may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of one message, all fragments together.
    pub message_bytes_max: usize,
    /// Frames of one message.
    pub fragments_max: u32,
    /// Time from the first byte of a message to its last. The guard has no clock; its owner holds to this.
    pub message_time_max: Duration,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            fragments_max: FRAGMENTS_MAX,
            message_time_max: Duration::from_secs(MESSAGE_SECONDS_MAX),
        }
    }
}

/// Where in a frame the next byte falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The first byte: final flag, reserved bits, opcode.
    First,
    /// The second byte: mask flag and short length.
    Second,
    /// The long form of the length: bytes still to come, all bytes of it, and its value so far.
    Length { left: u8, width: u8, value: u64 },
    /// Mask key and payload: bytes still to come.
    Body { left: u64 },
}

/// Follows the bytes of one inbound stream, however they are split.
#[derive(Debug)]
pub struct FrameGuard {
    limits: FrameLimits,
    place: Place,
    /// The current frame is a control frame.
    control: bool,
    /// The current frame is final.
    fin: bool,
    /// Frames of the open message so far; 0 when no message is open.
    fragments: u32,
    /// Payload bytes declared by the frames of the open message so far.
    message_bytes: u64,
    /// Control frames since the window was opened.
    control_frames: u32,
}

const MASK_BYTES: u64 = 4;

impl FrameGuard {
    /// A guard at the start of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            place: Place::First,
            control: false,
            fin: false,
            fragments: 0,
            message_bytes: 0,
            control_frames: 0,
        }
    }

    /// The limits it holds the stream to.
    pub fn limits(&self) -> FrameLimits {
        self.limits
    }

    /// Looks at the next bytes of the stream and says how many of them may be handed on: all, or up to the end of the
    /// current frame if that comes first. Call again with the rest. Bytes that are not handed on are not remembered.
    ///
    /// # Errors
    /// The first offence in stream order, whatever the split. After an error the guard must not be used again.
    pub fn admit(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let mut used = 0;
        while used < bytes.len() {
            if let Place::Body { left } = self.place {
                let here = (bytes.len() - used) as u64;
                if here < left {
                    self.place = Place::Body { left: left - here };
                    return Ok(bytes.len());
                }
                self.end_frame();
                let left = usize::try_from(left).expect("not more than a slice holds");
                return Ok(used + left);
            }
            self.header_byte(bytes[used])?;
            used += 1;
        }
        Ok(used)
    }

    /// Whether the next byte begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.place == Place::First
    }

    /// Whether a fragmented message has begun and not ended.
    pub fn in_message(&self) -> bool {
        self.fragments > 0
    }

    /// Bytes that the current frame is known to need still; 0 while its length is not known.
    pub fn frame_bytes_left(&self) -> u64 {
        if let Place::Body { left } = self.place { left } else { 0 }
    }

    /// Opens a new window for control frames. The owner, who has a clock, decides when.
    pub fn open_window(&mut self) {
        self.control_frames = 0;
    }

    fn header_byte(&mut self, byte: u8) -> Result<(), FrameError> {
        match self.place {
            Place::First => self.first(byte),
            Place::Second => self.second(byte),
            Place::Length { left, width, value } => {
                let value = value << 8 | u64::from(byte);
                if left > 1 {
                    self.place = Place::Length { left: left - 1, width, value };
                    return Ok(());
                }
                let least = if width == 2 { 126 } else { 1 << 16 };
                if value < least {
                    return Err(FrameError::LengthNotMinimal);
                }
                self.begin_body(value)
            }
            Place::Body { .. } => Ok(()),
        }
    }

    fn first(&mut self, byte: u8) -> Result<(), FrameError> {
        if byte & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        self.fin = byte & 0x80 != 0;
        self.control = byte & 0x08 != 0;
        match byte & 0x0f {
            0 if self.fragments == 0 => return Err(FrameError::ContinuationUnexpected),
            1 | 2 if self.fragments > 0 => return Err(FrameError::ContinuationMissing),
            0..=2 => {
                self.fragments += 1;
                if self.fragments > self.limits.fragments_max {
                    return Err(FrameError::TooManyFragments);
                }
            }
            8..=10 if !self.fin => return Err(FrameError::ControlFragmented),
            8..=10 => {
                self.control_frames += 1;
                if self.control_frames > CONTROL_FRAMES_PER_WINDOW_MAX {
                    return Err(FrameError::TooManyControlFrames);
                }
            }
            _ => return Err(FrameError::ReservedOpcode),
        }
        self.place = Place::Second;
        Ok(())
    }

    fn second(&mut self, byte: u8) -> Result<(), FrameError> {
        if byte & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let length = u64::from(byte & 0x7f);
        if self.control && length > CONTROL_BYTES_MAX {
            return Err(FrameError::ControlTooLong);
        }
        match length {
            126 => self.place = Place::Length { left: 2, width: 2, value: 0 },
            127 => self.place = Place::Length { left: 8, width: 8, value: 0 },
            _ => return self.begin_body(length),
        }
        Ok(())
    }

    fn begin_body(&mut self, length: u64) -> Result<(), FrameError> {
        if !self.control {
            self.message_bytes = self.message_bytes.saturating_add(length);
            if self.message_bytes > self.limits.message_bytes_max as u64 {
                return Err(FrameError::TooBig);
            }
        }
        self.place = Place::Body { left: MASK_BYTES + length };
        Ok(())
    }

    fn end_frame(&mut self) {
        self.place = Place::First;
        if !self.control && self.fin {
            self.fragments = 0;
            self.message_bytes = 0;
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
