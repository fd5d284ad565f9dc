//! What a conversation id says by itself: a room of a user or a role, a direct conversation, or one that needs a row.

use super::ids::{ConversationId, IdError, RoleName, UserId};

const PERSONAL_PREFIX: &str = "user:";
const ROLE_PREFIX: &str = "role:";
const PRESENCE_PREFIX: &str = "presence:";
const DIRECT_PREFIX: &str = "conv_";

/// What kind of conversation an id names, as far as the id itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConversationKind<'a> {
    /// `user:{id}`: the personal room of one user; every connection of that user is in it.
    Personal(&'a str),
    /// `role:{name}`: every connection whose token gives it that role is in it.
    Role(&'a str),
    /// `presence:{user}`: tells whether one user is online, to those who share a conversation with that user.
    Presence(&'a str),
    /// `conv_{a}_{b}`: a direct conversation of two users; no row has to exist.
    Direct(Direct<'a>),
    /// Everything else: membership is in the store.
    Stored,
}

/// The two users of a direct conversation, the smaller first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direct<'a> {
    /// The smaller user id.
    pub smaller: &'a str,
    /// The larger user id.
    pub larger: &'a str,
}

/// Whether `a` comes before `b`: as numbers when both are, else by bytes.
fn is_smaller(a: &str, b: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(a) && is_number(b) { (a.len(), a) < (b.len(), b) } else { a < b }
}

impl ConversationId {
    /// The personal room of a user.
    pub fn personal(user: &UserId) -> Self {
        Self::parse(&format!("{PERSONAL_PREFIX}{user}"))
            .expect("a user id with a prefix is a conversation id")
    }

    /// The room of a role.
    pub fn role(role: &RoleName) -> Self {
        Self::parse(&format!("{ROLE_PREFIX}{role}")).expect("a role with a prefix is a conversation id")
    }

    /// The room that tells whether a user is online.
    pub fn presence(user: &UserId) -> Self {
        Self::parse(&format!("{PRESENCE_PREFIX}{user}"))
            .expect("a user id with a prefix is a conversation id")
    }

    /// The direct conversation of two users, the same whoever asks.
    ///
    /// # Errors
    /// When both ids together are too long.
    pub fn direct(one: &UserId, other: &UserId) -> Result<Self, IdError> {
        let (one, other) = (one.as_str(), other.as_str());
        let (smaller, larger) = if is_smaller(one, other) { (one, other) } else { (other, one) };
        Self::parse(&format!("{DIRECT_PREFIX}{smaller}_{larger}"))
    }

    /// What the id says of the conversation.
    ///
    /// A user id may itself hold `_`, so `conv_a_b_c` could belong to (`a`, `b_c`) or (`a_b`, `c`). Only an id that
    /// splits in exactly one way into a smaller and a larger user is direct; any other needs a row that says whose it is.
    pub fn kind(&self) -> ConversationKind<'_> {
        let text = self.as_str();
        if let Some(user) = text.strip_prefix(PERSONAL_PREFIX) {
            return ConversationKind::Personal(user);
        }
        if let Some(role) = text.strip_prefix(ROLE_PREFIX) {
            return ConversationKind::Role(role);
        }
        if let Some(user) = text.strip_prefix(PRESENCE_PREFIX) {
            return ConversationKind::Presence(user);
        }
        let Some(pair) = text.strip_prefix(DIRECT_PREFIX) else { return ConversationKind::Stored };
        let mut splits = pair
            .match_indices('_')
            .map(|(at, _)| Direct { smaller: &pair[..at], larger: &pair[at + 1..] })
            .filter(|pair| !pair.smaller.is_empty() && is_smaller(pair.smaller, pair.larger));
        match (splits.next(), splits.next()) {
            (Some(only), None) => ConversationKind::Direct(only),
            _ => ConversationKind::Stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> String {
        let id = ConversationId::parse(text).unwrap();
        match id.kind() {
            ConversationKind::Personal(user) => format!("personal {user}"),
            ConversationKind::Role(role) => format!("role {role}"),
            ConversationKind::Presence(user) => format!("presence {user}"),
            ConversationKind::Direct(pair) => format!("direct {} {}", pair.smaller, pair.larger),
            ConversationKind::Stored => "stored".to_owned(),
        }
    }

    #[test]
    fn the_id_tells_the_kind() {
        assert_eq!(kind_of("user:42"), "personal 42");
        assert_eq!(kind_of("role:support"), "role support");
        assert_eq!(kind_of("presence:42"), "presence 42");
        assert_eq!(kind_of("conv_9_10"), "direct 9 10");
        assert_eq!(kind_of("conv_alice_bob"), "direct alice bob");
        assert_eq!(kind_of("conv_user_1_user_2"), "direct user_1 user_2");
        for text in ["general", "conv_10_9", "conv_bob_alice", "conv_", "conv_a", "conv__b", "conv_a_"] {
            assert_eq!(kind_of(text), "stored", "{text}");
        }
    }

    #[test]
    fn an_id_that_could_belong_to_two_pairs_is_not_direct() {
        assert_eq!(kind_of("conv_a_b_c"), "stored");
    }

    #[test]
    fn both_sides_name_the_same_direct_conversation() {
        let (nine, ten) = (UserId::parse("9").unwrap(), UserId::parse("10").unwrap());
        assert_eq!(ConversationId::direct(&nine, &ten).unwrap().as_str(), "conv_9_10");
        assert_eq!(ConversationId::direct(&ten, &nine), ConversationId::direct(&nine, &ten));
    }
}
