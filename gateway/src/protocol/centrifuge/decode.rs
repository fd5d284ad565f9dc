//! Bytes to commands.

use std::{borrow::Cow, num::NonZeroU32};

use serde_json::value::RawValue;
use shared::domain::{
    Body, ClientMessageId, Command, Connect, ConversationId, Direction, Disconnect, HistoryQuery, IdError,
    MessageKind, Position, Refusal, Send, SendSignal, Seq, SignalName, Subscribe, Token, UserId,
};

use crate::{
    limits::{self, Limit},
    protocol::message_body,
};

use super::{
    chat,
    packet::{
        self, Call, ConversationData, HistoryData, Packet, Request, SendData, SignalData, Tag, UsersData,
    },
};

/// Most commands in one frame.
pub const COMMANDS_PER_FRAME_MAX: usize = 256;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most server-side subscriptions that one `connect` can resume.
pub const RESUME_MAX: usize = 256;
/// Most messages that one history request can ask for; a higher or negative limit asks for so many.
pub const HISTORY_MESSAGES_MAX: u32 = 500;
/// Most users that one `user_presence` asks about.
pub const PRESENCE_USERS_MAX: usize = 200;
/// Messages that the chat operation `history` returns when it names no limit.
pub const HISTORY_MESSAGES_DEFAULT: u32 = 50;

/// `subscribe.flag`: refuse an unrecoverable position instead of starting afresh.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// Decodes the commands of one frame, separated by newlines.
///
/// A command that is well formed but cannot be done comes back as [`Command::Unsupported`], so that the client is
/// answered under its id.
///
/// # Errors
/// The reason to disconnect: a frame that breaks the protocol, a token beyond [`TOKEN_BYTES_MAX`], or an asynchronous
/// `send` that has no meaning here.
pub fn decode(frame: &[u8]) -> Result<Vec<(Tag, Command)>, Disconnect> {
    let text = std::str::from_utf8(frame).map_err(|_| Disconnect::BadRequest)?;
    let mut commands = Vec::new();
    for line in text.split('\n').filter(|line| !line.trim_ascii().is_empty()) {
        if commands.len() == COMMANDS_PER_FRAME_MAX {
            limits::refused(Limit::FrameCommands);
            return Err(Disconnect::BadRequest);
        }
        let packet: Packet<'_> = serde_json::from_str(line).map_err(|_| Disconnect::BadRequest)?;
        commands.push(command(packet)?);
    }
    if commands.is_empty() { Err(Disconnect::BadRequest) } else { Ok(commands) }
}

fn command(packet: Packet<'_>) -> Result<(Tag, Command), Disconnect> {
    let silent = Tag { id: None, is_rpc: false };
    let Some(request) = packet.request else { return Ok((silent, Command::Pong)) };
    let tag = Tag { id: NonZeroU32::new(packet.id), is_rpc: matches!(request, Request::Rpc(_)) };
    let command = match request {
        Request::Connect(request) => Ok(connect(request)?),
        Request::Refresh(request) => Ok(Command::Refresh { token: token(request.token)? }),
        Request::Subscribe(request) => subscribe(request),
        Request::Unsubscribe(request) => conversation(&request.channel).map(Command::Unsubscribe),
        Request::Publish(request) => publish(&request),
        Request::History(request) => history(request),
        Request::Presence(request) => conversation(&request.channel).map(Command::Presence),
        Request::PresenceStats(request) => conversation(&request.channel).map(Command::PresenceStats),
        Request::Rpc(request) => call(&request),
        Request::SubRefresh(_) => Err(Refusal::NotSupported),
        Request::Send(send) => return Ok((silent, or_refusal(asynchronous(send.data)?))),
    };
    if tag.id.is_none() {
        return Err(Disconnect::BadRequest);
    }
    Ok((tag, or_refusal(command)))
}

fn or_refusal(command: Result<Command, Refusal>) -> Command {
    command.unwrap_or_else(Command::Unsupported)
}

pub(super) fn conversation(text: &str) -> Result<ConversationId, Refusal> {
    ConversationId::parse(text).map_err(|error| no_id(&error))
}

pub(super) fn no_id(error: &IdError) -> Refusal {
    if let IdError::TooLong { .. } = error {
        limits::refused(Limit::IdBytes);
    }
    Refusal::Invalid
}

fn token(text: Cow<'_, str>) -> Result<Token, Disconnect> {
    if text.len() > TOKEN_BYTES_MAX { Err(Disconnect::InvalidToken) } else { Ok(Token(text.into_owned())) }
}

fn connect(request: packet::Connect<'_>) -> Result<Command, Disconnect> {
    if request.subs.len() > RESUME_MAX {
        return Err(Disconnect::BadRequest);
    }
    // A name that is no conversation's cannot be a subscription of ours: leaving it out tells the client that it ended.
    let resume = request
        .subs
        .into_iter()
        .filter(|(_, sub)| sub.recover)
        .filter_map(|(channel, sub)| {
            let position = Position { epoch: sub.epoch, seq: Seq(sub.offset) };
            Some((ConversationId::parse(&channel).ok()?, position))
        })
        .collect();
    Ok(Command::Connect(Connect { token: token(request.token)?, resume }))
}

fn subscribe(request: packet::Subscribe<'_>) -> Result<Command, Refusal> {
    if request.kind != 0 {
        return Err(Refusal::NotSupported);
    }
    // To ignore a filter would show the client what it asked not to see.
    if request.tf.is_some() {
        return Err(Refusal::Invalid);
    }
    let position = Position { epoch: request.epoch, seq: Seq(request.offset) };
    Ok(Command::Subscribe(Subscribe {
        conversation: conversation(&request.channel)?,
        recover: request.recover.then_some(position),
        join_leave: request.join_leave,
        refuse_unrecoverable: request.flag & FLAG_REJECT_UNRECOVERED != 0,
    }))
}

fn publish(request: &packet::Publish<'_>) -> Result<Command, Refusal> {
    if request.kind != 0 {
        return Err(Refusal::NotSupported);
    }
    Ok(Command::Publish { conversation: conversation(&request.channel)?, body: body(request.data)? })
}

fn history(request: packet::History<'_>) -> Result<Command, Refusal> {
    let since = request.since.map(|since| Position { epoch: since.epoch, seq: Seq(since.offset) });
    history_query(&request.channel, since, request.limit, request.reverse)
}

/// Chat operations by name; each has one meaning, whichever protocol spells it.
fn call(call: &Call<'_>) -> Result<Command, Refusal> {
    match &*call.method {
        "send" => send(call.data),
        "history" => {
            let data: HistoryData<'_> = operand(call.data)?;
            chat_history(&data)
        }
        "typing" => typing(call.data, true),
        "stop_typing" => typing(call.data, false),
        "signal" => signal(call.data),
        "user_presence" => user_presence(call.data),
        "connections" => Ok(Command::Connections),
        "presence" => {
            let data: ConversationData<'_> = operand(call.data)?;
            conversation(&data.conversation).map(Command::Presence)
        }
        method => chat::decode(method, call.data).unwrap_or(Err(Refusal::UnknownMethod)),
    }
}

fn typing(data: Option<&RawValue>, typing: bool) -> Result<Command, Refusal> {
    let data: ConversationData<'_> = operand(data)?;
    Ok(Command::Typing { conversation: conversation(&data.conversation)?, typing })
}

fn signal(data: Option<&RawValue>) -> Result<Command, Refusal> {
    let data: SignalData<'_> = operand(data)?;
    Ok(Command::Signal(SendSignal {
        conversation: conversation(&data.conversation)?,
        name: SignalName::parse(&data.name).map_err(|error| no_id(&error))?,
        data: data.data.map(message_body).transpose()?,
        to: data.to.map(|user| UserId::parse(&user)).transpose().map_err(|error| no_id(&error))?,
    }))
}

fn user_presence(data: Option<&RawValue>) -> Result<Command, Refusal> {
    let UsersData { users } = operand(data)?;
    if users.len() > PRESENCE_USERS_MAX {
        return Err(Refusal::Invalid);
    }
    let users = users.iter().map(|user| UserId::parse(user)).collect::<Result<_, _>>();
    users.map(Command::UserPresence).map_err(|error| no_id(&error))
}

/// `before` reads newest first, as `reverse` does; `after` reads oldest first. Both at once make no page.
fn chat_history(data: &HistoryData<'_>) -> Result<Command, Refusal> {
    let reverse = data.reverse || data.before.is_some();
    if data.after.is_some() && reverse {
        return Err(Refusal::Invalid);
    }
    let since = data.after.or(data.before).map(|seq| Position { epoch: String::new(), seq: Seq(seq) });
    let limit = data.limit.unwrap_or(HISTORY_MESSAGES_DEFAULT);
    history_query(&data.conversation, since, i64::from(limit), reverse)
}

/// What an asynchronous `send` may say: `{"method":…,"data":…}`, as `rpc` would, for what needs no answer.
fn asynchronous(data: Option<&RawValue>) -> Result<Result<Command, Refusal>, Disconnect> {
    let call: Call<'_> = operand(data).map_err(|_| Disconnect::NotAvailable)?;
    match &*call.method {
        "send" => Ok(send(call.data)),
        "typing" => Ok(typing(call.data, true)),
        "stop_typing" => Ok(typing(call.data, false)),
        "signal" => Ok(signal(call.data)),
        _ => Err(Disconnect::NotAvailable),
    }
}

pub(super) fn operand<'a, T: serde::Deserialize<'a>>(data: Option<&'a RawValue>) -> Result<T, Refusal> {
    serde_json::from_str(data.ok_or(Refusal::Invalid)?.get()).map_err(|_| Refusal::Invalid)
}

fn send(data: Option<&RawValue>) -> Result<Command, Refusal> {
    let data: SendData<'_> = operand(data)?;
    let client_id = data.client_id.map(|id| ClientMessageId::parse(&id)).transpose();
    Ok(Command::Send(Send {
        conversation: conversation(&data.conversation)?,
        client_id: client_id.map_err(|error| no_id(&error))?,
        reply_to: data.reply_to.map(Seq),
        kind: data.kind.map_or(Ok(MessageKind::TEXT), |kind| message_kind(&kind))?,
        body: body(data.body)?,
        retry: data.retry,
    }))
}

fn message_kind(text: &str) -> Result<MessageKind, Refusal> {
    // Some are hidden from clients, or change what others have said.
    MessageKind::parse(text).filter(|kind| !kind.is_reserved()).ok_or(Refusal::Invalid)
}

fn body(data: Option<&RawValue>) -> Result<Body, Refusal> {
    message_body(data.ok_or(Refusal::Invalid)?)
}

fn history_query(
    channel: &str,
    since: Option<Position>,
    limit: i64,
    is_reverse: bool,
) -> Result<Command, Refusal> {
    if is_reverse && since.as_ref().is_some_and(|since| since.seq == Seq(0)) {
        return Err(Refusal::Invalid);
    }
    Ok(Command::History(HistoryQuery {
        conversation: conversation(channel)?,
        since,
        // A negative limit means "no limit", and does not fit either.
        limit: u32::try_from(limit).unwrap_or(HISTORY_MESSAGES_MAX).min(HISTORY_MESSAGES_MAX),
        direction: if is_reverse { Direction::Backward } else { Direction::Forward },
    }))
}

#[cfg(test)]
mod tests {
    use shared::domain::BODY_BYTES_MAX;

    use super::*;
    use crate::protocol::BODY_DEPTH_MAX;

    fn one(line: &str) -> Command {
        let mut commands = decode(line.as_bytes()).unwrap();
        assert_eq!(commands.len(), 1, "{line}");
        commands.remove(0).1
    }

    fn body_of(command: &Command) -> &[u8] {
        match command {
            Command::Publish { body, .. } | Command::Send(Send { body, .. }) => body.as_bytes(),
            other => panic!("{other:?} has no body"),
        }
    }

    #[test]
    fn a_frame_that_breaks_the_protocol_ends_the_connection() {
        let bad: [&[u8]; 18] = [
            b"",
            b"\n",
            b" \r\n \n",
            b"x",
            b"[]",
            b"null",
            b"\xff",
            br#"{"id":1}"#,
            br#"{"id":0,"presence":{"channel":"a"}}"#,
            br#"{"id":-1,"presence":{"channel":"a"}}"#,
            br#"{"id":4294967296,"presence":{"channel":"a"}}"#,
            br#"{"presence":{"channel":"a"}}"#,
            br#"{"id":1,"dance":{}}"#,
            br#"{"dance":{}}"#,
            br#"{"id":1,"presence":{"channel":"a"},"history":{"channel":"a"}}"#,
            br#"{"id":1,"presence":null}"#,
            br#"{"id":1,"presence":{"channel":7}}"#,
            br#"{"id":1,"presence":{"channel":"a"}} {"id":2,"presence":{"channel":"a"}}"#,
        ];
        for frame in bad {
            assert_eq!(decode(frame), Err(Disconnect::BadRequest), "{}", String::from_utf8_lossy(frame));
        }
    }

    #[test]
    fn one_bad_command_spoils_its_frame() {
        assert_eq!(decode(b"{}\n{"), Err(Disconnect::BadRequest));
    }

    #[test]
    fn a_frame_holds_so_many_commands_and_no_more() {
        let frame = |count: usize| "{}\n".repeat(count);
        assert_eq!(decode(frame(COMMANDS_PER_FRAME_MAX).as_bytes()).unwrap().len(), COMMANDS_PER_FRAME_MAX);
        assert_eq!(decode(frame(COMMANDS_PER_FRAME_MAX + 1).as_bytes()), Err(Disconnect::BadRequest));
    }

    #[test]
    fn a_body_is_kept_byte_for_byte() {
        for body in [
            "null",
            "0",
            r#""""#,
            "{ \"a\" :\t1e400,\r \"a\": 9007199254740993 }",
            r#""\ud800 \u0000 \/ é😀""#,
            r#"["{[\"]}\\"]"#,
        ] {
            let publish = format!(r#"{{"id":1,"publish":{{"channel":"a","data": {body} }}}}"#);
            assert_eq!(body_of(&one(&publish)), body.as_bytes());
            let send = format!(
                r#"{{"id":1,"rpc":{{"method":"send","data":{{"conversation":"a","body": {body} }}}}}}"#
            );
            assert_eq!(body_of(&one(&send)), body.as_bytes());
        }
    }

    #[test]
    fn a_body_has_a_size_and_a_depth() {
        let publish = |body: &str| one(&format!(r#"{{"id":1,"publish":{{"channel":"a","data":{body}}}}}"#));
        let text = |bytes: usize| format!(r#""{}""#, "x".repeat(bytes - 2));
        assert_eq!(body_of(&publish(&text(BODY_BYTES_MAX))).len(), BODY_BYTES_MAX);
        assert_eq!(publish(&text(BODY_BYTES_MAX + 1)), Command::Unsupported(Refusal::TooLarge));

        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(body_of(&publish(&nested(BODY_DEPTH_MAX))).len(), 2 * BODY_DEPTH_MAX);
        assert_eq!(publish(&nested(BODY_DEPTH_MAX + 1)), Command::Unsupported(Refusal::Invalid));
        assert_eq!(publish(&nested(10_000)), Command::Unsupported(Refusal::Invalid));
        let wide = format!("[{}[]]", "[],".repeat(1_000));
        assert_eq!(body_of(&publish(&wide)), wide.as_bytes());
        let quoted = format!(r#""\"{}\\""#, "[".repeat(100));
        assert_eq!(body_of(&publish(&quoted)), quoted.as_bytes());
    }

    #[test]
    fn nesting_outside_of_bodies_is_skipped_without_recursion() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        for line in [
            format!(r#"{{"id":1,"connect":{{"data":{deep}}}}}"#),
            format!(r#"{{"id":1,"x":{deep},"connect":{{}}}}"#),
            format!(r#"{{"id":1,"subscribe":{{"channel":"a","data":{deep}}}}}"#),
            format!(r#"{{"id":1,"sub_refresh":{deep}}}"#),
        ] {
            assert_eq!(decode(line.as_bytes()).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_token_has_a_length() {
        let line =
            |key: &str, bytes: usize| format!(r#"{{"id":1,"{key}":{{"token":"{}"}}}}"#, "x".repeat(bytes));
        for key in ["connect", "refresh"] {
            assert!(decode(line(key, TOKEN_BYTES_MAX).as_bytes()).is_ok());
            assert_eq!(decode(line(key, TOKEN_BYTES_MAX + 1).as_bytes()), Err(Disconnect::InvalidToken));
        }
    }

    #[test]
    fn a_connect_resumes_so_many_conversations_and_no_more() {
        let line = |count: usize| {
            let subs: Vec<_> =
                (0..count).map(|n| format!(r#""c{n}":{{"recover":true,"offset":3}}"#)).collect();
            format!(r#"{{"id":1,"connect":{{"subs":{{{}}}}}}}"#, subs.join(","))
        };
        let Command::Connect(connect) = one(&line(RESUME_MAX)) else { panic!("a connect was sent") };
        assert_eq!(connect.resume.len(), RESUME_MAX);
        assert_eq!(decode(line(RESUME_MAX + 1).as_bytes()), Err(Disconnect::BadRequest));
    }

    #[test]
    fn limits_of_history_are_capped() {
        let limit =
            |text: &str| match one(&format!(r#"{{"id":1,"history":{{"channel":"a","limit":{text}}}}}"#)) {
                Command::History(query) => query.limit,
                other => panic!("{other:?}"),
            };
        assert_eq!(limit("0"), 0);
        assert_eq!(limit("499"), 499);
        assert_eq!([limit("501"), limit("-1"), limit("99999999999")], [HISTORY_MESSAGES_MAX; 3]);
    }
}
