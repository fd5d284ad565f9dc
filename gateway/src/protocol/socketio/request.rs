//! Events of a chat app to what it asks, in both forms that apps use: a bare conversation id, or an object.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use shared::domain::{
    Body, ChangeAction, ClientMessageId, ConversationId, IdError, MessageKind, Position, Refusal, Send,
    SendChange, SendSignal, Seq, SignalName, Token, is_emoji,
};

use super::{
    binary,
    decode::Arguments,
    spelling::{Ask, Spelling},
};
use crate::{
    limits::{self, Limit},
    protocol::message_body,
};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Who it is.
    Register,
    /// To join; and where it has been, to catch up from there.
    Join(ConversationId, Option<Seq>),
    /// To leave.
    Leave(ConversationId),
    /// To send a message.
    Send(Send),
    /// To be seen typing, or no longer.
    Typing(ConversationId, bool),
    /// To have read up to a place, or everything.
    MarkRead(ConversationId, Option<Seq>),
    /// To have received up to a place.
    MarkDelivered(ConversationId, Seq),
    /// To change a message that was sent.
    Change(SendChange),
    /// To tell members something past the log.
    Signal(SendSignal),
}

/// What a client shows on joining a namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The JWT; empty when none was shown.
    pub token: Token,
    /// The session that it wants to go on with.
    pub pid: Option<String>,
    /// The last argument of the last event that it got, if that was text.
    pub offset: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CredentialsJson<'a> {
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
    #[serde(borrow)]
    pid: Option<&'a RawValue>,
    #[serde(borrow)]
    offset: Option<&'a RawValue>,
}

impl Credentials {
    /// Reads the object of a CONNECT; what is not text counts as missing.
    pub fn parse(auth: Option<&Bytes>) -> Self {
        let json = auth.and_then(|auth| serde_json::from_slice::<CredentialsJson<'_>>(auth).ok());
        let Some(json) = json else { return Self::default() };
        let inner = json.auth.and_then(|auth| serde_json::from_str::<CredentialsJson<'_>>(auth.get()).ok());
        let token = text(json.token).or_else(|| text(inner.and_then(|inner| inner.token)));
        let token = token.filter(|token| token.len() <= TOKEN_BYTES_MAX).unwrap_or_default();
        Self { token: Token(token), pid: text(json.pid), offset: text(json.offset) }
    }
}

fn text(json: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(json?.get()).ok()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(
        borrow,
        alias = "conversationId",
        alias = "conversation",
        alias = "room_id",
        alias = "roomId",
        alias = "room",
        alias = "chat_id",
        alias = "chatId"
    )]
    conversation_id: Option<&'a RawValue>,
    seq: Option<u64>,
    #[serde(borrow, deserialize_with = "even_null")]
    body: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "even_null")]
    text: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "even_null")]
    content: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "even_null")]
    message: Option<&'a RawValue>,
    #[serde(borrow, alias = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "clientId")]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    emoji: Option<Cow<'a, str>>,
    #[serde(alias = "replyTo")]
    reply_to: Option<u64>,
}

/// A body that is `null` is a body; only an absent one is none.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads an event. `None` for one that is not known.
///
/// # Errors
/// When it is known and makes no sense; the conversation that it names, where it names one.
pub fn read(
    spelling: &Spelling,
    name: &str,
    arguments: &Arguments,
    relays: bool,
) -> Option<Result<Request, Refusal>> {
    let elements = arguments.elements();
    let inlined = match elements.get(1) {
        Some(argument) if !arguments.attachments.is_empty() => {
            Some(binary::inline(argument.get(), &arguments.attachments))
        }
        _ => None,
    };
    let argument = match &inlined {
        Some(inlined) => serde_json::from_str(inlined).ok(),
        None => elements.get(1).copied(),
    };
    match spelling.ask(name) {
        Some(Ask::RegisterUser) => Some(Ok(Request::Register)),
        Some(ask) => Some(fields(argument).and_then(|fields| request(ask, &fields))),
        None => relays.then(|| signal(name, argument?)).flatten().map(Ok),
    }
}

/// The conversation that an event names, for whoever is told that it was refused.
pub fn conversation_of(arguments: &Arguments) -> Option<ConversationId> {
    let fields = fields(arguments.elements().get(1).copied()).ok()?;
    conversation(&fields).ok()
}

fn request(ask: Ask, fields: &Fields<'_>) -> Result<Request, Refusal> {
    let conversation = conversation(fields)?;
    let seq = fields.seq.map(Seq);
    Ok(match ask {
        Ask::RegisterUser => Request::Register,
        Ask::JoinConversation => Request::Join(conversation, seq),
        Ask::LeaveConversation => Request::Leave(conversation),
        Ask::SendMessage => Request::Send(send(conversation, fields)?),
        Ask::Typing => Request::Typing(conversation, true),
        Ask::StopTyping => Request::Typing(conversation, false),
        Ask::MarkRead => Request::MarkRead(conversation, seq),
        Ask::MarkDelivered => Request::MarkDelivered(conversation, seq.ok_or(Refusal::Invalid)?),
        Ask::EditMessage => change(conversation, fields, ChangeAction::Edit(said(fields)?))?,
        Ask::DeleteMessage => change(conversation, fields, ChangeAction::Delete)?,
        Ask::AddReaction => change(conversation, fields, reaction(fields, true)?)?,
        Ask::RemoveReaction => change(conversation, fields, reaction(fields, false)?)?,
    })
}

/// Both forms at once: what is no object is the conversation.
fn fields(argument: Option<&RawValue>) -> Result<Fields<'_>, Refusal> {
    let argument = argument.ok_or(Refusal::Invalid)?;
    if argument.get().starts_with('{') {
        return serde_json::from_str(argument.get()).map_err(|_| Refusal::Invalid);
    }
    Ok(Fields { conversation_id: Some(argument), ..Fields::default() })
}

/// Text, or a number, which some apps have for ids.
fn conversation(fields: &Fields<'_>) -> Result<ConversationId, Refusal> {
    let json = fields.conversation_id.ok_or(Refusal::Invalid)?.get();
    let id = if json.starts_with('"') {
        let text: Cow<'_, str> = serde_json::from_str(json).map_err(|_| Refusal::Invalid)?;
        ConversationId::parse(&text)
    } else {
        let number: u64 = json.parse().map_err(|_| Refusal::Invalid)?;
        ConversationId::parse(&number.to_string())
    };
    id.map_err(|error| no_id(&error))
}

fn no_id(error: &IdError) -> Refusal {
    if let IdError::TooLong { .. } = error {
        limits::refused(Limit::IdBytes);
    }
    Refusal::Invalid
}

fn send(conversation: ConversationId, fields: &Fields<'_>) -> Result<Send, Refusal> {
    let kind = fields.kind.as_ref().map_or(Some(MessageKind::TEXT), |kind| MessageKind::parse(kind));
    Ok(Send {
        conversation,
        client_id: client_id(fields)?,
        reply_to: fields.reply_to.map(Seq),
        kind: kind.ok_or(Refusal::Invalid)?,
        body: said(fields)?,
        retry: false,
    })
}

fn client_id(fields: &Fields<'_>) -> Result<Option<ClientMessageId>, Refusal> {
    let id = fields.client_id.as_ref().map(|id| ClientMessageId::parse(id)).transpose();
    id.map_err(|error| no_id(&error))
}

fn change(
    conversation: ConversationId,
    fields: &Fields<'_>,
    action: ChangeAction,
) -> Result<Request, Refusal> {
    let target = Seq(fields.seq.ok_or(Refusal::Invalid)?);
    Ok(Request::Change(SendChange {
        conversation,
        target,
        action,
        client_id: client_id(fields)?,
        retry: false,
    }))
}

fn reaction(fields: &Fields<'_>, on: bool) -> Result<ChangeAction, Refusal> {
    let emoji = fields.emoji.as_deref().filter(|text| is_emoji(text)).ok_or(Refusal::Invalid)?;
    Ok(ChangeAction::React { emoji: emoji.to_owned(), on })
}

/// Apps have four names for what is said.
fn said(fields: &Fields<'_>) -> Result<Body, Refusal> {
    let json = fields.body.or(fields.text).or(fields.content).or(fields.message);
    message_body(json.ok_or(Refusal::Invalid)?)
}

/// An event of the app's own whose argument is an object that names a conversation; all of it is what is said.
fn signal(name: &str, argument: &RawValue) -> Option<Request> {
    if !argument.get().starts_with('{') {
        return None;
    }
    let conversation = conversation(&fields(Some(argument)).ok()?).ok()?;
    let data = Some(message_body(argument).ok()?);
    let name = SignalName::parse(name).ok()?;
    Some(Request::Signal(SendSignal { conversation, to: None, name, data }))
}

/// Which point of the stream of everything that a client got is meant by the last argument of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offset {
    /// When it was accepted, in milliseconds since 1970.
    pub time: u64,
    /// The message, and where; none where the connection has only begun.
    pub message: Option<(ConversationId, Seq)>,
}

impl Offset {
    /// Reads what [`Offset`]'s `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, rest) = text.split_once('.')?;
        let time = time.parse().ok()?;
        if rest.is_empty() {
            return Some(Self { time, message: None });
        }
        let (seq, conversation) = rest.split_once('.')?;
        let message = (ConversationId::parse(conversation).ok()?, Seq(seq.parse().ok()?));
        Some(Self { time, message: Some(message) })
    }

    /// Where the client is in the conversation of the message.
    pub fn position(&self) -> Option<(ConversationId, Position)> {
        let (conversation, seq) = self.message.clone()?;
        Some((conversation, Position { epoch: String::new(), seq }))
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.", self.time)?;
        match &self.message {
            Some((conversation, seq)) => write!(f, "{seq}.{conversation}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, argument: &str) -> Option<Result<Request, Refusal>> {
        let json = format!("[\"{name}\"{}{argument}]", if argument.is_empty() { "" } else { "," });
        let arguments = Arguments { json: json.into(), attachments: Vec::new() };
        read(&Spelling::default(), name, &arguments, true)
    }

    fn id(text: &str) -> ConversationId {
        ConversationId::parse(text).unwrap()
    }

    #[test]
    fn both_forms_are_understood() {
        for form in
            ["\"conv_a_b\"", "{\"conversation_id\":\"conv_a_b\"}", "{\"roomId\":\"conv_a_b\",\"x\":[]}"]
        {
            assert_eq!(ask("leave_conversation", form), Some(Ok(Request::Leave(id("conv_a_b")))), "{form}");
        }
        assert_eq!(ask("join_conversation", "42"), Some(Ok(Request::Join(id("42"), None))));
        let form = "{\"conversation\":7,\"seq\":3}";
        assert_eq!(ask("join_conversation", form), Some(Ok(Request::Join(id("7"), Some(Seq(3))))));
        assert_eq!(ask("register_user", ""), Some(Ok(Request::Register)));
        for bad in ["", "null", "[]", "-1", "1.5", "{}", "\"a b\"", "{\"conversation_id\":null}"] {
            assert_eq!(ask("join_conversation", bad), Some(Err(Refusal::Invalid)), "{bad}");
        }
    }

    #[test]
    fn a_body_has_four_names_and_is_kept_byte_for_byte() {
        for name in ["body", "text", "content", "message"] {
            let form = format!("{{\"conversation_id\":\"c\",\"{name}\": {{ \"a\" :1e400}} }}");
            let Some(Ok(Request::Send(send))) = ask("send_message", &form) else { panic!("{form}") };
            assert_eq!(send.body.as_bytes(), b"{ \"a\" :1e400}");
        }
        assert_eq!(ask("send_message", "{\"conversation_id\":\"c\"}"), Some(Err(Refusal::Invalid)));
        let deep = format!("{{\"conversation_id\":\"c\",\"body\":{}{}}}", "[".repeat(33), "]".repeat(33));
        assert_eq!(ask("send_message", &deep), Some(Err(Refusal::Invalid)));
    }

    #[test]
    fn an_event_of_the_apps_own_is_relayed_if_it_names_a_conversation() {
        let form = "{\"conversation_id\":\"c\",\"sdp\":\"x\"}";
        let Some(Ok(Request::Signal(signal))) = ask("call_offer", form) else { panic!("a signal") };
        assert_eq!((signal.conversation, signal.name.as_str()), (id("c"), "call_offer"));
        assert_eq!(signal.data.unwrap().as_bytes(), form.as_bytes());
        for other in ["{\"sdp\":\"x\"}", "\"c\"", "1", ""] {
            assert_eq!(ask("call_offer", other), None, "{other}");
        }
    }

    #[test]
    fn a_token_may_stand_in_two_places() {
        let parse = |json: &str| Credentials::parse(Some(&Bytes::copy_from_slice(json.as_bytes()))).token.0;
        assert_eq!(parse("{\"token\":\"t\"}"), "t");
        assert_eq!(parse("{\"auth\":{\"token\":\"t\"}}"), "t");
        for none in ["{}", "{\"token\":1}", "{\"token\":null,\"auth\":1}"] {
            assert_eq!(parse(none), "", "{none}");
        }
    }

    #[test]
    fn an_offset_is_carried_as_text() {
        for offset in
            [Offset { time: 5, message: None }, Offset { time: 5, message: Some((id("a.b"), Seq(7))) }]
        {
            assert_eq!(Offset::parse(&offset.to_string()), Some(offset));
        }
        for bad in ["", "x", "5", "5.7", "5.x.c", "5.7.", "hello. there"] {
            assert_eq!(Offset::parse(bad), None, "{bad}");
        }
    }
}
