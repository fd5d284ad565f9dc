//! The judge: compares what was acknowledged, what readers were given and what every node says at the end.
//!
//! It never talks to a node; everything it knows is in the [`Evidence`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use serde::Serialize;

use crate::wire::Entry;

/// Most examples that are kept of one kind of fault.
pub const EXAMPLES_MAX: usize = 5;

/// How many numbers an epoch has: where the log was lost, numbering goes on in a later epoch.
pub const EPOCH_SEQS: u64 = 1 << 32;

/// What one writer was told.
#[derive(Debug, Clone, Default)]
pub struct WriterRecord {
    /// The user.
    pub user: String,
    /// Acknowledgements, in the order in which they came; each message was sent after the ack before it.
    pub acks: Vec<Ack>,
    /// Messages that were definitely refused.
    pub refused: Vec<Refused>,
    /// Messages whose outcome is still unknown, with the last error.
    pub gave_up: Vec<String>,
    /// Up to where the conversation was announced to this writer as stored, for each epoch of the numbers.
    pub stored_upto: BTreeMap<u64, u64>,
    /// How often a message was tried again.
    pub retries: u64,
}

impl WriterRecord {
    /// Notes that everything up to this seq, within its epoch, is stored.
    pub fn note_stored(&mut self, upto: u64) {
        let known = self.stored_upto.entry(upto / EPOCH_SEQS).or_default();
        *known = upto.max(*known);
    }

    fn knows_stored(&self, seq: u64) -> bool {
        self.stored_upto.get(&(seq / EPOCH_SEQS)).is_some_and(|upto| seq <= *upto)
    }
}

/// One acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The writer's name for the message.
    pub client_id: String,
    /// The message's id.
    pub id: String,
    /// The message's place.
    pub seq: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub time: u64,
    /// What was sent.
    pub body: String,
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The writer's name for the message.
    pub client_id: String,
    /// What the server said.
    pub reason: String,
}

/// What one reader was given.
#[derive(Debug, Clone, Default)]
pub struct ReaderRecord {
    /// Names the reader in examples.
    pub name: String,
    /// The end of the conversation when it subscribed: everything above is its due.
    pub from: u64,
    /// Everything that it was given, in order.
    pub received: Vec<Entry>,
    /// How often it had to connect again.
    pub reconnects: u64,
    /// How often it was told to page through the history instead of being caught up.
    pub limited: u64,
}

/// The whole conversation, as one node shows it.
#[derive(Debug, Clone, Default)]
pub struct HistoryRecord {
    /// Names the node in examples.
    pub node: String,
    /// From the first message to the last.
    pub messages: Vec<Entry>,
}

/// What must have survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every message that was accepted, at its place; and nobody was given anything else.
    #[default]
    Accepted,
    /// Every message that was acknowledged; for runs in which the log itself is destroyed, and those who know what was
    /// in it hand it in again. What was not announced as stored may have another place then, at which it is given again.
    Acknowledged,
    /// Every message that was announced as stored; for runs in which the log itself is destroyed for good.
    Stored,
}

/// Everything that is known about one conversation.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The conversation.
    pub conversation: String,
    /// What must have survived.
    pub durability: Durability,
    /// Its writers.
    pub writers: Vec<WriterRecord>,
    /// Its readers.
    pub readers: Vec<ReaderRecord>,
    /// What each node says at the end.
    pub histories: Vec<HistoryRecord>,
}

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Acknowledged, and not in the history.
    Lost,
    /// In the history with another id, place or body than was acknowledged.
    Altered,
    /// Twice in the history, or given twice to a reader.
    Repeated,
    /// A seq that does not rise: in a history, at a reader, or among a writer's acknowledgements.
    Disorder,
    /// A reader was not given a message that is in the history.
    Hole,
    /// A reader was given something that the history does not have, or has otherwise.
    Divergent,
    /// A `prev` that is not the seq before.
    BrokenChain,
    /// Two nodes show different histories.
    NodesDiffer,
    /// Refused, and in the history all the same.
    RefusedYetThere,
    /// Something did not come to an end, so that nothing can be said about it.
    Unfinished,
}

/// How often a fault was found, and the first examples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How often.
    pub count: u64,
    /// The first few, readable.
    pub examples: Vec<String>,
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Conversations judged.
    pub conversations: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages that were definitely refused.
    pub refused: u64,
    /// Messages given to readers.
    pub received: u64,
    /// Messages in the histories, each counted once.
    pub stored: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Connections of readers beyond the first.
    pub reconnects: u64,
    /// Times that a reader had to page through the history.
    pub limited: u64,
    /// What is wrong.
    pub faults: BTreeMap<Fault, Findings>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// How often a kind of fault was found.
    pub fn count(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).map_or(0, |findings| findings.count)
    }

    /// Adds a fault.
    pub fn found(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        let findings = self.faults.entry(fault).or_default();
        findings.count += 1;
        if findings.examples.len() < EXAMPLES_MAX {
            findings.examples.push(example());
        }
    }

    /// Adds the judgement of another conversation.
    pub fn merge(&mut self, other: Self) {
        self.conversations += other.conversations;
        self.acked += other.acked;
        self.refused += other.refused;
        self.received += other.received;
        self.stored += other.stored;
        self.retries += other.retries;
        self.reconnects += other.reconnects;
        self.limited += other.limited;
        for (fault, theirs) in other.faults {
            let ours = self.faults.entry(fault).or_default();
            ours.count += theirs.count;
            ours.examples.extend(theirs.examples);
            ours.examples.truncate(EXAMPLES_MAX);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} acknowledged, {} refused, {} in the histories of {} conversations, {} given to readers",
            self.acked, self.refused, self.stored, self.conversations, self.received
        )?;
        writeln!(
            f,
            "{} retries, {} reconnects of readers, {} catch-ups by paging",
            self.retries, self.reconnects, self.limited
        )?;
        if self.is_clean() {
            return write!(f, "nothing lost, nothing repeated, one order, every chain complete");
        }
        for (fault, Findings { count, examples }) in &self.faults {
            write!(f, "FAULT {fault:?}: {count}")?;
            for example in examples {
                write!(f, "\n    {example}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Judges one conversation.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict { conversations: 1, ..Default::default() };
    let judge = Judge { evidence };
    for writer in &evidence.writers {
        judge.writer(writer, &mut verdict);
    }
    for history in &evidence.histories {
        judge.history(history, &mut verdict);
    }
    match evidence.histories.split_first() {
        Some((first, others)) => {
            verdict.stored = first.messages.iter().filter(|entry| !entry.is_void()).count() as u64;
            for other in others {
                judge.same(first, other, &mut verdict);
            }
            for reader in &evidence.readers {
                judge.reader(reader, first, &mut verdict);
            }
        }
        None => verdict.found(Fault::Unfinished, || judge.say("no history was read")),
    }
    verdict
}

struct Judge<'a> {
    evidence: &'a Evidence,
}

impl Judge<'_> {
    fn say(&self, what: impl fmt::Display) -> String {
        format!("{}: {what}", self.evidence.conversation)
    }

    /// Whether a message that was acknowledged at this seq must have survived.
    fn must_survive(&self, seq: u64) -> bool {
        self.evidence.durability == Durability::Acknowledged || self.is_final(seq)
    }

    /// Whether what was given out at this seq must be what the history has there.
    fn is_final(&self, seq: u64) -> bool {
        match self.evidence.durability {
            Durability::Accepted => true,
            Durability::Acknowledged | Durability::Stored => {
                self.evidence.writers.iter().any(|writer| writer.knows_stored(seq))
            }
        }
    }

    fn writer(&self, writer: &WriterRecord, verdict: &mut Verdict) {
        verdict.acked += writer.acks.len() as u64;
        verdict.refused += writer.refused.len() as u64;
        verdict.retries += writer.retries;
        for unknown in &writer.gave_up {
            verdict.found(Fault::Unfinished, || self.say(format_args!("{} gave up {unknown}", writer.user)));
        }
        for pair in writer.acks.windows(2).filter(|pair| pair[0].seq >= pair[1].seq) {
            verdict.found(Fault::Disorder, || {
                let (one, next) = (&pair[0], &pair[1]);
                let order =
                    format_args!("{} at {}, then {} at {}", one.client_id, one.seq, next.client_id, next.seq);
                self.say(format_args!("{} was acknowledged {order}", writer.user))
            });
        }
    }

    fn history(&self, history: &HistoryRecord, verdict: &mut Verdict) {
        let node = &history.node;
        self.rises(&format!("{node}'s history"), &history.messages, verdict);
        self.repeats(&format!("{node}'s history"), history.messages.iter(), verdict);
        let mut before = 0;
        for entry in &history.messages {
            if entry.prev != before {
                let Entry { seq, prev, .. } = entry;
                verdict.found(Fault::BrokenChain, || {
                    self.say(format_args!("{node}: {seq} names {prev} as the one before, which is {before}"))
                });
            }
            before = entry.seq;
        }
        let by_name: HashMap<(&str, &str), &Entry> = history
            .messages
            .iter()
            .filter(|entry| !entry.is_void())
            .filter_map(|entry| Some(((entry.sender.as_str(), entry.client_id.as_deref()?), entry)))
            .collect();
        for writer in &self.evidence.writers {
            self.kept(node, writer, &by_name, verdict);
        }
    }

    /// Everything acknowledged to the writer is there as it was acknowledged, and nothing that was refused to it.
    fn kept(
        &self,
        node: &str,
        writer: &WriterRecord,
        by_name: &HashMap<(&str, &str), &Entry>,
        verdict: &mut Verdict,
    ) {
        let user = writer.user.as_str();
        for ack in &writer.acks {
            let name = &ack.client_id;
            match by_name.get(&(user, name.as_str())) {
                None if self.must_survive(ack.seq) => verdict.found(Fault::Lost, || {
                    self.say(format_args!("{node} does not have {name}, acknowledged at {}", ack.seq))
                }),
                Some(entry) if entry.id != ack.id || entry.body != ack.body => {
                    verdict.found(Fault::Altered, || {
                        self.say(format_args!("{node} has {name} as {entry:?}, acknowledged as {ack:?}"))
                    });
                }
                // What was not yet stored when the log was lost is submitted again, under a new number.
                Some(entry) if entry.seq != ack.seq && self.is_final(ack.seq) => {
                    verdict.found(Fault::Altered, || {
                        self.say(format_args!(
                            "{node} has {name} at {}, acknowledged at {}",
                            entry.seq, ack.seq
                        ))
                    });
                }
                _ => {}
            }
        }
        for refused in
            writer.refused.iter().filter(|refused| by_name.contains_key(&(user, &refused.client_id)))
        {
            verdict.found(Fault::RefusedYetThere, || {
                self.say(format_args!("{node} has {}, refused as {}", refused.client_id, refused.reason))
            });
        }
    }

    fn reader(&self, reader: &ReaderRecord, history: &HistoryRecord, verdict: &mut Verdict) {
        let name = &reader.name;
        verdict.received += reader.received.len() as u64;
        verdict.reconnects += reader.reconnects;
        verdict.limited += reader.limited;
        self.rises(name, &reader.received, verdict);
        let due = || history.messages.iter().filter(|entry| !entry.is_void() && entry.seq > reader.from);
        let received: HashSet<u64> = reader.received.iter().map(|entry| entry.seq).collect();
        for missed in due().filter(|entry| !received.contains(&entry.seq)) {
            verdict.found(Fault::Hole, || {
                self.say(format_args!("{name} was not given {} ({:?})", missed.seq, missed.client_id))
            });
        }
        let due: HashMap<u64, &Entry> = due().map(|entry| (entry.seq, entry)).collect();
        // What went down with the log may come again, at another place.
        let is_gone = |entry: &Entry| !due.contains_key(&entry.seq) && !self.is_final(entry.seq);
        let kept = || reader.received.iter().filter(|entry| !entry.is_void() && !is_gone(entry));
        self.repeats(name, kept(), verdict);
        for entry in kept() {
            match due.get(&entry.seq) {
                Some(same) if *same == entry => {}
                known => verdict.found(Fault::Divergent, || {
                    self.say(format_args!("{name} was given {entry:?}, the history has {known:?}"))
                }),
            }
        }
    }

    fn same(&self, first: &HistoryRecord, other: &HistoryRecord, verdict: &mut Verdict) {
        if first.messages == other.messages {
            return;
        }
        let at = first.messages.iter().zip(&other.messages).take_while(|(one, two)| one == two).count();
        verdict.found(Fault::NodesDiffer, || {
            self.say(format_args!(
                "from message {at} on, {} of {} has {:?} and {} of {} has {:?}",
                first.node,
                first.messages.len(),
                first.messages.get(at),
                other.node,
                other.messages.len(),
                other.messages.get(at)
            ))
        });
    }

    fn rises(&self, whose: &str, entries: &[Entry], verdict: &mut Verdict) {
        for pair in entries.windows(2).filter(|pair| pair[0].seq >= pair[1].seq) {
            verdict.found(Fault::Disorder, || {
                self.say(format_args!("{whose}: {} comes after {}", pair[1].seq, pair[0].seq))
            });
        }
    }

    fn repeats<'e>(&self, whose: &str, entries: impl Iterator<Item = &'e Entry>, verdict: &mut Verdict) {
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for entry in entries.filter(|entry| !entry.is_void()) {
            let new_id = ids.insert(entry.id.as_str());
            let new_name = entry.client_id.as_deref().is_none_or(|name| names.insert((&entry.sender, name)));
            if !new_id || !new_name {
                verdict
                    .found(Fault::Repeated, || self.say(format_args!("{whose}: {entry:?} is there twice")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry {
            id: format!("id{seq}"),
            seq,
            prev: seq - 1,
            sender: "al".into(),
            client_id: Some(format!("m{seq}")),
            kind: "text".into(),
            body: format!("{{\"n\":{seq}}}"),
        }
    }

    fn ack(seq: u64) -> Ack {
        let Entry { id, body, client_id, .. } = entry(seq);
        Ack { client_id: client_id.unwrap(), id, seq, time: 1, body }
    }

    /// Ten messages, all as promised; two readers, one of which came after the third message; two nodes.
    fn good() -> Evidence {
        let all: Vec<Entry> = (1..=10).map(entry).collect();
        let reader = |name: &str, from: usize| ReaderRecord {
            name: name.into(),
            from: from as u64,
            received: all[from..].to_vec(),
            ..Default::default()
        };
        let history = |node: &str| HistoryRecord { node: node.into(), messages: all.clone() };
        Evidence {
            conversation: "c".into(),
            durability: Durability::Accepted,
            writers: vec![WriterRecord {
                user: "al".into(),
                acks: (1..=10).map(ack).collect(),
                ..Default::default()
            }],
            readers: vec![reader("early", 0), reader("late", 3)],
            histories: vec![history("a"), history("b")],
        }
    }

    #[track_caller]
    fn expect(fault: Fault, count: u64, spoil: impl FnOnce(&mut Evidence)) {
        let mut evidence = good();
        spoil(&mut evidence);
        let verdict = judge(&evidence);
        assert_eq!(verdict.count(fault), count, "{verdict}");
        assert!(!verdict.is_clean());
        assert!(verdict.to_string().contains(&format!("FAULT {fault:?}: {count}")), "{verdict}");
    }

    fn both(evidence: &mut Evidence, spoil: impl Fn(&mut Vec<Entry>)) {
        for history in &mut evidence.histories {
            spoil(&mut history.messages);
        }
    }

    #[test]
    fn what_is_as_promised_is_clean() {
        let verdict = judge(&good());
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.acked, verdict.received, verdict.stored), (10, 17, 10));
    }

    #[test]
    fn a_jump_of_the_numbers_is_no_hole() {
        let mut evidence = good();
        let jump = |entry: &mut Entry| {
            entry.prev += if entry.seq > 5 { 1 << 32 } else { 0 };
            entry.seq += if entry.seq > 4 { 1 << 32 } else { 0 };
        };
        both(&mut evidence, |messages| messages.iter_mut().for_each(jump));
        evidence.readers.iter_mut().for_each(|reader| reader.received.iter_mut().for_each(jump));
        evidence.writers[0].acks.iter_mut().skip(4).for_each(|ack| ack.seq += 1 << 32);
        assert!(judge(&evidence).is_clean(), "{}", judge(&evidence));
    }

    #[test]
    fn a_void_number_holds_the_chain_together_and_is_no_message() {
        let mut evidence = good();
        let void = Entry { kind: Entry::VOID.into(), client_id: None, id: "id1".into(), ..entry(11) };
        both(&mut evidence, |messages| messages.push(void.clone()));
        assert!(judge(&evidence).is_clean(), "{}", judge(&evidence));
        evidence.histories[0].messages.push(entry(13));
        assert_eq!(judge(&evidence).count(Fault::BrokenChain), 1);
    }

    #[test]
    fn a_lost_message_is_found_on_each_node_that_lost_it() {
        expect(Fault::Lost, 2, |evidence| both(evidence, |messages| drop(messages.pop())));
        expect(Fault::Lost, 1, |evidence| drop(evidence.histories[1].messages.remove(4)));
    }

    #[test]
    fn a_message_that_was_changed_is_found() {
        expect(Fault::Altered, 2, |evidence| both(evidence, |messages| messages[3].body = "{}".into()));
        expect(Fault::Altered, 2, |evidence| evidence.writers[0].acks[2].seq = 2);
        expect(Fault::Altered, 2, |evidence| evidence.writers[0].acks[2].id = "other".into());
        expect(Fault::Altered, 1, |evidence| evidence.histories[1].messages[3].id = "other".into());
    }

    #[test]
    fn a_repeated_message_is_found() {
        expect(Fault::Repeated, 1, |evidence| evidence.readers[0].received.push(entry(4)));
        expect(Fault::Repeated, 2, |evidence| {
            let again = Entry { seq: 11, prev: 10, id: "new".into(), ..entry(4) };
            both(evidence, |messages| messages.push(again.clone()));
        });
        expect(Fault::Repeated, 2, |evidence| {
            let again = Entry { seq: 11, prev: 10, client_id: None, ..entry(4) };
            both(evidence, |messages| messages.push(again.clone()));
        });
    }

    #[test]
    fn disorder_is_found() {
        expect(Fault::Disorder, 1, |evidence| evidence.readers[1].received.swap(2, 3));
        expect(Fault::Disorder, 1, |evidence| evidence.writers[0].acks.swap(2, 3));
        expect(Fault::Disorder, 2, |evidence| both(evidence, |messages| messages.swap(2, 3)));
    }

    #[test]
    fn a_hole_is_found_in_the_middle_and_at_the_end() {
        expect(Fault::Hole, 1, |evidence| drop(evidence.readers[1].received.remove(2)));
        expect(Fault::Hole, 1, |evidence| drop(evidence.readers[1].received.pop()));
        expect(Fault::Hole, 7, |evidence| evidence.readers[1].received.clear());
    }

    #[test]
    fn a_reader_with_something_else_is_found() {
        expect(Fault::Divergent, 1, |evidence| evidence.readers[0].received[5].body = "{}".into());
        expect(Fault::Divergent, 1, |evidence| evidence.readers[0].received.push(entry(11)));
        expect(Fault::Divergent, 1, |evidence| evidence.readers[1].received.insert(0, entry(3)));
        expect(Fault::Divergent, 1, |evidence| evidence.readers[0].received[5].prev = 3);
    }

    #[test]
    fn a_broken_chain_is_found() {
        expect(Fault::BrokenChain, 2, |evidence| both(evidence, |messages| messages[6].prev = 5));
        expect(Fault::BrokenChain, 2, |evidence| both(evidence, |messages| drop(messages.remove(0))));
    }

    #[test]
    fn nodes_that_differ_are_found() {
        expect(Fault::NodesDiffer, 1, |evidence| drop(evidence.histories[1].messages.pop()));
        expect(Fault::NodesDiffer, 1, |evidence| evidence.histories[1].messages[0].sender = "bo".into());
    }

    #[test]
    fn a_refusal_that_was_none_is_found() {
        expect(Fault::RefusedYetThere, 2, |evidence| {
            let Ack { client_id, .. } = evidence.writers[0].acks.pop().unwrap();
            evidence.writers[0].refused.push(Refused { client_id, reason: "403".into() });
        });
    }

    #[test]
    fn without_an_end_there_is_no_clean_verdict() {
        expect(Fault::Unfinished, 1, |evidence| evidence.histories.clear());
        expect(Fault::Unfinished, 1, |evidence| evidence.writers[0].gave_up.push("m11: timeout".into()));
    }

    #[test]
    fn where_the_log_is_destroyed_only_what_was_stored_must_survive() {
        let mut evidence = good();
        evidence.durability = Durability::Stored;
        evidence.writers[0].note_stored(8);
        evidence.writers[0].note_stored(EPOCH_SEQS + 1);
        both(&mut evidence, |messages| messages.truncate(8));
        assert!(judge(&evidence).is_clean(), "{}", judge(&evidence));
        evidence.writers[0].note_stored(9);
        assert_eq!(judge(&evidence).count(Fault::Lost), 2);
        assert_eq!(judge(&evidence).count(Fault::Divergent), 2);
    }

    #[test]
    fn where_the_log_is_handed_in_again_what_was_not_stored_may_have_another_place() {
        let mut evidence = good();
        evidence.durability = Durability::Acknowledged;
        evidence.writers[0].note_stored(8);
        let moved = [(9, 8, EPOCH_SEQS + 1), (10, EPOCH_SEQS + 1, EPOCH_SEQS + 2)];
        let moved = moved.map(|(old, prev, seq)| Entry { seq, prev, ..entry(old) });
        both(&mut evidence, |messages| {
            messages.truncate(8);
            messages.extend_from_slice(&moved);
        });
        evidence.readers.iter_mut().for_each(|reader| reader.received.extend_from_slice(&moved));
        assert!(judge(&evidence).is_clean(), "{}", judge(&evidence));
        let mut repeated = evidence.clone();
        let again = Entry { seq: EPOCH_SEQS + 3, ..moved[1].clone() };
        repeated.readers[0].received.push(Entry { seq: EPOCH_SEQS + 3, ..moved[1].clone() });
        both(&mut repeated, |messages| messages.push(again.clone()));
        assert_eq!(judge(&repeated).count(Fault::Repeated), 3);
        both(&mut evidence, |messages| drop(messages.pop()));
        assert_eq!(judge(&evidence).count(Fault::Lost), 2);
    }

    #[test]
    fn verdicts_add_up() {
        let mut evidence = good();
        evidence.readers[0].received.pop();
        let mut sum = judge(&evidence);
        sum.merge(judge(&evidence));
        assert_eq!((sum.conversations, sum.acked, sum.count(Fault::Hole)), (2, 20, 2));
        assert_eq!(sum.faults[&Fault::Hole].examples.len(), 2);
    }
}
