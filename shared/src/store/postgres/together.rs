//! The reads that thousands of clients ask for when they come back at once: many of them are one statement.

use std::{collections::HashMap, sync::Arc};

use deadpool_postgres::Pool;

use super::{conversations_sql, query, sql};
use crate::{
    domain::{ConversationId, Receipt, Seq, UserId},
    gather::{Gather, Unanswered},
    store::{
        Membership, RECEIPTS_MAX, StoreError,
        row::{read_receipt, read_standing, unsigned},
    },
};

/// Most that one statement reads.
const TOGETHER_MAX: usize = 256;

impl From<Unanswered> for StoreError {
    fn from(Unanswered(reason): Unanswered) -> Self {
        Self::Unavailable(reason)
    }
}

impl From<StoreError> for Unanswered {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) | StoreError::Rejected(reason) => Self(reason),
        }
    }
}

/// Puts reads together.
#[derive(Clone)]
pub(super) struct Together {
    pub last_seqs: Arc<Gather<ConversationId, Seq>>,
    pub memberships: Arc<Gather<(ConversationId, UserId), Membership>>,
    pub receipts: Arc<Gather<ConversationId, Vec<Receipt>>>,
}

impl Together {
    pub fn new(pool: &Pool) -> Self {
        Self {
            last_seqs: Gather::new(pool, TOGETHER_MAX, read_last_seqs),
            memberships: Gather::new(pool, TOGETHER_MAX, read_memberships),
            receipts: Gather::new(pool, TOGETHER_MAX, read_receipts),
        }
    }
}

async fn read_last_seqs(pool: Pool, ids: Vec<ConversationId>) -> Result<Vec<Option<Seq>>, StoreError> {
    let names: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    let rows = query(&pool, sql::LAST_SEQS, &[&names]).await?;
    let read = |seq: Option<i64>| unsigned(seq.unwrap_or_default()).ok().map(Seq);
    Ok(rows.iter().map(|row| read(row.get(0))).collect())
}

async fn read_memberships(
    pool: Pool,
    asked: Vec<(ConversationId, UserId)>,
) -> Result<Vec<Option<Membership>>, StoreError> {
    let (names, users): (Vec<&str>, Vec<&str>) =
        asked.iter().map(|(conversation, user)| (conversation.as_str(), user.as_str())).unzip();
    let rows = query(&pool, conversations_sql::MEMBERSHIPS, &[&names, &users]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let Some(version) = row.get::<_, Option<i64>>(0) else {
                return Some(Membership { version: 0, standing: None });
            };
            let standing = read_standing(row.get(1), row.get(2), row.get(3)).ok()?;
            Some(Membership { version: unsigned(version).ok()?, standing })
        })
        .collect())
}

async fn read_receipts(
    pool: Pool,
    ids: Vec<ConversationId>,
) -> Result<Vec<Option<Vec<Receipt>>>, StoreError> {
    let names: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
    let rows = query(&pool, conversations_sql::RECEIPTS, &[&names, &i64::from(RECEIPTS_MAX)]).await?;
    let mut found: HashMap<i64, Option<Vec<Receipt>>> = HashMap::new();
    for row in &rows {
        let so_far = found.entry(row.get(0)).or_insert_with(|| Some(Vec::new()));
        match read_receipt(row.get(1), row.get(2), row.get(3)) {
            Ok(receipt) => so_far.iter_mut().for_each(|receipts| receipts.push(receipt.clone())),
            // What cannot be read spoils its own conversation's answer alone.
            Err(_) => *so_far = None,
        }
    }
    Ok((1..).zip(&ids).map(|(place, _)| found.remove(&place).unwrap_or_else(|| Some(Vec::new()))).collect())
}
