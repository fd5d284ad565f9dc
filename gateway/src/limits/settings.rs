//! Which limits can be set, and what they are when nobody does.

use serde::Deserialize;
use shared::rate::Rate;

/// Declares the settings as flags, variables and lines of the file, and the same complete.
macro_rules! settings {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:literal, $env:literal;)*) => {
        /// Every limit that can be set, each optional: a file and the flags both give some of them.
        #[derive(clap::Args, Deserialize, Debug, Clone, Default)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitSettings {
            $($(#[doc = $help])+
            #[arg(long, env = $env, value_name = "N")]
            $name: Option<$type>,)*
        }

        impl LimitSettings {
            /// Takes each setting of `self` where it is given, else that of `file`.
            #[must_use]
            pub fn or(self, file: Self) -> Self {
                Self { $($name: self.$name.or(file.$name),)* }
            }

            /// A limit that is 0 where that would keep everybody out, by its name.
            pub fn nothing_allowed(&self) -> Option<&'static str> {
                let zeros = [$((stringify!($name), self.$name == Some(0)),)*];
                let is_wrong = |&&(name, is_zero): &&(&str, bool)| is_zero && name != "trusted_proxies";
                zeros.iter().find(is_wrong).map(|&(name, _)| name)
            }

            fn complete(self) -> Complete {
                Complete { $($name: self.$name.unwrap_or($default),)* }
            }
        }

        struct Complete { $($name: $type,)* }
    };
}

settings! {
    /// Proxies in front of this node whose X-Forwarded-For is believed [default: 0].
    trusted_proxies: usize = 0, "STARLING_TRUSTED_PROXIES";
    /// Seconds for the body of a request [default: 30].
    body_seconds_max: u64 = 30, "STARLING_BODY_SECONDS_MAX";
    /// Connections of this node [default: 100000].
    connections_max: usize = 100_000, "STARLING_CONNECTIONS_MAX";
    /// Connections of one address on this node, of a /64 in IPv6 [default: 10000].
    connections_per_address_max: usize = 10_000, "STARLING_CONNECTIONS_PER_ADDRESS_MAX";
    /// Connections of one user on this node [default: 200].
    connections_per_user_max: usize = 200, "STARLING_CONNECTIONS_PER_USER_MAX";
    /// Connections of this node that have not said yet who they are [default: 10000].
    handshakes_pending_max: usize = 10_000, "STARLING_HANDSHAKES_PENDING_MAX";
    /// The same of one address [default: 5000].
    handshakes_pending_per_address_max: usize = 5_000, "STARLING_HANDSHAKES_PENDING_PER_ADDRESS_MAX";
    /// New connections of this node in a second [default: 2000].
    handshakes_per_second: u32 = 2_000, "STARLING_HANDSHAKES_PER_SECOND";
    /// New connections of this node at once [default: 10000].
    handshakes_burst: u32 = 10_000, "STARLING_HANDSHAKES_BURST";
    /// Clients that are greeted at the same time; others wait [default: 256].
    connects_concurrent_max: usize = 256, "STARLING_CONNECTS_CONCURRENT_MAX";
    /// Clients that may wait to be greeted before no more are let in [default: 5000].
    connects_pending_max: usize = 5_000, "STARLING_CONNECTS_PENDING_MAX";
    /// Resumes that are read at the same time; others wait [default: 64].
    resumes_concurrent_max: usize = 64, "STARLING_RESUMES_CONCURRENT_MAX";
    /// Resumes that may wait [default: 20000].
    resumes_pending_max: usize = 20_000, "STARLING_RESUMES_PENDING_MAX";
    /// Publishes of one user in a second, on all nodes together [default: 2000].
    publishes_per_user_per_second: u32 = 2_000, "STARLING_PUBLISHES_PER_USER_PER_SECOND";
    /// Publishes of one user at once [default: 10000].
    publishes_per_user_burst: u32 = 10_000, "STARLING_PUBLISHES_PER_USER_BURST";
    /// Publishes to one conversation in a second, on all nodes together [default: 5000].
    publishes_per_conversation_per_second: u32 = 5_000, "STARLING_PUBLISHES_PER_CONVERSATION_PER_SECOND";
    /// Publishes to one conversation at once [default: 20000].
    publishes_per_conversation_burst: u32 = 20_000, "STARLING_PUBLISHES_PER_CONVERSATION_BURST";
    /// Requests of one user in a second, on one node, beside messages over a connection [default: 500].
    requests_per_user_per_second: u32 = 500, "STARLING_REQUESTS_PER_USER_PER_SECOND";
    /// Requests of one user at once [default: 5000].
    requests_per_user_burst: u32 = 5_000, "STARLING_REQUESTS_PER_USER_BURST";
    /// Words of one user about typing in a second, on one node [default: 10].
    typing_per_user_per_second: u32 = 10, "STARLING_TYPING_PER_USER_PER_SECOND";
    /// Words of one user about typing at once [default: 40].
    typing_per_user_burst: u32 = 40, "STARLING_TYPING_PER_USER_BURST";
    /// Signals of one user in a second, on one node [default: 50].
    signals_per_user_per_second: u32 = 50, "STARLING_SIGNALS_PER_USER_PER_SECOND";
    /// Signals of one user at once [default: 200].
    signals_per_user_burst: u32 = 200, "STARLING_SIGNALS_PER_USER_BURST";
}

/// The limits, complete. Those of connections are of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "LimitSettings has the same names and says what each is")]
pub struct Settings {
    pub trusted_proxies: usize,
    pub body_seconds_max: u64,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub connections_per_user_max: usize,
    pub handshakes_pending_max: usize,
    pub handshakes_pending_per_address_max: usize,
    pub handshakes_per_second: u32,
    pub handshakes_burst: u32,
    pub connects_concurrent_max: usize,
    pub connects_pending_max: usize,
    pub resumes_concurrent_max: usize,
    pub resumes_pending_max: usize,
    pub publishes_per_user: Rate,
    pub publishes_per_conversation: Rate,
    pub requests_per_user: Rate,
    pub typing_per_user: Rate,
    pub signals_per_user: Rate,
}

impl From<LimitSettings> for Settings {
    fn from(given: LimitSettings) -> Self {
        let given = given.complete();
        let (user, user_burst) = (given.publishes_per_user_per_second, given.publishes_per_user_burst);
        Self {
            trusted_proxies: given.trusted_proxies,
            body_seconds_max: given.body_seconds_max,
            connections_max: given.connections_max,
            connections_per_address_max: given.connections_per_address_max,
            connections_per_user_max: given.connections_per_user_max,
            handshakes_pending_max: given.handshakes_pending_max,
            handshakes_pending_per_address_max: given.handshakes_pending_per_address_max,
            handshakes_per_second: given.handshakes_per_second,
            handshakes_burst: given.handshakes_burst,
            connects_concurrent_max: given.connects_concurrent_max,
            connects_pending_max: given.connects_pending_max,
            resumes_concurrent_max: given.resumes_concurrent_max,
            resumes_pending_max: given.resumes_pending_max,
            publishes_per_user: Rate::new(user, user_burst),
            publishes_per_conversation: Rate::new(
                given.publishes_per_conversation_per_second,
                given.publishes_per_conversation_burst,
            ),
            requests_per_user: Rate::new(given.requests_per_user_per_second, given.requests_per_user_burst),
            typing_per_user: Rate::new(given.typing_per_user_per_second, given.typing_per_user_burst),
            signals_per_user: Rate::new(given.signals_per_user_per_second, given.signals_per_user_burst),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        LimitSettings::default().into()
    }
}
