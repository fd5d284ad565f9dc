//! Operations about conversations, members and sent messages, as `rpc` spells them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::domain::{
    ChangeAction, ChatCommand, ChatReply, ClientMessageId, Command, HistoryPage, ListCursor, Manage,
    NewConversation, Refusal, Role, SendChange, Seq, UserId,
};

use super::decode::{conversation, no_id, operand};
use crate::{
    protocol::message_body,
    view::{ConversationView, MemberView, MessageView, ReceiptView, message_views},
};

/// Conversations that `conversations` lists when it names no limit.
const CONVERSATIONS_DEFAULT: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConversationData<'a> {
    #[serde(borrow)]
    conversation: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CreateData<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    members: Vec<NewMember<'a>>,
}

/// A user, or a user and what that one is to be.
#[derive(Deserialize)]
#[serde(untagged)]
enum NewMember<'a> {
    User(#[serde(borrow)] Cow<'a, str>),
    Named {
        #[serde(borrow)]
        user: Cow<'a, str>,
        #[serde(borrow)]
        role: Cow<'a, str>,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListData<'a> {
    #[serde(borrow)]
    after: Option<Cow<'a, str>>,
    limit: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ManageData<'a> {
    #[serde(borrow)]
    conversation: Cow<'a, str>,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    users: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    until: Option<u64>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ChangeData<'a> {
    #[serde(borrow)]
    conversation: Cow<'a, str>,
    seq: u64,
    #[serde(borrow, deserialize_with = "super::packet::even_null")]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    emoji: Option<Cow<'a, str>>,
    #[serde(borrow)]
    client_id: Option<Cow<'a, str>>,
    retry: bool,
}

/// Reads one of these operations; `None` for a method that is none of them.
pub(super) fn decode(method: &str, data: Option<&RawValue>) -> Option<Result<Command, Refusal>> {
    let command = match method {
        "create_conversation" => create(data),
        "conversations" => list(data),
        "conversation" => of(data, ChatCommand::Conversation),
        "members" => of(data, ChatCommand::Members),
        "receipts" => of(data, ChatCommand::Receipts),
        "mark_read" => mark(data, true),
        "mark_delivered" => mark(data, false),
        "edit" | "delete" | "react" | "unreact" => change(method, data),
        "add_members" | "remove_member" | "leave" | "set_role" | "mute" | "unmute" | "ban" | "unban"
        | "rename" => manage(method, data),
        _ => return None,
    };
    Some(command.map(Command::Chat))
}

fn of(
    data: Option<&RawValue>,
    command: fn(shared::domain::ConversationId) -> ChatCommand,
) -> Result<ChatCommand, Refusal> {
    let data: ConversationData<'_> = operand(data)?;
    conversation(&data.conversation).map(command)
}

fn create(data: Option<&RawValue>) -> Result<ChatCommand, Refusal> {
    let CreateData { kind, name, members } = operand(data)?;
    let member = |member| match member {
        NewMember::User(name) => Ok((user(&name)?, None)),
        NewMember::Named { user: name, role: is } => Ok((user(&name)?, Some(role(&is)?))),
    };
    let members = members.into_iter().map(member).collect::<Result<_, Refusal>>()?;
    let (kind, name) = (kind.into_owned(), name.map(Cow::into_owned));
    Ok(ChatCommand::CreateConversation(NewConversation { kind, name, members }))
}

fn list(data: Option<&RawValue>) -> Result<ChatCommand, Refusal> {
    let ListData { after, limit } = if data.is_some() { operand(data)? } else { ListData::default() };
    let after = after.map(|text| ListCursor::parse(&text).ok_or(Refusal::Invalid)).transpose()?;
    Ok(ChatCommand::Conversations { after, limit: limit.unwrap_or(CONVERSATIONS_DEFAULT) })
}

fn mark(data: Option<&RawValue>, read: bool) -> Result<ChatCommand, Refusal> {
    let data: ChangeData<'_> = operand(data)?;
    Ok(ChatCommand::Mark { conversation: conversation(&data.conversation)?, seq: Seq(data.seq), read })
}

fn change(method: &str, data: Option<&RawValue>) -> Result<ChatCommand, Refusal> {
    let data: ChangeData<'_> = operand(data)?;
    let emoji = || data.emoji.clone().map(Cow::into_owned).ok_or(Refusal::Invalid);
    let action = match method {
        "edit" => ChangeAction::Edit(message_body(data.body.ok_or(Refusal::Invalid)?)?),
        "delete" => ChangeAction::Delete,
        method => ChangeAction::React { emoji: emoji()?, on: method == "react" },
    };
    let client_id = data.client_id.as_deref().map(ClientMessageId::parse).transpose();
    Ok(ChatCommand::Change(SendChange {
        conversation: conversation(&data.conversation)?,
        target: Seq(data.seq),
        action,
        client_id: client_id.map_err(|error| no_id(&error))?,
        retry: data.retry,
    }))
}

fn manage(method: &str, data: Option<&RawValue>) -> Result<ChatCommand, Refusal> {
    let data: ManageData<'_> = operand(data)?;
    let named = || user(&data.user);
    let given = || data.role.as_deref().map(role).transpose();
    let action = match method {
        "add_members" => {
            let users = data.users.iter().map(|name| user(name)).collect::<Result<_, _>>()?;
            Manage::Add { users, role: given()? }
        }
        "remove_member" => Manage::Remove(named()?),
        "leave" => Manage::Leave,
        "set_role" => Manage::SetRole(named()?, given()?.ok_or(Refusal::Invalid)?),
        "mute" => Manage::Mute(named()?, data.until),
        "unmute" => Manage::Unmute(named()?),
        "ban" => Manage::Ban(named()?, data.until),
        "unban" => Manage::Unban(named()?),
        _ => Manage::Rename(data.name.as_deref().map(str::to_owned)),
    };
    Ok(ChatCommand::Manage { conversation: conversation(&data.conversation)?, action })
}

fn user(text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).map_err(|error| no_id(&error))
}

fn role(text: &str) -> Result<Role, Refusal> {
    Role::parse(text).ok_or(Refusal::Invalid)
}

#[derive(Serialize)]
struct Conversations {
    conversations: Vec<ConversationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Members {
    members: Vec<MemberView>,
}

#[derive(Serialize)]
struct Receipts {
    receipts: Vec<ReceiptView>,
}

#[derive(Serialize)]
struct Page<'a> {
    messages: Vec<MessageView>,
    epoch: &'a str,
    top: u64,
}

/// Answers one of these operations.
pub(super) fn reply(reply: &ChatReply, out: &mut Vec<u8>) {
    match reply.clone() {
        ChatReply::Conversation(found) => write(ConversationView::try_from(*found), out),
        ChatReply::Conversations(found, next) => {
            let views = found.into_iter().map(ConversationView::try_from).collect::<Result<_, _>>();
            let next = next.map(|next| next.to_string());
            write(views.map(|conversations| Conversations { conversations, next }), out);
        }
        ChatReply::Members(found) => {
            let members = found.into_iter().map(MemberView::from).collect();
            write(Ok(Members { members }), out);
        }
        ChatReply::Receipts(found) => {
            let receipts = found.into_iter().map(ReceiptView::from).collect();
            write(Ok(Receipts { receipts }), out);
        }
    }
}

/// A page for an application that wants to see the chain, void messages and all, and what became of each message.
pub(super) fn messages(page: &HistoryPage, out: &mut Vec<u8>) {
    let views = message_views(&page.messages, &page.states);
    write(views.map(|messages| Page { messages, epoch: &page.epoch, top: page.top.0 }), out);
}

/// On one line: a raw newline can only stand between the tokens of a body, where a space means the same.
fn write(view: Result<impl Serialize, Refusal>, out: &mut Vec<u8>) {
    let start = out.len();
    match view {
        Ok(view) => serde_json::to_writer(&mut *out, &view).expect("a view is plain data"),
        // Bodies were JSON when they were stored.
        Err(_) => out.extend_from_slice(b"{}"),
    }
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
