//! Messages as Postgres copies them in: the binary form of `COPY`.
//!
//! Deliberately absent: duplicates. A copy fails as a whole when one row is there already.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Error, Statement, Transaction};

use super::StoreError;
use crate::{domain::Message, store::row::MessageRow};

/// What every copy begins with: signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What every copy ends with.
const TRAILER: i16 = -1;
/// Columns of [`super::sql::COPY`].
const COLUMNS: i16 = 10;
/// The length that stands for NULL.
const NULL: i32 = -1;
/// About how many bytes a row has beside its texts and its body.
const ROW_BYTES: usize = 2 + 10 * 4 + 4 * 8 + 16;
/// Bytes in one piece. The client library copies each once more.
const PIECE_BYTES: usize = 256 * 1_024;

/// Rows in the binary form.
pub(super) struct Rows(Bytes);

impl Rows {
    /// # Errors
    /// [`StoreError::Rejected`] when a number is too large for its column.
    pub fn of(messages: &[&Message]) -> Result<Self, StoreError> {
        let texts = |message: &Message| message.conversation.as_str().len() + message.body.as_bytes().len();
        let likely: usize = messages.iter().map(|message| 2 * ROW_BYTES + texts(message)).sum();
        let mut out = BytesMut::with_capacity(likely);
        out.put_slice(HEADER);
        for &message in messages {
            put_row(&mut out, &MessageRow::of(message)?);
        }
        out.put_i16(TRAILER);
        Ok(Self(out.freeze()))
    }

    /// Adds the rows, all or none.
    pub async fn send(mut self, transaction: &Transaction<'_>, statement: &Statement) -> Result<u64, Error> {
        let sink = transaction.copy_in::<_, Bytes>(statement).await?;
        let mut sink = std::pin::pin!(sink);
        while !self.0.is_empty() {
            let piece = self.0.split_to(self.0.len().min(PIECE_BYTES));
            sink.feed(piece).await?;
        }
        sink.finish().await
    }
}

/// The columns in the order of [`super::sql::COPY`].
fn put_row(out: &mut BytesMut, row: &MessageRow<'_>) {
    out.put_i16(COLUMNS);
    put_bytes(out, row.conversation.as_bytes());
    put_bytes(out, &row.seq.to_be_bytes());
    put_bytes(out, &row.prev.to_be_bytes());
    put_bytes(out, row.id.as_bytes());
    put_bytes(out, &row.time.to_be_bytes());
    put_bytes(out, row.sender.as_bytes());
    put_optional(out, row.client_id.map(str::as_bytes));
    put_bytes(out, row.kind.as_bytes());
    put_bytes(out, row.body);
    put_optional(out, row.reply_to.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
}

fn put_optional(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => put_bytes(out, value),
        None => out.put_i32(NULL),
    }
}

fn put_bytes(out: &mut BytesMut, value: &[u8]) {
    out.put_i32(i32::try_from(value.len()).expect("texts and bodies are far below 2 GiB"));
    out.put_slice(value);
}
