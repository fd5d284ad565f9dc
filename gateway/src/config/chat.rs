//! The table `[chat]` of the file: kinds of conversations, with their roles and what these allow.
//!
//! ```toml
//! [chat.kinds.dispute]
//! roles = { client = ["send", "react"], contractor = ["send", "react"], moderator = ["send", "delete_any", "mute"] }
//! maker_role = "client"
//! member_role = "contractor"
//! notify_role = "moderator"
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use shared::domain::{KIND_DIRECT, Kind, Kinds, Permission, Permissions, Role, RoleName};

/// Most kinds that a deployment configures.
const KINDS_MAX: usize = 64;
/// Most roles of one kind.
const ROLES_MAX: usize = 32;

/// The table as it is written.
#[derive(Deserialize, Debug, Clone, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatSettings {
    #[serde(default)]
    kinds: BTreeMap<String, KindSettings>,
}

#[derive(Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
struct KindSettings {
    /// The permissions of each role; roles that are not named have those of a group.
    #[serde(default)]
    roles: BTreeMap<String, Vec<String>>,
    maker_role: Option<String>,
    member_role: Option<String>,
    notify_role: Option<String>,
}

impl ChatSettings {
    /// The kinds of the deployment: those that are there without any configuration, and these.
    pub fn check(self) -> anyhow::Result<Kinds> {
        ensure!(self.kinds.len() <= KINDS_MAX, "chat.kinds: there are more than {KINDS_MAX}");
        let mut kinds = Kinds::default();
        for (name, settings) in self.kinds {
            let place = format!("chat.kinds.{name}");
            let like = kinds.find(&name).cloned().unwrap_or_default();
            let kind = settings.check(&name, like).with_context(|| place.clone())?;
            ensure!(kinds.set(&name, kind), "{place}: a kind is called by 1 to 32 of a-z, 0-9, `-` and `_`");
        }
        Ok(kinds)
    }
}

impl KindSettings {
    fn check(self, name: &str, mut kind: Kind) -> anyhow::Result<Kind> {
        if name == KIND_DIRECT {
            let is_member = self.roles.keys().all(|role| role == Role::MEMBER.as_str());
            let is_plain =
                self.maker_role.is_none() && self.member_role.is_none() && self.notify_role.is_none();
            ensure!(is_member && is_plain, "in a direct conversation both are `member`, and nothing else");
        }
        for (text, permissions) in self.roles {
            kind.roles.insert(role(&text)?, allowed(&text, &permissions)?);
        }
        ensure!(kind.roles.len() <= ROLES_MAX, "there are more than {ROLES_MAX} roles");
        for (chosen, given) in
            [(&mut kind.maker_role, self.maker_role), (&mut kind.member_role, self.member_role)]
        {
            let Some(text) = given else { continue };
            *chosen = role(&text)?;
            ensure!(kind.roles.contains_key(chosen), "the kind has no role `{text}`");
        }
        if let Some(text) = self.notify_role {
            let name = RoleName::parse(&text);
            kind.notify_role = Some(name.map_err(|error| anyhow::anyhow!("notify_role: {error}"))?);
        }
        Ok(kind)
    }
}

fn role(text: &str) -> anyhow::Result<Role> {
    Role::parse(text).with_context(|| format!("`{text}` is no role: 1 to 32 of a-z, 0-9, `-` and `_`"))
}

fn allowed(role: &str, permissions: &[String]) -> anyhow::Result<Permissions> {
    let mut parsed = Vec::with_capacity(permissions.len());
    for text in permissions {
        let Some(permission) = Permission::parse(text) else {
            let known = Permission::ALL.map(Permission::as_str).join(", ");
            bail!("role `{role}`: there is no permission `{text}`; there are {known}");
        };
        parsed.push(permission);
    }
    Ok(Permissions::of(&parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> anyhow::Result<Kinds> {
        toml::from_str::<ChatSettings>(text)?.check()
    }

    #[test]
    fn a_kind_has_its_own_roles_beside_the_usual_ones() {
        let kinds = kinds(
            "[kinds.dispute]\n\
             roles = { client = ['send'], moderator = ['delete_any'] }\n\
             maker_role = 'client'\nnotify_role = 'moderator'\n\
             [kinds.channel]\nroles = { member = ['send'] }",
        )
        .unwrap();
        let dispute = kinds.find("dispute").unwrap();
        let client = Role::parse("client").unwrap();
        assert_eq!(dispute.permissions(&client), Permissions::of(&[Permission::Send]));
        assert_eq!(dispute.permissions(&Role::MODERATOR), Permissions::of(&[Permission::DeleteAny]));
        assert_eq!(dispute.permissions(&Role::OWNER), Permissions::of(&Permission::ALL));
        assert_eq!((&dispute.maker_role, &dispute.member_role), (&client, &Role::MEMBER));
        assert_eq!(dispute.notify_role.as_ref().unwrap().as_str(), "moderator");
        let channel = kinds.find("channel").unwrap();
        assert_eq!(channel.permissions(&Role::MEMBER), Permissions::of(&[Permission::Send]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, names) in [
            ("[kinds.x.roles]\nmember = ['fly']", "`fly`"),
            ("[kinds.x]\nmaker_role = 'boss'", "`boss`"),
            ("[kinds.x.roles]\n'A B' = []", "`A B`"),
            ("[kinds.'X Y']", "X Y"),
            ("[kinds.x]\nnotify_role = 'a b'", "notify_role"),
            ("[kinds.direct]\nroles = { owner = [] }", "direct"),
            ("[kinds.x]\ncolour = 'red'", "colour"),
        ] {
            let error = format!("{:#}", kinds(text).unwrap_err());
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
