//! Who may do what in a conversation. Every operation asks, every time.

use shared::{
    auth::Identity,
    clock,
    domain::{
        ConversationId, ConversationKind, Direct, KIND_DIRECT, Permission, Permissions, Refusal, Role, UserId,
    },
    store::{Standing, StoreError},
};

use super::{Node, users::may_follow};

/// On whose behalf something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user, who may do what members may.
    User(Identity),
    /// The application's server, whose key was checked: it is asked for no membership.
    Server,
}

/// Whether `who` takes part in the conversation, and so may read: as a member, or because the token says so.
///
/// # Errors
/// [`Refusal::Forbidden`] for a stranger, whether the conversation exists or not; [`Refusal::Unavailable`] when the
/// store has to be asked and does not answer.
pub async fn authorize(node: &Node, who: &Identity, conversation: &ConversationId) -> Result<(), Refusal> {
    if who.grants.allow(conversation) {
        return Ok(());
    }
    let user = &who.user;
    let is_member = match conversation.kind() {
        ConversationKind::Personal(owner) => owner == user.as_str(),
        ConversationKind::Role(name) => who.roles.iter().any(|role| role.as_str() == name),
        ConversationKind::Presence(of) => match UserId::parse(of) {
            Ok(of) => may_follow(node, who, &of).await?,
            Err(_) => false,
        },
        ConversationKind::Direct(pair) => is_one_of(pair, who),
        ConversationKind::Stored => standing(node, who, conversation).await?.is_some(),
    };
    if is_member { Ok(()) } else { Err(Refusal::Forbidden) }
}

/// Whether `who` may do this in the conversation. A token that names the conversation allows to send, and to read;
/// where it is told whether a user is online, to read alone.
/// Returns all that the user's role allows there, which is nothing for who is there by the token alone.
///
/// # Errors
/// As [`authorize`]; also [`Refusal::Forbidden`] for a member whose role does not allow it, and [`Refusal::Muted`] for one
/// who may only read for now.
pub async fn authorize_to(
    node: &Node,
    who: &Identity,
    conversation: &ConversationId,
    permission: Permission,
) -> Result<Permissions, Refusal> {
    let is_presence = matches!(conversation.kind(), ConversationKind::Presence(_));
    if permission == Permission::Send && !is_presence && who.grants.allow(conversation) {
        return Ok(Permissions::NONE);
    }
    let permissions = match conversation.kind() {
        ConversationKind::Personal(owner) if owner == who.user.as_str() => {
            Permissions::of(&[Permission::Send, Permission::Signal])
        }
        ConversationKind::Direct(pair) if is_one_of(pair, who) => {
            node.kinds.get(KIND_DIRECT).permissions(&Role::MEMBER)
        }
        ConversationKind::Stored => {
            let standing = standing(node, who, conversation).await?.ok_or(Refusal::Forbidden)?;
            if standing.muted_until_ms.is_some_and(|until| clock::now_ms() < until) {
                return Err(Refusal::Muted);
            }
            node.kinds.get(&standing.kind).permissions(&standing.role)
        }
        // Rooms of roles and of presence are read alone.
        _ => Permissions::NONE,
    };
    if permissions.contains(permission) { Ok(permissions) } else { Err(Refusal::Forbidden) }
}

fn is_one_of(pair: Direct<'_>, who: &Identity) -> bool {
    [pair.smaller, pair.larger].contains(&who.user.as_str())
}

async fn standing(
    node: &Node,
    who: &Identity,
    conversation: &ConversationId,
) -> Result<Option<Standing>, Refusal> {
    let standing = node.memberships.standing(&*node.store, conversation, &who.user).await;
    standing.map_err(|error: StoreError| {
        tracing::warn!(%error, "membership cannot be read");
        Refusal::Unavailable
    })
}
