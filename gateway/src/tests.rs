//! What the rooms' unit tests share: clients to whom everything that is said can be read as text.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use metrics::{Counter, Gauge};
use shared::{
    auth::Claims,
    domain::{ClientInfo, ConnectionId, ConversationId, UserId},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    hub::Client,
    outbox::{Drain, Outbox, OutboxContext, OutboxLimits, OutboxMetrics},
    protocol::centrifuge::HTTP_STREAM,
};

/// Longer than a test takes.
const NEVER: Duration = Duration::from_mins(10);

/// What the `n`th client is called.
pub fn who(n: u128) -> ClientInfo {
    let user = UserId::parse(&format!("user-{n}")).unwrap();
    ClientInfo { user, client: ConnectionId(Uuid::from_u128(n)), info: None }
}

/// The `n`th client, whose token is valid until the second `expires`, and what is said to it.
pub fn client(n: u128, expires: u64) -> (Arc<Client>, Drain) {
    let metrics = OutboxMetrics {
        bytes: Gauge::noop(),
        ephemeral_dropped: Counter::noop(),
        closed_slow: Counter::noop(),
    };
    let limits = OutboxLimits { bytes_max: 1 << 20, farewell_time_max: NEVER, write_time_max: NEVER };
    let context = OutboxContext::new(limits, metrics, TaskTracker::new());
    let (outbox, drain) = Outbox::body(&context, HTTP_STREAM.farewell);
    let claims = Arc::new(Claims::of(who(n).user, expires));
    (Arc::new(Client::new(who(n), &HTTP_STREAM, outbox, claims)), drain)
}

/// What was said so far and not read yet.
pub fn heard(drain: &mut Drain) -> String {
    let mut all = String::new();
    while let Some(Some(chunk)) = drain.next().now_or_never() {
        all.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    all
}

/// A conversation.
pub fn conversation(id: &str) -> ConversationId {
    ConversationId::parse(id).unwrap()
}
