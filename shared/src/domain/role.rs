//! Roles and permissions: what a member may do, and which roles each kind of conversation has.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use super::ids::RoleName;

/// Longest name of a role and of a kind of conversation, in bytes.
pub const ROLE_BYTES_MAX: usize = 32;

/// What somebody is in a conversation, by name; its kind says what that allows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Role(Cow<'static, str>);

impl Role {
    /// May do everything.
    pub const OWNER: Self = Self(Cow::Borrowed("owner"));
    /// Keeps order.
    pub const MODERATOR: Self = Self(Cow::Borrowed("moderator"));
    /// Takes part.
    pub const MEMBER: Self = Self(Cow::Borrowed("member"));
    /// Reads.
    pub const OBSERVER: Self = Self(Cow::Borrowed("observer"));

    /// Parses a name: 1 to [`ROLE_BYTES_MAX`] of `a-z`, `0-9`, `_`, `-`.
    pub fn parse(text: &str) -> Option<Self> {
        let known = [Self::OWNER, Self::MODERATOR, Self::MEMBER, Self::OBSERVER];
        let known = known.into_iter().find(|role| role.as_str() == text);
        known.or_else(|| is_name(text).then(|| Self(text.to_owned().into())))
    }

    /// The name; it needs no escaping in JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    !text.is_empty() && text.len() <= ROLE_BYTES_MAX && text.bytes().all(is_allowed)
}

/// One thing that a role may allow. Reading, receipts and being told who types need only membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Send messages, and show that one types.
    Send,
    /// React to messages.
    React,
    /// Send ephemeral events of one's own naming.
    Signal,
    /// Edit one's own messages.
    EditOwn,
    /// Delete one's own messages.
    DeleteOwn,
    /// Delete anybody's messages.
    DeleteAny,
    /// Add members.
    AddMembers,
    /// Remove members.
    RemoveMembers,
    /// Change what members are.
    SetRoles,
    /// Let members only read for a while.
    Mute,
    /// Remove users and keep them out.
    Ban,
    /// Change what the conversation is called.
    Rename,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 12] = [
        Self::Send,
        Self::React,
        Self::Signal,
        Self::EditOwn,
        Self::DeleteOwn,
        Self::DeleteAny,
        Self::AddMembers,
        Self::RemoveMembers,
        Self::SetRoles,
        Self::Mute,
        Self::Ban,
        Self::Rename,
    ];

    /// The permission in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::React => "react",
            Self::Signal => "signal",
            Self::EditOwn => "edit_own",
            Self::DeleteOwn => "delete_own",
            Self::DeleteAny => "delete_any",
            Self::AddMembers => "add_members",
            Self::RemoveMembers => "remove_members",
            Self::SetRoles => "set_roles",
            Self::Mute => "mute",
            Self::Ban => "ban",
            Self::Rename => "rename",
        }
    }

    /// Reads [`Permission::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == text)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u16);

impl Permissions {
    /// Reading alone.
    pub const NONE: Self = Self(0);

    /// These.
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |set, permission| set | 1 << *permission as u16))
    }

    /// Whether one is among them.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u16 != 0
    }

    /// Whether they are no more than `others`.
    pub fn is_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Permission::ALL.iter().filter(|one| self.contains(**one))).finish()
    }
}

/// What one kind of conversation is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Its roles, and what each allows.
    pub roles: BTreeMap<Role, Permissions>,
    /// What the user who makes one becomes.
    pub maker_role: Role,
    /// What users become who are added without a role.
    pub member_role: Role,
    /// Whose every user is told when one is made: those whose token names this role.
    pub notify_role: Option<RoleName>,
}

impl Kind {
    /// What a role allows; a role that the kind does not have allows nothing but to read.
    pub fn permissions(&self, role: &Role) -> Permissions {
        self.roles.get(role).copied().unwrap_or_default()
    }
}

/// A group: its members talk, its owner and moderators keep order.
impl Default for Kind {
    fn default() -> Self {
        use Permission::{
            AddMembers, Ban, DeleteAny, DeleteOwn, EditOwn, Mute, React, RemoveMembers, Rename, Send, Signal,
        };
        let member = [Send, React, Signal, EditOwn, DeleteOwn];
        let more = [DeleteAny, AddMembers, RemoveMembers, Mute, Ban, Rename];
        let moderator: Vec<Permission> = member.into_iter().chain(more).collect();
        Self {
            roles: BTreeMap::from([
                (Role::OWNER, Permissions::of(&Permission::ALL)),
                (Role::MODERATOR, Permissions::of(&moderator)),
                (Role::MEMBER, Permissions::of(&member)),
                (Role::OBSERVER, Permissions::NONE),
            ]),
            maker_role: Role::OWNER,
            member_role: Role::MEMBER,
            notify_role: None,
        }
    }
}

/// The kind of a conversation of two, whose id follows from theirs.
pub const KIND_DIRECT: &str = "direct";
/// The kind of a conversation of any number.
pub const KIND_GROUP: &str = "group";
/// The kind of a conversation in which few speak and many read.
pub const KIND_CHANNEL: &str = "channel";

/// The kinds of conversations of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds {
    named: BTreeMap<String, Kind>,
    /// For conversations whose kind is configured no longer.
    other: Kind,
}

impl Default for Kinds {
    fn default() -> Self {
        let mut channel = Kind::default();
        channel.roles.insert(Role::MEMBER, Permissions::of(&[Permission::React]));
        let named = [(KIND_DIRECT, Kind::default()), (KIND_GROUP, Kind::default()), (KIND_CHANNEL, channel)];
        let named = named.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        Self { named, other: Kind::default() }
    }
}

impl Kinds {
    /// Adds a kind, or replaces one; false when the name is none: 1 to [`ROLE_BYTES_MAX`] of `a-z`, `0-9`, `_`, `-`.
    #[must_use]
    pub fn set(&mut self, name: &str, kind: Kind) -> bool {
        let is_name = is_name(name);
        if is_name {
            self.named.insert(name.to_owned(), kind);
        }
        is_name
    }

    /// A kind that a conversation can be made of.
    pub fn find(&self, name: &str) -> Option<&Kind> {
        self.named.get(name)
    }

    /// The kind of a conversation that there is; one that is not configured any more is like a group by default.
    pub fn get(&self, name: &str) -> &Kind {
        self.find(name).unwrap_or(&self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!(Role::parse("owner"), Some(Role::OWNER));
        assert_eq!(Role::parse("on-call_2").unwrap().as_str(), "on-call_2");
        for bad in ["", "Owner", "a b", "a:b", &"x".repeat(ROLE_BYTES_MAX + 1)] {
            assert_eq!(Role::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_permission_has_its_own_bit_and_name() {
        for one in Permission::ALL {
            assert_eq!(Permission::parse(one.as_str()), Some(one));
            for other in Permission::ALL {
                assert_eq!(Permissions::of(&[one]).contains(other), one == other);
            }
        }
    }

    #[test]
    fn roles_of_a_group_each_allow_what_the_next_does_and_more() {
        let group = Kind::default();
        let ranks = [Role::OBSERVER, Role::MEMBER, Role::MODERATOR, Role::OWNER];
        for pair in ranks.windows(2) {
            let (lower, higher) = (group.permissions(&pair[0]), group.permissions(&pair[1]));
            assert!(lower.is_within(higher) && !higher.is_within(lower), "{pair:?}");
        }
        assert_eq!(group.permissions(&Role::parse("stranger").unwrap()), Permissions::NONE);
    }
}
