//! Conversations, members and what became of messages, in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{SqliteStore, conversations_sql as sql, read_message};
use crate::{
    domain::{
        Body, ConversationId, ConversationSummary, LastMessage, ListCursor, Member, MessageState, Reaction,
        Receipt, Role, Seq, UserId,
    },
    store::{
        Changed, Conversation, Conversations, Marked, MembersChange, Membership, REACTION_USERS_MAX,
        RECEIPTS_MAX, StoreError, UNREAD_MEMBERS_MAX,
        row::{
            ConversationRow, MemberRow, SummaryRow, bound, join_states, read_conversation, read_receipt,
            read_standing, read_user, signed, unsigned,
        },
    },
};

fn read_conversation_row(row: &Row<'_>) -> Result<ConversationRow, StoreError> {
    Ok(ConversationRow {
        kind: row.get(0)?,
        name: row.get(1)?,
        created_ms: row.get(2)?,
        user: row.get(3)?,
        role: row.get(4)?,
    })
}

fn read_member(row: &Row<'_>) -> Result<Member, StoreError> {
    MemberRow { user: row.get(0)?, role: row.get(1)?, muted_until_ms: row.get(2)?, joined_ms: row.get(3)? }
        .read()
}

fn read_summary(row: &Row<'_>) -> Result<ConversationSummary, StoreError> {
    let last = match row.get::<_, Option<String>>(14)? {
        None => None,
        Some(_) => Some(LastMessage {
            edited_ms: row.get::<_, Option<i64>>(12)?.map(unsigned).transpose()?,
            deleted_ms: row.get::<_, Option<i64>>(13)?.map(unsigned).transpose()?,
            message: read_message(row, 14)?,
        }),
    };
    // Ids have no spaces.
    let others: Option<String> = row.get(11)?;
    SummaryRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        name: row.get(2)?,
        created_ms: row.get(3)?,
        active_ms: row.get(4)?,
        top: row.get(5)?,
        role: row.get(6)?,
        muted_until_ms: row.get(7)?,
        read: row.get(8)?,
        unread: row.get(9)?,
        members_count: row.get(10)?,
        others: others.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        last,
    }
    .read()
}

/// Postgres refuses a NUL byte in a text; SQLite would take it, but reads it back up to there only.
fn check_text(text: &str) -> Result<(), StoreError> {
    if text.contains('\0') {
        return Err(StoreError::Rejected("a text has a NUL byte".to_owned()));
    }
    Ok(())
}

/// Raises the version, and commits the change of these users.
fn finish(
    transaction: Transaction<'_>,
    conversation: &ConversationId,
    users: Vec<UserId>,
    promoted: Option<UserId>,
) -> Result<MembersChange, StoreError> {
    let raise = [conversation.as_str()];
    let version = transaction.query_row(sql::RAISE_VERSION, raise, |row| row.get(0)).optional()?;
    let Some(version) = version else { return Ok(MembersChange::Unneeded) };
    transaction.commit()?;
    Ok(MembersChange::Done(Changed { version: unsigned(version)?, users, promoted }))
}

/// Takes a member out: whether there was one, and who became owner by it.
fn take_out(
    transaction: &Transaction<'_>,
    conversation: &ConversationId,
    user: &UserId,
) -> Result<(bool, Option<UserId>), StoreError> {
    let place = [conversation.as_str(), user.as_str()];
    let role: Option<String> =
        transaction.query_row(sql::REMOVE_MEMBER, place, |row| row.get(0)).optional()?;
    if role.as_deref() != Some(Role::OWNER.as_str()) {
        return Ok((role.is_some(), None));
    }
    let heir: Option<String> =
        transaction.query_row(sql::PROMOTE, [conversation.as_str()], |row| row.get(0)).optional()?;
    Ok((true, heir.as_deref().map(read_user).transpose()?))
}

impl SqliteStore {
    /// Runs one statement about a member; a row that it changes is a change of the members.
    async fn change_member(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        run: impl FnOnce(&Transaction<'_>, [&str; 2]) -> Result<usize, StoreError> + Send + 'static,
    ) -> Result<MembersChange, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let change = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            match run(&transaction, [conversation.as_str(), user.as_str()])? {
                0 => Ok(MembersChange::Unneeded),
                _ => finish(transaction, &conversation, vec![user], None),
            }
        };
        self.0.writes.call(change).await
    }
}

#[async_trait]
impl Conversations for SqliteStore {
    async fn membership(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Membership, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::MEMBERSHIP)?;
            let mut rows = statement.query([conversation.as_str(), user.as_str()])?;
            let Some(row) = rows.next()? else { return Ok(Membership { version: 0, standing: None }) };
            let role: Option<String> = row.get(2)?;
            let standing = read_standing(row.get(1)?, role.as_deref(), row.get(3)?)?;
            Ok(Membership { version: unsigned(row.get(0)?)?, standing })
        };
        self.0.reads.call(read).await
    }

    async fn create_conversation(&self, conversation: &Conversation) -> Result<bool, StoreError> {
        let conversation = conversation.clone();
        check_text(&conversation.kind)?;
        check_text(conversation.name.as_deref().unwrap_or_default())?;
        let created_ms = signed(conversation.created_ms)?;
        let create = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            let (id, name) = (conversation.id.as_str(), conversation.name.as_deref());
            let made = transaction.execute(sql::CREATE, params![id, conversation.kind, name, created_ms])?;
            if made == 1 {
                for (user, role) in &conversation.members {
                    let member = params![id, user.as_str(), role.as_str(), created_ms];
                    transaction.execute(sql::JOIN, member)?;
                }
            }
            transaction.commit()?;
            Ok(made == 1)
        };
        self.0.writes.call(create).await
    }

    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>, StoreError> {
        let id = id.clone();
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::CONVERSATION)?;
            let rows = statement.query_and_then([id.as_str()], read_conversation_row)?;
            read_conversation(&id, rows.collect::<Result<_, _>>()?)
        };
        self.0.reads.call(read).await
    }

    async fn members(&self, id: &ConversationId) -> Result<Vec<Member>, StoreError> {
        let id = id.clone();
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::MEMBERS)?;
            statement.query_and_then([id.as_str()], read_member)?.collect()
        };
        self.0.reads.call(read).await
    }

    async fn add_members(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
        role: &Role,
        members_max: usize,
        now_ms: u64,
    ) -> Result<MembersChange, StoreError> {
        let (conversation, users, role) = (conversation.clone(), users.to_vec(), role.clone());
        let now_ms = signed(now_ms)?;
        let add = move |db: &mut Connection| {
            let (id, transaction) = (conversation.as_str(), db.transaction()?);
            let mut added = Vec::new();
            for user in users {
                let member = params![id, user.as_str(), role.as_str(), now_ms];
                if transaction.execute(sql::ADD_MEMBER, member)? == 0 {
                    continue;
                }
                let ban = params![id, user.as_str(), now_ms];
                if transaction.query_row(sql::IS_BANNED, ban, |row| row.get(0))? {
                    return Ok(MembersChange::Banned);
                }
                added.push(user);
            }
            if added.is_empty() {
                return Ok(MembersChange::Unneeded);
            }
            let count: i64 = transaction.query_row(sql::COUNT_MEMBERS, [id], |row| row.get(0))?;
            if unsigned::<usize>(count)? > members_max {
                return Ok(MembersChange::Full);
            }
            added.sort();
            finish(transaction, &conversation, added, None)
        };
        self.0.writes.call(add).await
    }

    async fn remove_member(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<MembersChange, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let remove = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            let (is_gone, promoted) = take_out(&transaction, &conversation, &user)?;
            if is_gone {
                finish(transaction, &conversation, vec![user], promoted)
            } else {
                Ok(MembersChange::Unneeded)
            }
        };
        self.0.writes.call(remove).await
    }

    async fn set_role(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        role: &Role,
    ) -> Result<MembersChange, StoreError> {
        let (conversation, user, role) = (conversation.clone(), user.clone(), role.clone());
        let set = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            let place = [conversation.as_str(), user.as_str()];
            let is_less = role != Role::OWNER;
            if is_less && transaction.query_row(sql::IS_LAST_OWNER, place, |row| row.get(0))? {
                return Ok(MembersChange::LastOwner);
            }
            let [id, of] = place;
            if transaction.execute(sql::SET_ROLE, [id, of, role.as_str()])? == 0 {
                return Ok(MembersChange::Unneeded);
            }
            finish(transaction, &conversation, vec![user], None)
        };
        self.0.writes.call(set).await
    }

    async fn mute(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        until_ms: Option<u64>,
    ) -> Result<MembersChange, StoreError> {
        let until_ms = until_ms.map(signed).transpose()?;
        let run = move |transaction: &Transaction<'_>, [id, user]: [&str; 2]| {
            Ok(transaction.execute(sql::MUTE, params![id, user, until_ms])?)
        };
        self.change_member(conversation, user, run).await
    }

    async fn ban(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        until_ms: Option<u64>,
    ) -> Result<MembersChange, StoreError> {
        let until_ms = until_ms.map(signed).transpose()?;
        let (conversation, user) = (conversation.clone(), user.clone());
        let ban = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            let banned =
                transaction.execute(sql::BAN, params![conversation.as_str(), user.as_str(), until_ms])?;
            let (is_gone, promoted) = take_out(&transaction, &conversation, &user)?;
            if banned == 0 && !is_gone {
                return Ok(MembersChange::Unneeded);
            }
            finish(transaction, &conversation, vec![user], promoted)
        };
        self.0.writes.call(ban).await
    }

    async fn unban(&self, conversation: &ConversationId, user: &UserId) -> Result<MembersChange, StoreError> {
        let run =
            |transaction: &Transaction<'_>, place: [&str; 2]| Ok(transaction.execute(sql::UNBAN, place)?);
        self.change_member(conversation, user, run).await
    }

    async fn rename(
        &self,
        conversation: &ConversationId,
        name: Option<&str>,
    ) -> Result<MembersChange, StoreError> {
        check_text(name.unwrap_or_default())?;
        let (conversation, name) = (conversation.clone(), name.map(str::to_owned));
        let rename = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            if transaction.execute(sql::RENAME, params![conversation.as_str(), name])? == 0 {
                return Ok(MembersChange::Unneeded);
            }
            finish(transaction, &conversation, Vec::new(), None)
        };
        self.0.writes.call(rename).await
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&ListCursor>,
        limit: u32,
    ) -> Result<Vec<ConversationSummary>, StoreError> {
        let below_ms = after.map(|cursor| signed(cursor.active_ms)).transpose()?;
        let below = after.map_or(String::new(), |cursor| cursor.id.to_string());
        let user = user.clone();
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::CONVERSATIONS_OF)?;
            let page = params![user.as_str(), below_ms, below, limit];
            statement.query_and_then(page, read_summary)?.collect()
        };
        self.0.reads.call(read).await
    }

    async fn summary(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<ConversationSummary>, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::SUMMARY)?;
            let mut rows = statement.query([user.as_str(), conversation.as_str()])?;
            rows.next()?.map(read_summary).transpose()
        };
        self.0.reads.call(read).await
    }

    async fn membership_versions(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<(ConversationId, u64)>, StoreError> {
        let conversations = conversations.to_vec();
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::VERSION)?;
            let mut versions = Vec::with_capacity(conversations.len());
            for id in conversations {
                if let Some(version) = statement.query_row([id.as_str()], |row| row.get(0)).optional()? {
                    versions.push((id, unsigned(version)?));
                }
            }
            Ok(versions)
        };
        self.0.reads.call(read).await
    }

    async fn members_among(
        &self,
        conversation: &ConversationId,
        users: &[UserId],
    ) -> Result<Vec<UserId>, StoreError> {
        let (conversation, mut users) = (conversation.clone(), users.to_vec());
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::IS_MEMBER)?;
            let mut failure = None;
            users.retain(|user| {
                let found = statement.query_row([conversation.as_str(), user.as_str()], |row| row.get(0));
                found.unwrap_or_else(|error| {
                    failure = Some(error);
                    false
                })
            });
            failure.map_or(Ok(users), |error| Err(error.into()))
        };
        self.0.reads.call(read).await
    }

    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        read: Seq,
        delivered: Seq,
    ) -> Result<Marked, StoreError> {
        let (conversation, user) = (conversation.clone(), user.clone());
        let (read, delivered) = (bound(read), bound(delivered));
        let mark = move |db: &mut Connection| {
            let transaction = db.transaction()?;
            let (id, of) = (conversation.as_str(), user.as_str());
            let columns = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
            let before = transaction.query_row(sql::MARKS, [id, of], columns).optional()?;
            let Some(before) = before else { return Ok(Marked::Stranger) };
            let after = (before.0.max(read), before.1.max(read).max(delivered));
            if after == before {
                return Ok(Marked::Unneeded);
            }
            transaction.execute(sql::MARK, params![id, of, after.0, after.1])?;
            transaction.commit()?;
            Ok(Marked::Forward(read_receipt(of, after.0, after.1)?))
        };
        self.0.writes.call(mark).await
    }

    async fn receipts(&self, conversation: &ConversationId) -> Result<Vec<Receipt>, StoreError> {
        let conversation = conversation.clone();
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::RECEIPTS)?;
            let receipt = |row: &Row<'_>| read_receipt(&row.get::<_, String>(0)?, row.get(1)?, row.get(2)?);
            statement.query_and_then(params![conversation.as_str(), RECEIPTS_MAX], receipt)?.collect()
        };
        self.0.reads.call(read).await
    }

    async fn unread_of(&self, conversation: &ConversationId) -> Result<Vec<(UserId, u32)>, StoreError> {
        let conversation = conversation.clone();
        let read = move |db: &mut Connection| {
            let mut statement = db.prepare_cached(sql::UNREAD_OF)?;
            let count = |row: &Row<'_>| Ok((read_user(&row.get::<_, String>(0)?)?, row.get(1)?));
            statement.query_and_then(params![conversation.as_str(), UNREAD_MEMBERS_MAX], count)?.collect()
        };
        self.0.reads.call(read).await
    }

    async fn states(
        &self,
        conversation: &ConversationId,
        seqs: &[Seq],
    ) -> Result<Vec<MessageState>, StoreError> {
        let (conversation, seqs) = (conversation.clone(), seqs.to_vec());
        let read = move |db: &mut Connection| {
            let (mut changed, mut reactions) = (Vec::new(), Vec::new());
            for seq in seqs {
                let place = params![conversation.as_str(), bound(seq)];
                let mut statement = db.prepare_cached(sql::CHANGED)?;
                let mut rows = statement.query(place)?;
                changed.extend(rows.next()?.map(read_state).transpose()?);
                let mut statement = db.prepare_cached(sql::REACTIONS)?;
                let pair = |row: &Row<'_>| Ok((row.get(0)?, read_user(&row.get::<_, String>(1)?)?));
                let pairs = statement.query_and_then(place, pair)?.collect::<Result<Vec<_>, StoreError>>()?;
                reactions.extend(group(pairs).into_iter().map(|reaction| (seq, reaction)));
            }
            Ok(join_states(changed, reactions))
        };
        self.0.reads.call(read).await
    }
}

fn read_state(row: &Row<'_>) -> Result<MessageState, StoreError> {
    Ok(MessageState {
        seq: Seq(unsigned(row.get(0)?)?),
        edited_ms: row.get::<_, Option<i64>>(1)?.map(unsigned).transpose()?,
        deleted_ms: row.get::<_, Option<i64>>(2)?.map(unsigned).transpose()?,
        body: Some(Body::from_json(row.get::<_, Vec<u8>>(3)?)),
        reactions: Vec::new(),
    })
}

/// Reactions by emoji, of those by user.
fn group(pairs: Vec<(String, UserId)>) -> Vec<Reaction> {
    let mut reactions: Vec<Reaction> = Vec::new();
    for (emoji, user) in pairs {
        let at = reactions.iter().position(|one| one.emoji == emoji).unwrap_or_else(|| {
            reactions.push(Reaction { emoji, count: 0, users: Vec::new() });
            reactions.len() - 1
        });
        let reaction = &mut reactions[at];
        reaction.count += 1;
        if reaction.count <= REACTION_USERS_MAX {
            reaction.users.push(user);
        }
    }
    reactions
}
