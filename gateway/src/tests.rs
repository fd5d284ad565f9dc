//! What the rooms' unit tests share: clients to whom everything that is said can be read as text.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics::{Counter, Gauge};
use shared::{
    auth::Claims,
    domain::{ClientInfo, ConnectionId, ConversationId, UserId},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    hub::Client,
    outbox::{Fetched, Outbox, OutboxContext, OutboxLimits, OutboxMetrics},
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
pub fn client(n: u128, expires: u64) -> (Arc<Client>, Ear) {
    let metrics = OutboxMetrics {
        bytes: Gauge::noop(),
        ephemeral_dropped: Counter::noop(),
        closed_slow: Counter::noop(),
    };
    let limits = OutboxLimits { bytes_max: 1 << 20, farewell_time_max: NEVER, write_time_max: NEVER };
    let context = OutboxContext::new(limits, metrics, TaskTracker::new());
    let outbox = Outbox::fetched(&context, HTTP_STREAM.farewell);
    let claims = Arc::new(Claims::of(who(n).user, expires));
    let ear = Ear(Arc::clone(&outbox));
    (Arc::new(Client::new(who(n), &HTTP_STREAM, outbox, claims)), ear)
}

/// Hears what is said to a client.
pub struct Ear(Arc<Outbox>);

/// What was said so far and not read yet.
pub fn heard(Ear(outbox): &mut Ear) -> String {
    match outbox.poll_fetch(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Fetched::Chunks(chunks)) => String::from_utf8(chunks.concat()).unwrap(),
        Poll::Ready(Fetched::Attached | Fetched::Ended) | Poll::Pending => String::new(),
    }
}

/// A conversation.
pub fn conversation(id: &str) -> ConversationId {
    ConversationId::parse(id).unwrap()
}
