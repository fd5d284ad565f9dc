//! The physical limit: loops that add rows to the table of messages, and do nothing else.
//!
//! Everything that can be made before the clock runs is made before. Each batch is a transaction of its own.

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use shared::domain::{ClientMessageId, Message};
use tokio_postgres::{Client, NoTls, Statement, types::ToSql};
use uuid::Uuid;

const COLUMNS: &str = "(conversation_id, seq, prev, id, time_ms, sender_id, client_id, kind, body, reply_to)";

/// How rows are added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Method {
    /// `COPY … BINARY`, which fails when a row is there already.
    Copy,
    /// One array for each column: `INSERT … SELECT FROM UNNEST(…) ON CONFLICT DO NOTHING`.
    Unnest,
    /// One parameter for each value: `INSERT … VALUES (…), (…) ON CONFLICT DO NOTHING`.
    Values,
    /// `COPY … BINARY` into a temporary table, then `INSERT … SELECT … ON CONFLICT DO NOTHING`.
    Staged,
}

/// One session with Postgres, ready to add rows.
pub struct Session {
    client: Client,
    method: Method,
    /// The statements of one batch: the copy if there is one, and the insertion if there is one.
    copy: Option<Statement>,
    insert: Option<Statement>,
}

impl Session {
    /// Connects; all batches will have `rows` rows.
    pub async fn open(url: &str, method: Method, rows: usize) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("SET synchronous_commit = on").await?;
        let (copy, insert) = match method {
            Method::Copy => (Some(format!("COPY messages {COLUMNS} FROM STDIN (FORMAT binary)")), None),
            Method::Unnest => (None, Some(unnest())),
            Method::Values => (None, Some(values(rows))),
            Method::Staged => {
                client
                    .batch_execute(
                        "CREATE TEMP TABLE staged ON COMMIT DELETE ROWS AS SELECT * FROM messages LIMIT 0",
                    )
                    .await?;
                let copy = format!("COPY staged {COLUMNS} FROM STDIN (FORMAT binary)");
                let select = COLUMNS.trim_matches(['(', ')']);
                let insert = format!(
                    "INSERT INTO messages {COLUMNS} SELECT {select} FROM staged ON CONFLICT DO NOTHING"
                );
                (Some(copy), Some(insert))
            }
        };
        let mut session = Self { client, method, copy: None, insert: None };
        if let Some(copy) = copy {
            session.copy = Some(session.client.prepare(&copy).await?);
        }
        if let Some(insert) = insert {
            session.insert = Some(session.client.prepare(&insert).await?);
        }
        Ok(session)
    }

    /// Adds the batches, each in its transaction.
    pub async fn add(&mut self, batches: &[Batch<'_>]) -> anyhow::Result<()> {
        for batch in batches {
            let transaction = self.client.transaction().await?;
            if let Some(copy) = &self.copy {
                let mut sink = std::pin::pin!(transaction.copy_in::<_, Bytes>(copy).await?);
                sink.send(batch.encoded.clone()).await?;
                sink.finish().await?;
            }
            if let Some(insert) = &self.insert {
                let params = match self.method {
                    Method::Unnest => batch.columns.params(),
                    Method::Values => batch.rows.iter().flat_map(Row::params).collect(),
                    Method::Copy | Method::Staged => Vec::new(),
                };
                transaction.execute(insert, &params).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

fn unnest() -> String {
    format!(
        "INSERT INTO messages {COLUMNS} SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::uuid[], \
         $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::bigint[]) ON CONFLICT DO NOTHING"
    )
}

fn values(rows: usize) -> String {
    let row = |row: usize| {
        let params: Vec<String> = (1..=10).map(|column| format!("${}", row * 10 + column)).collect();
        format!("({})", params.join(","))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO messages {COLUMNS} VALUES {} ON CONFLICT DO NOTHING", rows.join(","))
}

/// The rows of one transaction, in each form that a method wants.
pub struct Batch<'a> {
    encoded: Bytes,
    columns: Columns<'a>,
    rows: Vec<Row<'a>>,
}

impl<'a> Batch<'a> {
    pub fn of(messages: &'a [Message]) -> anyhow::Result<Self> {
        let rows: Vec<Row<'_>> = messages.iter().map(Row::of).collect::<anyhow::Result<_>>()?;
        Ok(Self { encoded: encode(&rows), columns: Columns::of(&rows), rows })
    }
}

/// A message as its row.
#[derive(Clone, Copy)]
struct Row<'a> {
    conversation: &'a str,
    seq: i64,
    prev: i64,
    id: Uuid,
    time: i64,
    sender: &'a str,
    client_id: Option<&'a str>,
    kind: &'a str,
    body: &'a [u8],
    reply_to: Option<i64>,
}

impl<'a> Row<'a> {
    fn of(message: &'a Message) -> anyhow::Result<Self> {
        Ok(Self {
            conversation: message.conversation.as_str(),
            seq: message.seq.0.try_into()?,
            prev: message.prev.0.try_into()?,
            id: message.id.0,
            time: message.time.try_into()?,
            sender: message.sender.as_str(),
            client_id: message.client_id.as_ref().map(ClientMessageId::as_str),
            kind: message.kind.as_str(),
            body: message.body.as_bytes(),
            reply_to: None,
        })
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 10] {
        [
            &self.conversation,
            &self.seq,
            &self.prev,
            &self.id,
            &self.time,
            &self.sender,
            &self.client_id,
            &self.kind,
            &self.body,
            &self.reply_to,
        ]
    }
}

#[derive(Default)]
struct Columns<'a> {
    conversations: Vec<&'a str>,
    seqs: Vec<i64>,
    prevs: Vec<i64>,
    ids: Vec<Uuid>,
    times: Vec<i64>,
    senders: Vec<&'a str>,
    client_ids: Vec<Option<&'a str>>,
    kinds: Vec<&'a str>,
    bodies: Vec<&'a [u8]>,
    reply_tos: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[Row<'a>]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.conversations.push(row.conversation);
            columns.seqs.push(row.seq);
            columns.prevs.push(row.prev);
            columns.ids.push(row.id);
            columns.times.push(row.time);
            columns.senders.push(row.sender);
            columns.client_ids.push(row.client_id);
            columns.kinds.push(row.kind);
            columns.bodies.push(row.body);
            columns.reply_tos.push(row.reply_to);
        }
        columns
    }

    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.conversations,
            &self.seqs,
            &self.prevs,
            &self.ids,
            &self.times,
            &self.senders,
            &self.client_ids,
            &self.kinds,
            &self.bodies,
            &self.reply_tos,
        ]
    }
}

/// The rows as `COPY … BINARY` takes them.
fn encode(rows: &[Row<'_>]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for row in rows {
        out.put_i16(10);
        let numbers = [row.seq, row.prev].map(i64::to_be_bytes);
        let values: [&[u8]; 6] = [
            row.conversation.as_bytes(),
            &numbers[0],
            &numbers[1],
            row.id.as_bytes(),
            &row.time.to_be_bytes(),
            row.sender.as_bytes(),
        ];
        for value in values {
            put(&mut out, Some(value));
        }
        put(&mut out, row.client_id.map(str::as_bytes));
        put(&mut out, Some(row.kind.as_bytes()));
        put(&mut out, Some(row.body));
        put(&mut out, None);
    }
    out.put_i16(-1);
    out.freeze()
}

fn put(out: &mut BytesMut, value: Option<&[u8]>) {
    let length = value.map_or(Ok(-1), |value| i32::try_from(value.len()));
    out.put_i32(length.context("a row is too long").expect("a benchmark's rows are short"));
    out.put_slice(value.unwrap_or_default());
}
