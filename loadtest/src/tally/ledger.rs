//! What one recipient was given, message by message.

use std::collections::{BTreeSet, HashMap};

/// What a message says about itself in its body. The body is `{"s":…,"r":…,"n":…,"t":…,"p":"…"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Who sent it.
    pub sender: u32,
    /// To which room.
    pub room: u32,
    /// How many this sender had sent to the room before.
    pub number: u64,
    /// When it was to be sent, in microseconds since the start of the run.
    pub time_us: u64,
}

/// What every body begins with. Nothing else that a server says has these bytes.
const HEAD: &[u8] = b"{\"s\":";
const ROOM: &[u8] = b",\"r\":";
const NUMBER: &[u8] = b",\"n\":";
const TIME: &[u8] = b",\"t\":";

impl Note {
    /// The body, filled up to so many bytes where that is more than the note itself needs.
    pub fn body(&self, bytes: usize) -> String {
        let Self { sender, room, number, time_us } = self;
        let mut body = format!(r#"{{"s":{sender},"r":{room},"n":{number},"t":{time_us},"p":""#);
        let end = "\"}";
        body.extend(std::iter::repeat_n('x', bytes.saturating_sub(body.len() + end.len())));
        body + end
    }

    /// The first note in the text, and where it ends.
    pub fn find(text: &[u8]) -> Option<(Self, usize)> {
        let mut at = memchr::memmem::find(text, HEAD)? + HEAD.len();
        let mut number = |mark: &[u8]| {
            if !text[at..].starts_with(mark) {
                return None;
            }
            at += mark.len();
            let (value, digits) = leading_number(&text[at..])?;
            at += digits;
            Some(value)
        };
        let sender = u32::try_from(number(b"")?).ok()?;
        let room = u32::try_from(number(ROOM)?).ok()?;
        let (number, time_us) = (number(NUMBER)?, number(TIME)?);
        Some((Self { sender, room, number, time_us }, at))
    }
}

/// The number that the text begins with, and how many digits it has.
pub fn leading_number(text: &[u8]) -> Option<(u64, usize)> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let parse = |value: u64, byte: &u8| value.checked_mul(10)?.checked_add(u64::from(byte - b'0'));
    let value = text[..digits].iter().try_fold(0, parse)?;
    (digits > 0).then_some((value, digits))
}

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The next one, or one after some that are missing.
    New,
    /// One that comes after a later one.
    Late,
    /// One that came before.
    Repeated,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    missing: BTreeSet<u64>,
}

/// Everything that one recipient was given.
#[derive(Debug, Default)]
pub struct Ledger {
    lines: HashMap<(u32, u32), Line>,
    /// The highest place in each room, where the protocol tells places.
    places: HashMap<u32, u64>,
}

impl Ledger {
    /// Enters a delivery; `place` is its place in the room's order, 0 where the protocol has none.
    pub fn enter(&mut self, note: &Note, place: u64) -> Delivered {
        let line = self.lines.entry((note.room, note.sender)).or_default();
        if note.number < line.next && !line.missing.remove(&note.number) {
            return Delivered::Repeated;
        }
        let highest = self.places.entry(note.room).or_default();
        let is_late = note.number < line.next || (place > 0 && place <= *highest);
        *highest = place.max(*highest);
        if note.number >= line.next {
            line.missing.extend(line.next..note.number);
            line.next = note.number + 1;
        }
        if is_late { Delivered::Late } else { Delivered::New }
    }

    /// Up to where it has read a room.
    pub fn place(&self, room: u32) -> u64 {
        self.places.get(&room).copied().unwrap_or_default()
    }

    /// Begins to read a room at this place.
    pub fn begin(&mut self, room: u32, place: u64) {
        let highest = self.places.entry(room).or_default();
        *highest = place.max(*highest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(number: u64) -> Note {
        Note { sender: 7, room: 3, number, time_us: 1_234 }
    }

    #[test]
    fn a_note_is_found_again_in_what_a_server_makes_of_it() {
        let body = note(42).body(100);
        assert_eq!(body.len(), 100);
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
        let push = format!(r#"{{"push":{{"channel":"c","pub":{{"data":{body},"offset":18}}}}}}"#);
        let (found, end) = Note::find(push.as_bytes()).unwrap();
        assert_eq!(found, note(42));
        assert!(push[end..].contains("\"offset\":18"));
        assert_eq!(Note::find(br#"{"s":1,"r":2,"n":}"#), None);
        assert_eq!(Note::find(b"{}"), None);
    }

    #[test]
    fn the_ledger_tells_new_late_and_repeated_apart() {
        let mut ledger = Ledger::default();
        let mut enter = |number, place| ledger.enter(&note(number), place);
        assert_eq!(enter(0, 1), Delivered::New);
        assert_eq!(enter(2, 3), Delivered::New);
        assert_eq!(enter(1, 2), Delivered::Late);
        assert_eq!(enter(1, 2), Delivered::Repeated);
        assert_eq!(enter(2, 3), Delivered::Repeated);
        assert_eq!(enter(3, 3), Delivered::Late);
        assert_eq!(ledger.place(3), 3);
    }
}
