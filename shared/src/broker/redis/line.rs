//! One subscriber connection: what comes in over it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{
    PushInfo, PushKind, Value,
    aio::{AsyncPushSender, SendError},
};
use tokio::{sync::Notify, time::timeout};

use super::keys::{Channel, Keys};
use crate::{
    broker::{EntryId, Inbound, LogPosition, Sink},
    domain::{ConversationId, Epoch, Partition},
};

/// One subscriber connection.
pub(super) struct Line {
    keys: Arc<Keys>,
    /// Whom to tell; `None` before the connection is up and after it was given up. The lock keeps [`Inbound::Disconnected`]
    /// behind everything that the reading task is just handing over, and is otherwise only taken by that task.
    sink: Mutex<Option<Sink>>,
    /// Whether anything has arrived since this was last asked.
    heard: AtomicBool,
    lost: AtomicBool,
    ended: Notify,
    /// A partition of its server, by which it can be proved alive.
    probe: AtomicU16,
    /// What the server has let go of since this was last asked.
    gone: Mutex<Vec<Partition>>,
    /// Is told of the loss, and of slots that have moved; shared by all lines of a node.
    changed: Arc<Notify>,
}

impl Line {
    pub fn new(keys: Arc<Keys>, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            keys,
            sink: Mutex::default(),
            heard: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            ended: Notify::new(),
            probe: AtomicU16::new(0),
            gone: Mutex::default(),
            changed,
        })
    }

    /// Opens these and says that the node is connected, which it is told by `connected`. Whoever hears of that can use the
    /// connections at once; what is confirmed meanwhile waits.
    pub fn open(lines: &[Arc<Self>], sink: &Sink, connected: impl FnOnce()) {
        let locked: Vec<_> = lines.iter().map(|line| line.sink.lock()).collect();
        connected();
        for mut present in locked {
            *present = Some(Arc::clone(sink));
        }
    }

    /// Nothing comes from it any more.
    pub fn close(&self) {
        *self.sink.lock() = None;
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// It is of no use any more.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.ended.notify_one();
        self.changed.notify_one();
    }

    pub async fn is_lost_within(&self, time: Duration) -> bool {
        timeout(time, self.ended.notified()).await.is_ok()
    }

    /// A partition of its server, by which it can be proved alive.
    pub fn probe(&self) -> Partition {
        Partition(self.probe.load(Ordering::Relaxed))
    }

    pub fn set_probe(&self, partition: Partition) {
        self.probe.store(partition.0, Ordering::Relaxed);
    }

    /// Partitions that the server has let go of since this was last asked; it may have got them back meanwhile.
    pub fn take_gone(&self) -> Vec<Partition> {
        std::mem::take(&mut self.gone.lock())
    }

    /// Whether anything has arrived since this was last asked.
    pub fn has_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    fn hear(&self, kind: &PushKind, data: Vec<Value>) {
        let Some(inbound) = self.read(kind, data) else { return };
        if let Some(sink) = &*self.sink.lock() {
            sink(inbound);
        }
    }

    fn read(&self, kind: &PushKind, data: Vec<Value>) -> Option<Inbound> {
        let mut data = data.into_iter();
        let channel = data.next()?;
        let Value::BulkString(channel) = channel else { return None };
        let channel = std::str::from_utf8(&channel).ok()?;
        match (self.keys.parse_channel(channel)?, kind) {
            (Channel::Conversation(name), kind) => {
                let conversation = ConversationId::parse(name).ok()?;
                match kind {
                    PushKind::SMessage => Some(Inbound::Record(conversation, payload(data.next())?)),
                    PushKind::SSubscribe => Some(Inbound::Subscribed(conversation)),
                    PushKind::SUnsubscribe => Some(Inbound::Unsubscribed(conversation)),
                    _ => None,
                }
            }
            (Channel::Stored(partition), PushKind::SMessage) => {
                Some(Inbound::Stored(partition, parse_notice(&payload(data.next())?)?))
            }
            // Redis Cluster has moved the slot.
            (Channel::Stored(partition), PushKind::SUnsubscribe) => {
                self.gone.lock().push(partition);
                self.changed.notify_one();
                None
            }
            (Channel::Everyone | Channel::Node, PushKind::SMessage) => announced(payload(data.next())?),
            (Channel::Stored(_) | Channel::Everyone | Channel::Node, _) => None,
        }
    }
}

/// By nothing at all the connection proves that it is alive.
fn announced(text: Bytes) -> Option<Inbound> {
    if text == SALVAGE_CALL {
        return Some(Inbound::Salvage);
    }
    (!text.is_empty()).then_some(Inbound::Announcement(text))
}

fn payload(value: Option<Value>) -> Option<Bytes> {
    match value {
        Some(Value::BulkString(bytes)) => Some(bytes.into()),
        _ => None,
    }
}

/// What calls on every node, on the channel for all, to hand in what may be lost. Announcements are JSON, so none is this.
pub(crate) const SALVAGE_CALL: &[u8] = b"salvage";

/// The text of a `stored` notice.
pub(crate) fn notice(position: LogPosition) -> String {
    format!("{} {}", position.epoch.0, position.entry)
}

fn parse_notice(text: &[u8]) -> Option<LogPosition> {
    let (epoch, entry) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(LogPosition { epoch: Epoch(epoch.parse().ok()?), entry: EntryId::parse(entry)? })
}

/// Is called by the task that reads the connection.
pub(super) struct Ear(pub Arc<Line>);

impl AsyncPushSender for Ear {
    fn send(&self, PushInfo { kind, data }: PushInfo) -> Result<(), SendError> {
        if kind == PushKind::Disconnection {
            self.0.lose();
        } else {
            self.0.heard.store(true, Ordering::Relaxed);
            self.0.hear(&kind, data);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_back() {
        let position = LogPosition { epoch: Epoch(3), entry: EntryId { ms: 1_790_000_000_000, n: 7 } };
        assert_eq!(parse_notice(notice(position).as_bytes()), Some(position));
        assert_eq!(parse_notice(b"3 x"), None);
    }
}
