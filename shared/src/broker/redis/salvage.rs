//! What nodes hand in after Redis may have lost it, and its way back.

use bytes::{BufMut, Bytes, BytesMut};
use redis::{Script, ScriptInvocation};

use super::{HOT_TAIL_MS, RedisBroker, connection::Held, flag, line::SALVAGE_CALL};
use crate::{
    broker::{BrokerError, sequence::DEDUPE_MS},
    domain::{ConversationId, Epoch, Event, Message, Partition},
    record::{Payload, decode_live, encode_message, encode_payload},
};

/// How long what was handed in waits for whoever opens the partition, in milliseconds.
const HANDED_IN_MS: u64 = 60_000;
/// Most messages in one call.
const MESSAGES_PER_CALL_MAX: usize = 256;
/// What `restore.lua` says: the message was put back.
const PUT_BACK: i64 = 1;
/// What `restore.lua` says: the partition is open, and nothing is put back any more.
const ALREADY_OPEN: i64 = -1;

impl RedisBroker {
    pub(super) async fn call_on_nodes(&self) -> Result<(), BrokerError> {
        let partition = self.some_partition().await;
        let mut command = redis::cmd("SPUBLISH");
        command.arg(self.keys.everyone(partition)).arg(SALVAGE_CALL);
        self.send(self.keys.slot(partition), &command).await
    }

    pub(super) async fn take_in(
        &self,
        partition: Partition,
        messages: &[Message],
    ) -> Result<(), BrokerError> {
        let key = self.keys.salvage(partition);
        for some in messages.chunks(MESSAGES_PER_CALL_MAX) {
            let mut request = redis::pipe();
            request.cmd("RPUSH").arg(&key);
            for message in some {
                request.arg(&pack(message)[..]);
            }
            request.ignore().cmd("PEXPIRE").arg(&key).arg(HANDED_IN_MS).ignore();
            let slot = self.keys.slot(partition);
            let request = &request;
            let send = |mut held: Held| async move { request.query_async(&mut held.connection).await };
            let () = self.commands.run(slot, send).await?;
        }
        Ok(())
    }

    pub(super) async fn put_back(&self, partition: Partition, epoch: Epoch) -> Result<u64, BrokerError> {
        let key = self.keys.salvage(partition);
        let mut read = redis::cmd("LRANGE");
        read.arg(&key).arg(0).arg(-1);
        let slot = self.keys.slot(partition);
        let packed: Vec<Vec<u8>> = self.send(slot, &read).await?;
        let mut messages: Vec<Message> =
            packed.into_iter().filter_map(|packed| unpack(&packed.into())).collect();
        // In order of their places, since a hot tail takes no entry below its last one. Several nodes hand in the same.
        messages.sort_by(|a, b| (&a.conversation, a.seq).cmp(&(&b.conversation, b.seq)));
        messages.dedup_by(|a, b| a.conversation == b.conversation && a.seq == b.seq);
        let script = &Script::new(include_str!("restore.lua"));
        let mut restored = 0;
        for some in messages.chunks(MESSAGES_PER_CALL_MAX) {
            let outcomes: Vec<i64> = self
                .commands
                .run(slot, |mut held| async move {
                    let mut request = redis::pipe();
                    request.load_script(script).ignore();
                    for message in some {
                        request.invoke_script(&self.restoring(script, held.run(), epoch, message));
                    }
                    request.query_async(&mut held.connection).await
                })
                .await?;
            if outcomes.contains(&ALREADY_OPEN) {
                return Err(BrokerError::Unavailable("the partition was opened meanwhile".to_owned()));
            }
            restored += outcomes.iter().filter(|outcome| **outcome == PUT_BACK).count() as u64;
        }
        let mut forget = redis::cmd("DEL");
        forget.arg(&key);
        let () = self.send(slot, &forget).await?;
        Ok(restored)
    }

    fn restoring<'a>(
        &self,
        script: &'a Script,
        run: &str,
        epoch: Epoch,
        message: &Message,
    ) -> ScriptInvocation<'a> {
        let (keys, conversation) = (&self.keys, &message.conversation);
        let partition = keys.partition(conversation);
        let is_named = message.client_id.is_some();
        let payload = encode_payload(&Payload::from(message));
        let mut call = script.prepare_invoke();
        call.key(keys.epoch(partition))
            .key(keys.position(conversation))
            .key(keys.accepted(partition, message.id))
            .key(keys.log(partition))
            .key(keys.tail(conversation))
            .arg(run)
            .arg(conversation.as_str())
            .arg(&payload[..])
            .arg(flag(is_named))
            .arg(message.seq.0)
            .arg(message.prev.0)
            .arg(message.time)
            .arg(epoch.0)
            .arg(self.config.limits.hot_messages)
            .arg(DEDUPE_MS)
            .arg(HOT_TAIL_MS);
        call
    }
}

/// The conversation in front of the live record.
fn pack(message: &Message) -> Bytes {
    let record = encode_message(message);
    let mut packed = BytesMut::with_capacity(message.conversation.as_str().len() + 1 + record.len());
    packed.put_slice(message.conversation.as_str().as_bytes());
    packed.put_u8(b'\n');
    packed.put_slice(&record);
    packed.freeze()
}

fn unpack(packed: &Bytes) -> Option<Message> {
    let end = packed.iter().position(|&byte| byte == b'\n')?;
    let conversation = ConversationId::parse(std::str::from_utf8(&packed[..end]).ok()?).ok()?;
    match decode_live(&conversation, &packed.slice(end + 1..)).ok()? {
        Event::Message(message) => Some((*message).clone()),
        _ => None,
    }
}
