//! Writes what a batch changes beside adding rows.

use rusqlite::{Transaction, params};

use super::{StoreError, conversations_sql as sql};
use crate::{
    domain::Role,
    store::{effects::Effects, row::signed},
};

/// Writes all of it.
pub(super) fn write(transaction: &Transaction<'_>, effects: &Effects<'_>) -> Result<(), StoreError> {
    let mut touch = transaction.prepare_cached(sql::TOUCH)?;
    for one in &effects.touches {
        let (last, last_message) = (signed(one.last.0)?, signed(one.last_message.0)?);
        let (id, last_ms) = (one.conversation.as_str(), signed(one.last_ms)?);
        let touched = touch.execute(params![id, last, last_message, last_ms])?;
        if let (0, Some(pair)) = (touched, one.direct()) {
            // Its id says who is in it.
            let mut make = transaction.prepare_cached(sql::MAKE_DIRECT)?;
            make.execute(params![id, last, last_message, last_ms])?;
            let mut join = transaction.prepare_cached(sql::JOIN)?;
            for user in [pair.smaller, pair.larger] {
                join.execute(params![id, user, Role::MEMBER.as_str(), last_ms])?;
            }
        }
    }
    let mut mark = transaction.prepare_cached(sql::MARK_SENDER)?;
    for (conversation, user, seq) in &effects.reads {
        mark.execute(params![conversation.as_str(), user, signed(seq.0)?])?;
    }
    change(transaction, effects)
}

/// Edits before deletions: what is both edited and deleted is deleted.
fn change(transaction: &Transaction<'_>, effects: &Effects<'_>) -> Result<(), StoreError> {
    for one in &effects.edits {
        let (seq, time) = (signed(one.seq.0)?, signed(one.time)?);
        let mut edit = transaction.prepare_cached(sql::EDIT)?;
        edit.execute(params![
            one.conversation.as_str(),
            one.id.0.as_bytes(),
            seq,
            time,
            one.body.as_bytes()
        ])?;
    }
    for one in &effects.deletions {
        let (seq, time) = (signed(one.seq.0)?, signed(one.time)?);
        let mut delete = transaction.prepare_cached(sql::DELETE)?;
        delete.execute(params![one.conversation.as_str(), one.id.0.as_bytes(), seq, time])?;
    }
    for one in &effects.emptyings {
        let target = signed(one.target.0)?;
        let mut empty = transaction.prepare_cached(sql::EMPTY)?;
        empty.execute(params![
            one.conversation.as_str(),
            target,
            one.id.0.as_bytes(),
            one.body.as_bytes()
        ])?;
    }
    for one in &effects.reactions {
        let seq = signed(one.seq.0)?;
        let mut react = transaction.prepare_cached(sql::REACT)?;
        react.execute(params![
            one.conversation.as_str(),
            one.id.0.as_bytes(),
            one.user,
            one.emoji,
            one.on,
            seq
        ])?;
    }
    Ok(())
}
