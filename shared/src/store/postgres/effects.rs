//! Writes what a batch changes beside adding rows, each kind of change by one statement for the whole batch.

use tokio_postgres::{Client, Error, Statement, Transaction, types::ToSql};
use uuid::Uuid;

use super::{StoreError, conversations_sql as sql, session::answer};
use crate::store::{
    effects::{Effects, Touch},
    row::signed,
};

/// The statements, prepared once.
pub(super) struct EffectStatements {
    touch: Statement,
    make_directs: Statement,
    mark_senders: Statement,
    edit: Statement,
    delete: Statement,
    empty: Statement,
    react: Statement,
}

impl EffectStatements {
    pub async fn prepare(client: &Client) -> Result<Self, StoreError> {
        Ok(Self {
            touch: answer(client.prepare(sql::TOUCH)).await?,
            make_directs: answer(client.prepare(sql::MAKE_DIRECTS)).await?,
            mark_senders: answer(client.prepare(sql::MARK_SENDERS)).await?,
            edit: answer(client.prepare(sql::EDIT)).await?,
            delete: answer(client.prepare(sql::DELETE)).await?,
            empty: answer(client.prepare(sql::EMPTY)).await?,
            react: answer(client.prepare(sql::REACT)).await?,
        })
    }

    /// Writes all of it.
    pub async fn write(
        &self,
        transaction: &Transaction<'_>,
        effects: &Effects<'_>,
    ) -> Result<(), StoreError> {
        if effects.touches.is_empty() {
            return Ok(());
        }
        let touches = Touches::of(effects.touches.iter())?;
        let touched = answer(touches.write(transaction, &self.touch)).await?;
        if touched < effects.touches.len() as u64 {
            self.make_directs(transaction, effects).await?;
        }
        self.mark_senders(transaction, effects).await?;
        // Edits before deletions: what is both edited and deleted is deleted.
        self.edit(transaction, effects).await?;
        self.delete(transaction, effects).await?;
        self.react(transaction, effects).await
    }

    /// Makes the rows of direct conversations that had none: their id says who is in them.
    async fn make_directs(
        &self,
        transaction: &Transaction<'_>,
        effects: &Effects<'_>,
    ) -> Result<(), StoreError> {
        let directs: Vec<_> =
            effects.touches.iter().filter_map(|touch| Some((touch, touch.direct()?))).collect();
        if directs.is_empty() {
            return Ok(());
        }
        let touches = Touches::of(directs.iter().map(|(touch, _)| *touch))?;
        let (ones, others): (Vec<&str>, Vec<&str>) =
            directs.iter().map(|(_, pair)| (pair.smaller, pair.larger)).unzip();
        let params: [&(dyn ToSql + Sync); 6] = [
            &touches.conversations,
            &touches.lasts,
            &touches.last_messages,
            &touches.last_ms,
            &ones,
            &others,
        ];
        answer(transaction.execute(&self.make_directs, &params)).await.map(drop)
    }

    async fn mark_senders(
        &self,
        transaction: &Transaction<'_>,
        effects: &Effects<'_>,
    ) -> Result<(), StoreError> {
        let reads = &effects.reads;
        if reads.is_empty() {
            return Ok(());
        }
        let conversations: Vec<&str> = reads.iter().map(|(conversation, ..)| conversation.as_str()).collect();
        let users: Vec<&str> = reads.iter().map(|(_, user, _)| *user).collect();
        let seqs = reads.iter().map(|(.., seq)| signed(seq.0)).collect::<Result<Vec<_>, _>>()?;
        answer(transaction.execute(&self.mark_senders, &[&conversations, &users, &seqs])).await.map(drop)
    }

    async fn edit(&self, transaction: &Transaction<'_>, effects: &Effects<'_>) -> Result<(), StoreError> {
        let edits = &effects.edits;
        if edits.is_empty() {
            return Ok(());
        }
        let conversations: Vec<&str> = edits.iter().map(|edit| edit.conversation.as_str()).collect();
        let ids: Vec<Uuid> = edits.iter().map(|edit| edit.id.0).collect();
        let seqs = edits.iter().map(|edit| signed(edit.seq.0)).collect::<Result<Vec<_>, _>>()?;
        let times = edits.iter().map(|edit| signed(edit.time)).collect::<Result<Vec<_>, _>>()?;
        let bodies: Vec<&[u8]> = edits.iter().map(|edit| edit.body.as_bytes()).collect();
        let params: [&(dyn ToSql + Sync); 5] = [&conversations, &ids, &seqs, &times, &bodies];
        answer(transaction.execute(&self.edit, &params)).await.map(drop)
    }

    async fn delete(&self, transaction: &Transaction<'_>, effects: &Effects<'_>) -> Result<(), StoreError> {
        let (deletions, emptyings) = (&effects.deletions, &effects.emptyings);
        if !deletions.is_empty() {
            let conversations: Vec<&str> =
                deletions.iter().map(|deletion| deletion.conversation.as_str()).collect();
            let ids: Vec<Uuid> = deletions.iter().map(|deletion| deletion.id.0).collect();
            let seqs = deletions.iter().map(|one| signed(one.seq.0)).collect::<Result<Vec<_>, _>>()?;
            let times = deletions.iter().map(|one| signed(one.time)).collect::<Result<Vec<_>, _>>()?;
            answer(transaction.execute(&self.delete, &[&conversations, &ids, &seqs, &times])).await?;
        }
        if emptyings.is_empty() {
            return Ok(());
        }
        let conversations: Vec<&str> = emptyings.iter().map(|one| one.conversation.as_str()).collect();
        let targets = emptyings.iter().map(|one| signed(one.target.0)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<Uuid> = emptyings.iter().map(|one| one.id.0).collect();
        let bodies: Vec<&[u8]> = emptyings.iter().map(|one| one.body.as_bytes()).collect();
        answer(transaction.execute(&self.empty, &[&conversations, &targets, &ids, &bodies])).await.map(drop)
    }

    async fn react(&self, transaction: &Transaction<'_>, effects: &Effects<'_>) -> Result<(), StoreError> {
        let reactions = &effects.reactions;
        if reactions.is_empty() {
            return Ok(());
        }
        let conversations: Vec<&str> = reactions.iter().map(|one| one.conversation.as_str()).collect();
        let ids: Vec<Uuid> = reactions.iter().map(|one| one.id.0).collect();
        let users: Vec<&str> = reactions.iter().map(|one| one.user).collect();
        let emojis: Vec<&str> = reactions.iter().map(|one| one.emoji.as_str()).collect();
        let ons: Vec<bool> = reactions.iter().map(|one| one.on).collect();
        let seqs = reactions.iter().map(|one| signed(one.seq.0)).collect::<Result<Vec<_>, _>>()?;
        let params: [&(dyn ToSql + Sync); 6] = [&conversations, &ids, &users, &emojis, &ons, &seqs];
        answer(transaction.execute(&self.react, &params)).await.map(drop)
    }
}

/// Where conversations stand, as arrays, one for each column.
#[derive(Default)]
struct Touches<'a> {
    conversations: Vec<&'a str>,
    lasts: Vec<i64>,
    last_messages: Vec<i64>,
    last_ms: Vec<i64>,
}

impl<'a> Touches<'a> {
    fn of(touches: impl Iterator<Item = &'a Touch<'a>>) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for touch in touches {
            columns.conversations.push(touch.conversation.as_str());
            columns.lasts.push(signed(touch.last.0)?);
            columns.last_messages.push(signed(touch.last_message.0)?);
            columns.last_ms.push(signed(touch.last_ms)?);
        }
        Ok(columns)
    }

    async fn write(&self, transaction: &Transaction<'_>, statement: &Statement) -> Result<u64, Error> {
        let params: [&(dyn ToSql + Sync); 4] =
            [&self.conversations, &self.lasts, &self.last_messages, &self.last_ms];
        transaction.execute(statement, &params).await
    }
}
