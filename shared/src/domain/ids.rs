//! Identifiers. Each is parsed once at the rim; inside, a value of the type is proof that it is well formed.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longest conversation id, in bytes. It becomes part of Redis key and channel names.
pub const CONVERSATION_ID_BYTES_MAX: usize = 255;
/// Longest user id, in bytes.
pub const USER_ID_BYTES_MAX: usize = 100;
/// Longest client message id, in bytes.
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 100;

/// Longest name of a role that tokens give, and of a signal, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which identifier was read.
        what: &'static str,
    },
    /// The string has more bytes than the limit.
    #[error("{what} is longer than {max} bytes")]
    TooLong {
        /// Which identifier was read.
        what: &'static str,
        /// The limit, in bytes.
        max: usize,
    },
    /// The string is kept for Starling's own use.
    #[error("{what} may not be this one, which is reserved")]
    Reserved {
        /// Which identifier was read.
        what: &'static str,
    },
    /// The string has a byte outside the allowed set.
    #[error("{what} may only have printable ASCII without spaces, braces, quotes, backslash and slash")]
    Character {
        /// Which identifier was read.
        what: &'static str,
    },
}

/// Braces would move a Redis key to another slot; quotes and the backslash would need escaping in JSON; the slash in paths.
fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'"' | b'\'' | b'\\' | b'/' | b'`' | b'<' | b'>')
}

/// Whom messages come from that an application server publishes; no token can name it.
const SERVER: &str = "$server";

fn check(what: &'static str, text: &str, max: usize, reserved: &[&str]) -> Result<(), IdError> {
    if reserved.contains(&text) {
        Err(IdError::Reserved { what })
    } else if text.is_empty() {
        Err(IdError::Empty { what })
    } else if text.len() > max {
        Err(IdError::TooLong { what, max })
    } else if text.bytes().all(is_id_byte) {
        Ok(())
    } else {
        Err(IdError::Character { what })
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the identifier.
            ///
            /// # Errors
            /// When it is empty, too long, or has a character that is not allowed.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($what, text, $max, &$reserved)?;
                Ok(Self(Arc::from(text)))
            }

            /// The identifier as text; it needs no escaping in JSON.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// Names one conversation; the Centrifuge channel of the same name.
    ConversationId,
    "a conversation id",
    CONVERSATION_ID_BYTES_MAX,
    []
);
text_id!(
    /// Names one user: the `sub` of the token.
    UserId,
    "a user id",
    USER_ID_BYTES_MAX,
    [SERVER]
);
text_id!(
    /// The name that a client gives its message, so that a retry is recognised.
    ClientMessageId,
    "a client message id",
    CLIENT_MESSAGE_ID_BYTES_MAX,
    []
);
text_id!(
    /// Names one run of one gateway process.
    NodeId,
    "a node id",
    CONVERSATION_ID_BYTES_MAX,
    []
);
text_id!(
    /// Names a role that a token gives its bearer everywhere, such as `support`.
    RoleName,
    "a role",
    NAME_BYTES_MAX,
    []
);
text_id!(
    /// Names what a signal is for, such as `call_offer`.
    SignalName,
    "the name of a signal",
    NAME_BYTES_MAX,
    []
);

impl UserId {
    /// The sender of what an application server publishes.
    pub fn server() -> Self {
        Self(Arc::from(SERVER))
    }

    /// Parses the sender of a message: a user, or [`UserId::server`].
    ///
    /// # Errors
    /// As [`UserId::parse`].
    pub fn parse_sender(text: &str) -> Result<Self, IdError> {
        if text == SERVER { Ok(Self::server()) } else { Self::parse(text) }
    }
}

/// Names one message for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// The id of a message that its sender named: the same for every retry, so that it can be recognised for ever.
    pub fn derived(conversation: &ConversationId, sender: &UserId, client_id: &ClientMessageId) -> Self {
        let mut hash = Sha256::new();
        for part in [conversation.as_str(), sender.as_str(), client_id.as_str()] {
            // The length in front keeps ("ab", "c") apart from ("a", "bc").
            hash.update(u64::try_from(part.len()).expect("a length fits 64 bits").to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one connection of one client, across all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ConnectionId(pub Uuid);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_would_need_escaping_or_move_a_key() {
        for bad in ["", "a b", "{x}", "a\"b", "ä", "a\nb", "a/b", "a\\b"] {
            assert!(ConversationId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["conv_1_2", "user:42", "auth0|7", "a.b-c@d", "0d1f5e3e-5d0b-4a52-8a2c-3d6f4b1f8f10"] {
            assert_eq!(ConversationId::parse(good).unwrap().as_str(), good);
        }
        assert!(UserId::parse(&"x".repeat(USER_ID_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn nobody_but_the_server_has_its_name() {
        assert!(UserId::parse(UserId::server().as_str()).is_err());
        assert!(serde_json::from_str::<UserId>("\"$server\"").is_err());
        assert_eq!(UserId::parse_sender("$server"), Ok(UserId::server()));
        assert_eq!(UserId::parse_sender("ann"), UserId::parse("ann"));
        assert!(UserId::parse_sender("a b").is_err());
    }

    #[test]
    fn a_derived_id_depends_on_each_part_and_on_where_it_ends() {
        let id = |c: &str, s: &str, m: &str| {
            MessageId::derived(
                &ConversationId::parse(c).unwrap(),
                &UserId::parse(s).unwrap(),
                &ClientMessageId::parse(m).unwrap(),
            )
        };
        assert_eq!(id("c", "s", "m"), id("c", "s", "m"));
        assert_ne!(id("cs", "s", "m"), id("c", "ss", "m"));
        assert_ne!(id("c", "s", "m"), id("c", "s", "n"));
    }
}
