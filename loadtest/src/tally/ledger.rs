//! What one recipient was given, message by message.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write,
};

/// What a message says about itself in its body. The body is `{"load":"load:SENDER:ROOM:NUMBER:TIME:LENGTH:xxx"}`: one field, so
/// that a server which writes the fields of an object in another order, or with other spaces, does not change it.
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

/// What every note begins with. Nothing else that a server says has these bytes.
const HEAD: &[u8] = b"\"load:";
/// What fills a body up.
const FILLER: [u8; 256] = [b'x'; 256];

impl Note {
    /// The body, filled up to so many bytes where that is more than the note itself needs.
    pub fn body(&self, bytes: usize) -> String {
        let Self { sender, room, number, time_us } = self;
        let mut body = format!(r#"{{"load":"load:{sender}:{room}:{number}:{time_us}:"#);
        let end = ":\"}";
        let free = bytes.saturating_sub(body.len() + end.len());
        // The length takes place itself; zeros before it do no harm.
        let digits = free.to_string().len();
        let length = free.saturating_sub(digits);
        let filler = "x".repeat(length);
        let _ = write!(body, "{length:0digits$}:{filler}\"}}");
        body
    }

    /// The first note in the text, `None` where its body was damaged, and where it ends.
    pub fn find(text: &[u8]) -> Option<(Option<Self>, usize)> {
        let start = memchr::memmem::find(text, HEAD)? + HEAD.len();
        let whole = Self::read(&text[start..]);
        Some(whole.map_or((None, start), |(note, len)| (Some(note), start + len)))
    }

    /// The note behind its head, and how long it is.
    fn read(text: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        let mut number = || {
            let (value, digits) = leading_number(&text[at..])?;
            at += digits + 1;
            (text.get(at - 1) == Some(&b':')).then_some(value)
        };
        let (sender, room) = (u32::try_from(number()?).ok()?, u32::try_from(number()?).ok()?);
        let (number, time_us, length) = (number()?, number()?, usize::try_from(number()?).ok()?);
        let end = at.checked_add(length)?;
        let is_filler = |part: &[u8]| part == &FILLER[..part.len()];
        let is_whole = text.get(end) == Some(&b'"') && text.get(at..end)?.chunks(FILLER.len()).all(is_filler);
        is_whole.then_some((Self { sender, room, number, time_us }, end + 1))
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

/// What a delivery does to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// What the delivery is.
    pub delivered: Delivered,
    /// How many before it were sent while the recipient was away, and brought by nobody since.
    pub not_recovered: u64,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// What has not come yet: first number, and the one behind the last. Takes memory for each hole, not for each message.
    missing: BTreeMap<u64, u64>,
    /// The recipient was away and was not brought what it missed.
    was_away: bool,
}

impl Line {
    /// Takes a number out of the missing ones, if it is among them.
    fn find_missing(&mut self, number: u64) -> bool {
        let Some((&start, &end)) = self.missing.range(..=number).next_back() else { return false };
        if number >= end {
            return false;
        }
        self.missing.remove(&start);
        for (start, end) in [(start, number), (number + 1, end)] {
            if start < end {
                self.missing.insert(start, end);
            }
        }
        true
    }
}

/// Everything that one recipient was given.
#[derive(Debug, Default)]
pub struct Ledger {
    lines: HashMap<(u32, u32), Line>,
    /// The highest place in each room, where the protocol tells places.
    places: HashMap<u32, u64>,
    /// Rooms that the recipient once came back to without what it had missed.
    away: HashSet<u32>,
}

impl Ledger {
    /// Enters a delivery; `place` is its place in the room's order, 0 where the protocol has none.
    pub fn enter(&mut self, note: &Note, place: u64) -> Entered {
        let fresh = || Line { was_away: self.away.contains(&note.room), ..Line::default() };
        let line = self.lines.entry((note.room, note.sender)).or_insert_with(fresh);
        if note.number < line.next && !line.find_missing(note.number) {
            return Entered { delivered: Delivered::Repeated, not_recovered: 0 };
        }
        let highest = self.places.entry(note.room).or_default();
        let is_late = note.number < line.next || (place > 0 && place <= *highest);
        *highest = place.max(*highest);
        let mut not_recovered = 0;
        if note.number >= line.next {
            if std::mem::take(&mut line.was_away) {
                not_recovered = note.number - line.next;
            } else if note.number > line.next {
                line.missing.insert(line.next, note.number);
            }
            line.next = note.number + 1;
        }
        let delivered = if is_late { Delivered::Late } else { Delivered::New };
        Entered { delivered, not_recovered }
    }

    /// The recipient comes back to a room, and what it missed there will not be brought: the next gap is no loss.
    pub fn forgive(&mut self, room: u32) {
        self.away.insert(room);
        for (_, line) in self.lines.iter_mut().filter(|((of, _), _)| *of == room) {
            line.was_away = true;
        }
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
        for bytes in [0, 40, 45, 46, 47, 100, 137, 1_024] {
            let body = note(42).body(bytes);
            assert!(body.len() == bytes || bytes < 40, "{bytes}: {body}");
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
            let push = format!(r#"{{"push":{{"channel":"c","pub":{{"data":{body},"offset":18}}}}}}"#);
            let (found, end) = Note::find(push.as_bytes()).unwrap();
            assert_eq!(found, Some(note(42)));
            assert!(push[end..].contains("\"offset\":18"));
            let spaced = body.replace("\":\"", "\" : \"");
            assert_eq!(Note::find(spaced.as_bytes()).unwrap().0, Some(note(42)));
        }
        assert_eq!(Note::find(b"{}"), None);
    }

    #[test]
    fn a_body_that_is_not_what_was_sent_is_damaged() {
        let body = note(42).body(400);
        for damaged in [body.replace("xx\"", "xy\""), body.replace("xx\"", "x\""), body[..300].to_owned()] {
            assert_eq!(Note::find(damaged.as_bytes()).unwrap().0, None, "{damaged}");
        }
        assert_eq!(Note::find(br#""load:1:2::3""#).unwrap().0, None);
    }

    #[test]
    fn the_ledger_tells_new_late_and_repeated_apart() {
        let mut ledger = Ledger::default();
        let mut enter = |number, place| ledger.enter(&note(number), place).delivered;
        assert_eq!(enter(0, 1), Delivered::New);
        assert_eq!(enter(4, 5), Delivered::New);
        assert_eq!(enter(2, 3), Delivered::Late);
        assert_eq!(enter(2, 3), Delivered::Repeated);
        assert_eq!(enter(1, 2), Delivered::Late);
        assert_eq!(enter(3, 4), Delivered::Late);
        assert_eq!(enter(3, 4), Delivered::Repeated);
        assert_eq!(enter(4, 5), Delivered::Repeated);
        assert_eq!(enter(5, 5), Delivered::Late);
        assert_eq!(ledger.place(3), 5);
    }

    #[test]
    fn a_gap_is_forgiven_once_and_only_to_who_was_away() {
        let mut ledger = Ledger::default();
        let enter = |ledger: &mut Ledger, number| ledger.enter(&note(number), 0).not_recovered;
        assert_eq!(enter(&mut ledger, 0), 0);
        assert_eq!(enter(&mut ledger, 3), 0);
        ledger.forgive(3);
        assert_eq!(enter(&mut ledger, 10), 6);
        assert_eq!(enter(&mut ledger, 13), 0);
        let other = Note { sender: 8, ..note(5) };
        assert_eq!(ledger.enter(&other, 0).not_recovered, 5);
        assert_eq!(ledger.enter(&Note { number: 9, ..other }, 0).not_recovered, 0);
    }
}
