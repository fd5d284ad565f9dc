//! Conversations, members and what became of messages, in Postgres.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{PostgresStore, conversations_sql as sql, read_message};
use crate::{
    domain::{
        Body, ConversationId, ConversationSummary, LastMessage, ListCursor, Member, MessageState, Reaction,
        Receipt, Role, Seq, UserId,
    },
    store::{
        Changed, Conversation, Conversations, Marked, MembersChange, Membership, REACTION_USERS_MAX,
        StoreError, UNREAD_MEMBERS_MAX,
        row::{
            ConversationRow, MemberRow, SummaryRow, bound, join_states, read_conversation,
            read_conversation_id, read_receipt, read_user, signed, unsigned,
        },
    },
};

/// What a change of members answers, as the statements say.
fn read_change(row: Option<&Row>) -> Result<MembersChange, StoreError> {
    let Some(row) = row else { return Ok(MembersChange::Unneeded) };
    match (row.get::<_, Option<&str>>(0), row.get::<_, Option<i64>>(1)) {
        (Some("banned"), _) => Ok(MembersChange::Banned),
        (Some("full"), _) => Ok(MembersChange::Full),
        (Some(_), _) => Ok(MembersChange::LastOwner),
        (None, None) => Ok(MembersChange::Unneeded),
        (None, Some(version)) => {
            let users: Vec<&str> = row.get(2);
            Ok(MembersChange::Done(Changed {
                version: unsigned(version)?,
                users: users.into_iter().map(read_user).collect::<Result<_, _>>()?,
                promoted: row.get::<_, Option<&str>>(3).map(read_user).transpose()?,
            }))
        }
    }
}

fn read_summary(row: &Row) -> Result<ConversationSummary, StoreError> {
    let last = match row.get::<_, Option<&str>>(14) {
        None => None,
        Some(_) => Some(LastMessage {
            edited_ms: row.get::<_, Option<i64>>(12).map(unsigned).transpose()?,
            deleted_ms: row.get::<_, Option<i64>>(13).map(unsigned).transpose()?,
            message: read_message(row, 14)?,
        }),
    };
    SummaryRow {
        id: row.get(0),
        kind: row.get(1),
        name: row.get(2),
        created_ms: row.get(3),
        active_ms: row.get(4),
        top: row.get(5),
        role: row.get(6),
        muted_until_ms: row.get(7),
        read: row.get(8),
        unread: row.get(9),
        members_count: row.get(10),
        others: row.get(11),
        last,
    }
    .read()
}

fn signed_option(ms: Option<u64>) -> Result<Option<i64>, StoreError> {
    ms.map(signed).transpose()
}

#[async_trait]
impl Conversations for PostgresStore {
    async fn membership(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Membership, StoreError> {
        Ok(self.together.memberships.ask((conversation.clone(), user.clone())).await?)
    }

    async fn create_conversation(&self, conversation: &Conversation) -> Result<bool, StoreError> {
        let (id, name) = (conversation.id.as_str(), conversation.name.as_deref());
        let created_ms = signed(conversation.created_ms)?;
        let (users, roles): (Vec<&str>, Vec<&str>) =
            conversation.members.iter().map(|(user, role)| (user.as_str(), role.as_str())).unzip();
        let row = self
            .query_opt(sql::CREATE, &[&id, &conversation.kind, &name, &created_ms, &users, &roles])
            .await?;
        Ok(row.is_some_and(|row| row.get::<_, i64>(0) == 1))
    }

    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>, StoreError> {
        let rows = self.query(sql::CONVERSATION, &[&id.as_str()]).await?;
        let read = |row: &Row| ConversationRow {
            kind: row.get(0),
            name: row.get(1),
            created_ms: row.get(2),
            user: row.get(3),
            role: row.get(4),
        };
        read_conversation(id, rows.iter().map(read).collect())
    }

    async fn members(&self, id: &ConversationId) -> Result<Vec<Member>, StoreError> {
        let rows = self.query(sql::MEMBERS, &[&id.as_str()]).await?;
        let read = |row: &Row| MemberRow {
            user: row.get(0),
            role: row.get(1),
            muted_until_ms: row.get(2),
            joined_ms: row.get(3),
        };
        rows.iter().map(|row| read(row).read()).collect()
    }

    async fn add_members(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
        role: &Role,
        members_max: usize,
        now_ms: u64,
    ) -> Result<MembersChange, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let (max, now_ms) = (i64::try_from(members_max).unwrap_or(i64::MAX), signed(now_ms)?);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&conversation.as_str(), &users, &role.as_str(), &max, &now_ms];
        read_change(self.change(conversation, sql::ADD_MEMBERS, &params).await?.as_ref())
    }

    async fn remove_member(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<MembersChange, StoreError> {
        let params = [&conversation.as_str() as _, &user.as_str() as _];
        read_change(self.change(conversation, sql::REMOVE_MEMBER, &params).await?.as_ref())
    }

    async fn set_role(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        role: &Role,
    ) -> Result<MembersChange, StoreError> {
        let params = [&conversation.as_str() as _, &user.as_str() as _, &role.as_str() as _];
        read_change(self.change(conversation, sql::SET_ROLE, &params).await?.as_ref())
    }

    async fn mute(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        until_ms: Option<u64>,
    ) -> Result<MembersChange, StoreError> {
        let until_ms = signed_option(until_ms)?;
        let params = [&conversation.as_str() as _, &user.as_str() as _, &until_ms as _];
        read_change(self.change(conversation, sql::MUTE, &params).await?.as_ref())
    }

    async fn ban(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        until_ms: Option<u64>,
    ) -> Result<MembersChange, StoreError> {
        let until_ms = signed_option(until_ms)?;
        let params = [&conversation.as_str() as _, &user.as_str() as _, &until_ms as _];
        read_change(self.change(conversation, sql::BAN, &params).await?.as_ref())
    }

    async fn unban(&self, conversation: &ConversationId, user: &UserId) -> Result<MembersChange, StoreError> {
        let params = [&conversation.as_str() as _, &user.as_str() as _];
        read_change(self.change(conversation, sql::UNBAN, &params).await?.as_ref())
    }

    async fn rename(
        &self,
        conversation: &ConversationId,
        name: Option<&str>,
    ) -> Result<MembersChange, StoreError> {
        let params = [&conversation.as_str() as _, &name as _];
        read_change(self.change(conversation, sql::RENAME, &params).await?.as_ref())
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&ListCursor>,
        limit: u32,
    ) -> Result<Vec<ConversationSummary>, StoreError> {
        let below_ms = signed_option(after.map(|cursor| cursor.active_ms))?;
        let below = after.map_or("", |cursor| cursor.id.as_str());
        let rows = self
            .query(sql::CONVERSATIONS_OF, &[&user.as_str(), &below_ms, &below, &i64::from(limit)])
            .await?;
        rows.iter().map(read_summary).collect()
    }

    async fn summary(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<ConversationSummary>, StoreError> {
        let row = self.query_opt(sql::SUMMARY, &[&user.as_str(), &conversation.as_str()]).await?;
        row.as_ref().map(read_summary).transpose()
    }

    async fn membership_versions(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<(ConversationId, u64)>, StoreError> {
        let ids: Vec<&str> = conversations.iter().map(ConversationId::as_str).collect();
        let rows = self.query(sql::VERSIONS, &[&ids]).await?;
        rows.iter().map(|row| Ok((read_conversation_id(row.get(0))?, unsigned(row.get(1))?))).collect()
    }

    async fn members_among(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
    ) -> Result<Vec<UserId>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(sql::MEMBERS_AMONG, &[&conversation.as_str(), &users]).await?;
        rows.iter().map(|row| read_user(row.get(0))).collect()
    }

    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        read: Seq,
        delivered: Seq,
    ) -> Result<Marked, StoreError> {
        let (read, delivered) = (bound(read), bound(delivered));
        let params = [&conversation.as_str() as _, &user.as_str() as _, &read as _, &delivered as _];
        let Some(row) = self.query_opt(sql::MARK, &params).await? else { return Ok(Marked::Stranger) };
        let receipt = read_receipt(user.as_str(), row.get(0), row.get(1))?;
        Ok(if row.get(2) { Marked::Forward(receipt) } else { Marked::Unneeded })
    }

    async fn receipts(&self, conversation: &ConversationId) -> Result<Vec<Receipt>, StoreError> {
        Ok(self.together.receipts.ask(conversation.clone()).await?)
    }

    async fn unread_of(&self, conversation: &ConversationId) -> Result<Vec<(UserId, u32)>, StoreError> {
        let limit = i64::from(UNREAD_MEMBERS_MAX);
        let rows = self.query(sql::UNREAD_OF, &[&conversation.as_str(), &limit]).await?;
        rows.iter().map(|row| Ok((read_user(row.get(0))?, unsigned(row.get(1))?))).collect()
    }

    async fn states(
        &self,
        conversation: &ConversationId,
        seqs: &[Seq],
    ) -> Result<Vec<MessageState>, StoreError> {
        let seqs: Vec<i64> = seqs.iter().map(|seq| bound(*seq)).collect();
        let users_max = i32::try_from(REACTION_USERS_MAX).unwrap_or(i32::MAX);
        let id = conversation.as_str();
        let changed = self.query(sql::CHANGED, &[&id, &seqs]).await?;
        let reactions = self.query(sql::REACTIONS, &[&id, &seqs, &users_max]).await?;
        let state = |row: &Row| {
            Ok(MessageState {
                seq: Seq(unsigned(row.get(0))?),
                edited_ms: row.get::<_, Option<i64>>(1).map(unsigned).transpose()?,
                deleted_ms: row.get::<_, Option<i64>>(2).map(unsigned).transpose()?,
                body: Some(Body::from_json(row.get::<_, Vec<u8>>(3))),
                reactions: Vec::new(),
            })
        };
        let reaction = |row: &Row| {
            let users: Vec<&str> = row.get(3);
            let users = users.into_iter().map(read_user).collect::<Result<_, _>>()?;
            let reaction = Reaction { emoji: row.get(1), count: unsigned(row.get(2))?, users };
            Ok((Seq(unsigned(row.get(0))?), reaction))
        };
        let changed = changed.iter().map(state).collect::<Result<_, StoreError>>()?;
        let reactions = reactions.iter().map(reaction).collect::<Result<_, StoreError>>()?;
        Ok(join_states(changed, reactions))
    }
}
