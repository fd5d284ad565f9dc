//! The claim `conversations`: what a token allows beside memberships.

use crate::domain::{ConversationId, ConversationKind};

/// Most entries of the claim.
pub const GRANTS_MAX: usize = 256;

/// Conversations that a token names, each by its id or by the beginning of ids (`orders.*`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(Vec<Grant>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Grant {
    Exactly(ConversationId),
    /// What the id begins with; empty for all.
    StartingWith(String),
}

impl Grants {
    /// Reads the claim; `None` when it has too many entries or one that is neither an id nor a beginning with one `*` at
    /// its end. What cannot be understood must not be taken for less than it means.
    pub fn parse(claim: &[String]) -> Option<Self> {
        if claim.len() > GRANTS_MAX {
            return None;
        }
        claim.iter().map(|entry| Grant::parse(entry)).collect::<Option<_>>().map(Self)
    }

    /// Whether one of them covers the conversation. A personal room is its owner's
    /// alone, and the room of a role is for those who have it, whatever else a token says.
    pub fn allow(&self, conversation: &ConversationId) -> bool {
        let covers = |grant: &Grant| match grant {
            Grant::Exactly(id) => id == conversation,
            Grant::StartingWith(beginning) => conversation.as_str().starts_with(beginning.as_str()),
        };
        let is_reserved =
            matches!(conversation.kind(), ConversationKind::Personal(_) | ConversationKind::Role(_));
        !is_reserved && self.0.iter().any(covers)
    }
}

impl Grant {
    fn parse(entry: &str) -> Option<Self> {
        let beginning = entry.strip_suffix('*').unwrap_or(entry);
        let is_plain = !beginning.contains('*');
        if !is_plain {
            return None;
        }
        // A beginning has the letters of an id, lest one that can match nothing go unnoticed.
        let id = ConversationId::parse(beginning);
        match (entry.ends_with('*'), id) {
            (false, Ok(id)) => Some(Self::Exactly(id)),
            (true, Ok(_)) => Some(Self::StartingWith(beginning.to_owned())),
            (true, Err(_)) if beginning.is_empty() => Some(Self::StartingWith(String::new())),
            (_, Err(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(entries: &[&str]) -> Option<Grants> {
        Grants::parse(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn ids_and_beginnings_cover_what_they_say() {
        let given = grants(&["general", "orders.*", "conv_a_b"]).unwrap();
        let allows = |id: &str| given.allow(&ConversationId::parse(id).unwrap());
        for id in ["general", "orders.", "orders.7", "conv_a_b"] {
            assert!(allows(id), "{id}");
        }
        for id in ["general2", "genera", "orders", "my.orders.7", "conv_a_c", "user:a"] {
            assert!(!allows(id), "{id}");
        }
        assert!(!Grants::default().allow(&ConversationId::parse("general").unwrap()));
    }

    #[test]
    fn everything_is_not_the_rooms_of_others() {
        let all = grants(&["*", "user:bob", "user:*", "role:*"]).unwrap();
        assert!(all.allow(&ConversationId::parse("anything").unwrap()));
        for reserved in ["user:bob", "role:support"] {
            assert!(!all.allow(&ConversationId::parse(reserved).unwrap()));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "a*b", "*a", "**", "a**", "a b", "{a}*", "a/*"] {
            assert_eq!(grants(&[bad]), None, "{bad}");
        }
        assert_eq!(grants(&["a"; GRANTS_MAX + 1]), None);
        assert!(grants(&["a"; GRANTS_MAX]).is_some());
    }
}
