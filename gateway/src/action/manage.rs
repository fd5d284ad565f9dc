//! Changes who is in a conversation, what they are, and what it is called. Each change is one of the store, told to all
//! nodes, to everybody in the conversation by an entry of kind `members`, and to those whom it is about in their
//! personal rooms.

use serde::Serialize;
use shared::{
    clock,
    domain::{
        Body, ConversationId, ConversationKind, KIND_DIRECT, Kind, Manage, Member, MessageKind, Permission,
        Permissions, Refusal, Role, Send, UserId,
    },
    store::{Changed, MembersChange, StoreError},
};

use super::{
    Actor, ConversationNews, MembersChanged, Node, authorize, authorize_to,
    converse::{MEMBERS_MAX, check_name, unavailable},
    members::announce,
    send::record_by,
    tell,
};

/// Most users that one entry of kind `members` names: together they stay below the limit of a body.
const NAMED_MAX: usize = 200;
/// What `until` is when nobody says when it ends.
const FOR_EVER: u64 = i64::MAX.unsigned_abs();

/// Lists the members of a conversation.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, [`Refusal::NotFound`] for the server when there is no such conversation,
/// [`Refusal::Unavailable`] when the store does not answer.
pub async fn members(node: &Node, actor: &Actor, id: &ConversationId) -> Result<Vec<Member>, Refusal> {
    if let Actor::User(who) = actor {
        authorize(node, who, id).await?;
    }
    let found = node.store.members(id).await.map_err(|error| unavailable(&error))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let named = match id.kind() {
        ConversationKind::Stored => {
            let exists = node.store.conversation(id).await.map_err(|error| unavailable(&error))?.is_some();
            let is_told = exists || matches!(actor, Actor::User(_));
            return if is_told { Ok(found) } else { Err(Refusal::NotFound) };
        }
        ConversationKind::Personal(owner) => vec![owner],
        ConversationKind::Direct(pair) => vec![pair.smaller, pair.larger],
        ConversationKind::Role(_) | ConversationKind::Presence(_) => Vec::new(),
    };
    let member = |name: &str| {
        let user = UserId::parse(name).map_err(|_| Refusal::NotFound)?;
        Ok(Member { user, role: Role::MEMBER, muted_until_ms: None, joined_ms: 0 })
    };
    named.into_iter().map(member).collect()
}

/// What an entry of kind `members` says.
#[derive(Clone, Copy, Serialize)]
struct Entry<'a> {
    action: &'static str,
    users: &'a [UserId],
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// Does what `actor` may do about the members of a conversation, or its name.
///
/// Nobody acts upon a member who may do what he himself may not, nor gives such a role. When the last owner goes, the
/// moderator who has been there longest becomes owner, or else the member who has.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, for a member whose role does not allow it, and for the adding of who is banned;
/// [`Refusal::Muted`] for a muted one; [`Refusal::NotFound`] for the server when there is no such conversation;
/// [`Refusal::Invalid`] when it makes no sense, as with a direct conversation, with a role that the kind does not have,
/// or when there would be no owner; [`Refusal::LimitExceeded`] when there would be too many members;
/// [`Refusal::Unavailable`] when the store does not answer.
pub async fn manage(
    node: &Node,
    actor: &Actor,
    conversation: &ConversationId,
    action: Manage,
) -> Result<(), Refusal> {
    let managed = Managed::find(node, actor, conversation, &action).await?;
    match &action {
        Manage::Add { users, role } => managed.add(users, role.as_ref()).await,
        Manage::Leave => {
            let Actor::User(who) = actor else { return Err(Refusal::Invalid) };
            managed.remove(&who.user, "left").await
        }
        Manage::Remove(user) if managed.is_self(user) => managed.remove(user, "left").await,
        Manage::Remove(user) => {
            managed.check_rank(user).await?;
            managed.remove(user, "removed").await
        }
        Manage::SetRole(user, role) => managed.set_role(user, role).await,
        Manage::Mute(user, until) => {
            check_time(*until)?;
            managed.mute(user, Some(until.unwrap_or(FOR_EVER))).await
        }
        Manage::Unmute(user) => managed.mute(user, None).await,
        Manage::Ban(user, until) => {
            check_time(*until)?;
            managed.check_rank(user).await?;
            let change = node.store.ban(conversation, user, *until).await;
            managed.finish(change, Entry { until: *until, ..entry("banned") }, Some("removed")).await
        }
        Manage::Unban(user) => {
            let change = node.store.unban(conversation, user).await;
            managed.finish(change, entry("unbanned"), None).await
        }
        Manage::Rename(name) => {
            check_name(name.as_deref())?;
            let change = node.store.rename(conversation, name.as_deref()).await;
            managed.finish(change, Entry { name: name.as_deref(), ..entry("renamed") }, None).await
        }
    }
}

/// An entry that names nobody yet.
fn entry(action: &'static str) -> Entry<'static> {
    Entry { action, users: &[], role: None, until: None, name: None }
}

/// A time that is over already would mean nothing.
fn check_time(until_ms: Option<u64>) -> Result<(), Refusal> {
    let is_sound = until_ms.is_none_or(|until| until > clock::now_ms() && until <= FOR_EVER);
    if is_sound { Ok(()) } else { Err(Refusal::Invalid) }
}

/// A conversation whose members somebody may change.
struct Managed<'a> {
    node: &'a Node,
    actor: &'a Actor,
    id: &'a ConversationId,
    kind: &'a Kind,
    /// What the one who acts may do there.
    permissions: Permissions,
}

impl<'a> Managed<'a> {
    async fn find(
        node: &'a Node,
        actor: &'a Actor,
        id: &'a ConversationId,
        action: &Manage,
    ) -> Result<Self, Refusal> {
        let needed = match action {
            Manage::Add { .. } => Some(Permission::AddMembers),
            Manage::Remove(user) if matches!(actor, Actor::User(who) if who.user == *user) => None,
            Manage::Remove(_) => Some(Permission::RemoveMembers),
            Manage::Leave => None,
            Manage::SetRole(..) => Some(Permission::SetRoles),
            Manage::Mute(..) | Manage::Unmute(_) => Some(Permission::Mute),
            Manage::Ban(..) | Manage::Unban(_) => Some(Permission::Ban),
            Manage::Rename(_) => Some(Permission::Rename),
        };
        let is_stored = id.kind() == ConversationKind::Stored;
        let permissions = match (actor, needed) {
            (Actor::Server, _) => Permissions::of(&Permission::ALL),
            (Actor::User(who), Some(needed)) if is_stored => {
                node.limiter.publish_by(&who.user).await?;
                authorize_to(node, who, id, needed).await?
            }
            (Actor::User(who), _) => {
                node.limiter.publish_by(&who.user).await?;
                authorize(node, who, id).await?;
                Permissions::NONE
            }
        };
        if !is_stored {
            return Err(Refusal::Invalid);
        }
        let found = node.store.conversation(id).await.map_err(|error| unavailable(&error))?;
        match found {
            Some(found) if found.kind == KIND_DIRECT => Err(Refusal::Invalid),
            Some(found) => Ok(Self { node, actor, id, kind: node.kinds.get(&found.kind), permissions }),
            // A token lets its bearer into what has no members.
            None if matches!(actor, Actor::User(_)) => Err(Refusal::Forbidden),
            None => Err(Refusal::NotFound),
        }
    }

    fn is_self(&self, user: &UserId) -> bool {
        matches!(self.actor, Actor::User(who) if who.user == *user)
    }

    /// Who is no member may be anything but above somebody.
    async fn check_rank(&self, user: &UserId) -> Result<(), Refusal> {
        let membership = self.node.store.membership(self.id, user).await;
        match membership.map_err(|error| unavailable(&error))?.standing {
            Some(standing) => self.check_role(&standing.role),
            None => Ok(()),
        }
    }

    /// Whether a role allows no more than the one who acts has.
    fn check_role(&self, role: &Role) -> Result<(), Refusal> {
        let is_within = self.kind.permissions(role).is_within(self.permissions);
        if is_within { Ok(()) } else { Err(Refusal::Forbidden) }
    }

    fn known(&self, role: &Role) -> Result<(), Refusal> {
        if self.kind.roles.contains_key(role) { Ok(()) } else { Err(Refusal::Invalid) }
    }

    async fn add(&self, users: &[UserId], role: Option<&Role>) -> Result<(), Refusal> {
        if users.is_empty() || users.len() > MEMBERS_MAX {
            return Err(if users.is_empty() { Refusal::Invalid } else { Refusal::LimitExceeded });
        }
        if let Some(role) = role {
            self.known(role)?;
            let is_usual = *role == self.kind.member_role;
            if !is_usual && !self.permissions.contains(Permission::SetRoles) {
                return Err(Refusal::Forbidden);
            }
            self.check_role(role)?;
        }
        if let Actor::User(who) = self.actor {
            // Each of them is told by a message.
            self.node.limiter.publish_many_by(&who.user, users.len()).await?;
        }
        let role = role.unwrap_or(&self.kind.member_role);
        let store = &self.node.store;
        let change = store.add_members(self.id, users, role, MEMBERS_MAX, clock::now_ms()).await;
        self.finish(change, Entry { role: Some(role.as_str()), ..entry("added") }, Some("added")).await
    }

    async fn remove(&self, user: &UserId, action: &'static str) -> Result<(), Refusal> {
        let change = self.node.store.remove_member(self.id, user).await;
        self.finish(change, entry(action), Some("removed")).await
    }

    async fn set_role(&self, user: &UserId, role: &Role) -> Result<(), Refusal> {
        self.known(role)?;
        self.check_role(role)?;
        self.check_rank(user).await?;
        let change = self.node.store.set_role(self.id, user, role).await;
        self.finish(change, Entry { role: Some(role.as_str()), ..entry("role") }, Some("role")).await
    }

    async fn mute(&self, user: &UserId, until_ms: Option<u64>) -> Result<(), Refusal> {
        self.check_rank(user).await?;
        let change = self.node.store.mute(self.id, user, until_ms).await;
        let action = if until_ms.is_some() { "muted" } else { "unmuted" };
        let until = until_ms.filter(|until| *until < FOR_EVER);
        self.finish(change, Entry { until, ..entry(action) }, Some(action)).await
    }

    /// Makes a change known: to the nodes, in the conversation, and in the personal rooms of whom it is about.
    async fn finish(
        &self,
        change: Result<MembersChange, StoreError>,
        entry: Entry<'_>,
        news: Option<&str>,
    ) -> Result<(), Refusal> {
        let Changed { version, users, promoted } = match change.map_err(|error| unavailable(&error))? {
            MembersChange::Done(changed) => changed,
            MembersChange::Unneeded => return Ok(()),
            MembersChange::Full => return Err(Refusal::LimitExceeded),
            MembersChange::Banned => return Err(Refusal::Forbidden),
            MembersChange::LastOwner => return Err(Refusal::Invalid),
        };
        let gone = if news == Some("removed") { users.clone() } else { Vec::new() };
        announce(self.node, MembersChanged { conversation: self.id.clone(), version, gone }).await;
        if users.is_empty() {
            self.write(&entry).await;
        }
        for named in users.chunks(NAMED_MAX) {
            self.write(&Entry { users: named, ..entry }).await;
        }
        if let Some(action) = news {
            self.tell(&users, action, entry.role).await;
        }
        if let Some(heir) = promoted {
            let heir = [heir];
            let owner = Some(Role::OWNER.as_str());
            self.write(&Entry { role: owner, users: &heir, ..self::entry("role") }).await;
            self.tell(&heir, "role", owner).await;
        }
        Ok(())
    }

    /// Writes an entry in the name of the one who acts. The change is made already; who misses the entry sees it in the
    /// list of members.
    async fn write(&self, entry: &Entry<'_>) {
        let body = Body::from_json(serde_json::to_vec(entry).expect("an entry is plain data"));
        let sender = match self.actor {
            Actor::User(who) => who.user.clone(),
            Actor::Server => UserId::server(),
        };
        let send = Send {
            conversation: self.id.clone(),
            client_id: None,
            reply_to: None,
            kind: MessageKind::MEMBERS,
            body,
            retry: false,
        };
        if let Err(refusal) = record_by(self.node, &sender, send).await {
            tracing::warn!(conversation = %self.id, %refusal, "a change of members has no entry");
        }
    }

    async fn tell(&self, users: &[UserId], action: &str, role: Option<&str>) {
        let news = ConversationNews { role, ..ConversationNews::new(action, self.id, self.actor) };
        tell(self.node, users, &news).await;
    }
}
