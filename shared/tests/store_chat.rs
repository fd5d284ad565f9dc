//! Conversations, members, receipts and what becomes of messages: one suite for both stores.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support_store;

use std::sync::Arc;

use shared::{
    domain::{
        Body, Change, ChangeAction, ConversationSummary, Direction, ListCursor, Message, MessageId,
        MessageKind, MessageState, Receipt, Role, Seq, UNREAD_MAX, UserId,
    },
    store::{
        Changed, Conversation, HistoryRange, Marked, MembersChange, Membership, Standing, Store, StoreError,
    },
};
use support_store::{Bed, room, user};
use uuid::Uuid;

async fn suite(bed: &Bed) {
    members_and_conversations(bed).await;
    members_come_and_go(bed).await;
    an_owner_has_an_heir(bed).await;
    roles_mutes_and_names(bed).await;
    who_is_banned_stays_out(bed).await;
    a_list_shows_where_conversations_stand(bed).await;
    a_list_is_paged_by_activity(bed).await;
    a_direct_conversation_has_rows_from_its_first_message_on(bed).await;
    unread_messages_are_counted_up_to_a_limit(bed).await;
    marks_only_go_forward(bed).await;
    edits_and_deletions_show_the_last_word(bed).await;
    reactions_show_the_last_word(bed).await;
    what_is_stored_again_changes_nothing(bed).await;
}

on_both_stores!();

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

fn role(name: &str) -> Role {
    Role::parse(name).unwrap()
}

fn done(version: u64, names: &[&str]) -> MembersChange {
    MembersChange::Done(Changed { version, users: users(names), promoted: None })
}

/// A conversation of members, each `name:role`.
fn team(id: &str, members: &[&str]) -> Conversation {
    let member = |text: &&str| {
        let (name, is) = text.split_once(':').unwrap();
        (user(name), role(is))
    };
    Conversation {
        id: room(id),
        kind: "group".to_owned(),
        name: None,
        members: members.iter().map(member).collect(),
        created_ms: 5,
    }
}

async fn make(store: &dyn Store, id: &str, members: &[&str]) {
    assert!(store.create_conversation(&team(id, members)).await.unwrap());
}

/// A message without a name of its own.
fn said(id: &str, seq: u64, by: &str, kind: &str, body: &str) -> Message {
    Message {
        id: MessageId(Uuid::from_u128(
            u128::from(seq) << 64 | id.bytes().fold(0, |hash, byte| hash * 31 + u128::from(byte)),
        )),
        conversation: room(id),
        seq: Seq(seq),
        prev: Seq(seq - 1),
        time: 1_000 + seq,
        sender: user(by),
        client_id: None,
        reply_to: None,
        kind: MessageKind::parse(kind).unwrap(),
        body: Body::from_json(body.to_owned()),
    }
}

/// The entry at `seq` that changes `target`.
fn changed(target: &Message, seq: u64, by: &str, action: ChangeAction) -> Message {
    let change = Change { target: target.seq, id: target.id, action };
    let entry = said(target.conversation.as_str(), seq, by, change.kind().as_str(), "null");
    Message { reply_to: Some(target.seq), body: change.body(), ..entry }
}

fn edit(body: &str) -> ChangeAction {
    ChangeAction::Edit(Body::from_json(body.to_owned()))
}

fn react(emoji: &str, on: bool) -> ChangeAction {
    ChangeAction::React { emoji: emoji.to_owned(), on }
}

async fn commit(store: &dyn Store, messages: &[Message]) {
    store.writer("a").await.unwrap().commit(messages, &[]).await.unwrap();
}

async fn history(store: &dyn Store, id: &str) -> Vec<Message> {
    let range = HistoryRange {
        conversation: room(id),
        after: Seq(0),
        before: None,
        limit: 1_000,
        direction: Direction::Forward,
    };
    store.messages(&range).await.unwrap()
}

async fn list(store: &dyn Store, name: &str) -> Vec<ConversationSummary> {
    store.conversations_of(&user(name), None, 100).await.unwrap()
}

async fn state(store: &dyn Store, message: &Message) -> MessageState {
    let states = store.states(&message.conversation, &[message.seq]).await.unwrap();
    states.into_iter().next().unwrap_or_default()
}

fn text(body: Option<&Body>) -> String {
    String::from_utf8(body.unwrap().as_bytes().to_vec()).unwrap()
}

async fn members_and_conversations(bed: &Bed) {
    let store = bed.make("chat_members").await;
    let conversation = Conversation {
        name: Some("The Team ✓".to_owned()),
        created_ms: 1_700_000_000_000,
        ..team("team", &["ann:owner", "bob:member"])
    };
    let nobody = Membership { version: 0, standing: None };
    assert_eq!(store.membership(&conversation.id, &user("ann")).await.unwrap(), nobody);
    assert!(store.create_conversation(&conversation).await.unwrap());
    for (name, is) in [("ann", Some("owner")), ("bob", Some("member")), ("eve", None)] {
        let membership = store.membership(&conversation.id, &user(name)).await.unwrap();
        let standing =
            is.map(|is| Standing { kind: "group".to_owned(), role: role(is), muted_until_ms: None });
        assert_eq!(membership, Membership { version: 1, standing }, "{name}");
    }
    let taken = team("team", &["eve:owner"]);
    assert!(!store.create_conversation(&taken).await.unwrap());
    assert_eq!(store.conversation(&conversation.id).await.unwrap().as_ref(), Some(&conversation));
    assert_eq!(store.conversation(&room("none")).await.unwrap(), None);
    let members = store.members(&conversation.id).await.unwrap();
    let members: Vec<_> = members.iter().map(|one| (one.user.as_str(), one.joined_ms)).collect();
    assert_eq!(members, [("ann", 1_700_000_000_000), ("bob", 1_700_000_000_000)]);

    let empty = team("empty", &[]);
    assert!(store.create_conversation(&empty).await.unwrap());
    assert_eq!(store.conversation(&empty.id).await.unwrap().as_ref(), Some(&empty));
    let bad = [
        Conversation { kind: "a\0b".to_owned(), ..team("nul", &[]) },
        team("double", &["ann:owner", "ann:member"]),
    ];
    for bad in bad {
        let error = store.create_conversation(&bad).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error}");
        assert_eq!(store.conversation(&bad.id).await.unwrap(), None);
    }
}

async fn members_come_and_go(bed: &Bed) {
    const MAX: usize = 4;
    let store = bed.make("chat_change").await;
    let id = room("team");
    make(&*store, "team", &["ann:owner"]).await;
    let add =
        async |names: &[&str]| store.add_members(&id, &users(names), &Role::MEMBER, MAX, 9).await.unwrap();
    assert_eq!(add(&["carol", "bob", "bob"]).await, done(2, &["bob", "carol"]));
    assert_eq!(add(&["bob", "ann"]).await, MembersChange::Unneeded);
    assert_eq!(add(&["dan", "eve"]).await, MembersChange::Full, "all or none");
    assert_eq!(store.members(&id).await.unwrap().len(), 3);
    assert_eq!(add(&["ann", "dan"]).await, done(3, &["dan"]));
    assert_eq!(
        add(&["ann", "dan"]).await,
        MembersChange::Unneeded,
        "a full one needs no room for who is in it"
    );

    let among = async |names: &[&str]| {
        let mut found = store.members_among(&id, &users(names)).await.unwrap();
        found.sort();
        found.iter().map(|user| user.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(among(&["bob", "zoe", "ann"]).await, ["ann", "bob"]);
    assert_eq!(store.remove_member(&id, &user("bob")).await.unwrap(), done(4, &["bob"]));
    assert_eq!(store.remove_member(&id, &user("bob")).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.remove_member(&room("none"), &user("ann")).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(among(&["bob", "zoe", "ann"]).await, ["ann"]);
    let membership = store.membership(&id, &user("bob")).await.unwrap();
    assert_eq!(membership, Membership { version: 4, standing: None });
    let versions = store.membership_versions(&[room("none"), id.clone()]).await.unwrap();
    assert_eq!(versions, [(id.clone(), 4)]);
}

async fn an_owner_has_an_heir(bed: &Bed) {
    let store = bed.make("chat_heirs").await;
    let id = room("team");
    make(&*store, "team", &["ann:owner", "bob:owner", "zoe:member", "olga:observer"]).await;
    store.add_members(&id, &users(&["carl", "dan"]), &Role::MODERATOR, 9, 7).await.unwrap();
    let remove = async |name: &str| match store.remove_member(&id, &user(name)).await.unwrap() {
        MembersChange::Done(changed) => changed.promoted.map(|heir| heir.as_str().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(remove("ann").await, None, "there is another owner");
    assert_eq!(remove("bob").await.as_deref(), Some("carl"), "the moderator who is first");
    assert_eq!(remove("dan").await, None);
    assert_eq!(remove("carl").await.as_deref(), Some("zoe"), "a member when there is no moderator");
    assert_eq!(remove("zoe").await, None, "an observer inherits nothing");

    make(&*store, "race", &["ann:owner", "bob:owner", "zoe:member"]).await;
    let (race, ann, bob) = (room("race"), user("ann"), user("bob"));
    let (one, other) = tokio::join!(store.remove_member(&race, &ann), store.remove_member(&race, &bob));
    let promoted = [one.unwrap(), other.unwrap()].into_iter().filter(|change| {
        matches!(change, MembersChange::Done(Changed { promoted: Some(heir), .. }) if *heir == user("zoe"))
    });
    assert_eq!(promoted.count(), 1, "who goes last has the heir");
}

async fn roles_mutes_and_names(bed: &Bed) {
    let store = bed.make("chat_roles").await;
    let (id, ann, bob) = (room("team"), user("ann"), user("bob"));
    make(&*store, "team", &["ann:owner", "bob:member"]).await;
    assert_eq!(store.set_role(&id, &ann, &Role::MEMBER).await.unwrap(), MembersChange::LastOwner);
    assert_eq!(store.set_role(&id, &ann, &Role::OWNER).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.set_role(&id, &user("eve"), &Role::OWNER).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.set_role(&id, &bob, &Role::OWNER).await.unwrap(), done(2, &["bob"]));
    assert_eq!(store.set_role(&id, &ann, &role("contractor")).await.unwrap(), done(3, &["ann"]));
    assert_eq!(store.mute(&id, &ann, Some(77)).await.unwrap(), done(4, &["ann"]));
    assert_eq!(store.mute(&id, &ann, Some(77)).await.unwrap(), MembersChange::Unneeded);
    let standing = store.membership(&id, &ann).await.unwrap().standing.unwrap();
    assert_eq!((standing.role, standing.muted_until_ms), (role("contractor"), Some(77)));
    assert_eq!(store.mute(&id, &ann, None).await.unwrap(), done(5, &["ann"]));
    assert_eq!(store.mute(&id, &user("eve"), Some(1)).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.rename(&id, Some("Lunch")).await.unwrap(), done(6, &[]));
    assert_eq!(store.rename(&id, Some("Lunch")).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.rename(&id, None).await.unwrap(), done(7, &[]));
    assert_eq!(store.rename(&room("none"), Some("x")).await.unwrap(), MembersChange::Unneeded);
    assert!(matches!(store.rename(&id, Some("a\0b")).await, Err(StoreError::Rejected(_))));
}

async fn who_is_banned_stays_out(bed: &Bed) {
    let store = bed.make("chat_bans").await;
    let (id, bob, eve) = (room("team"), user("bob"), user("eve"));
    make(&*store, "team", &["ann:owner", "bob:member"]).await;
    let add = async |name: &str, now: u64| {
        store.add_members(&id, &users(&["dan", name]), &Role::MEMBER, 9, now).await.unwrap()
    };
    assert_eq!(store.ban(&id, &bob, None).await.unwrap(), done(2, &["bob"]));
    assert_eq!(store.ban(&id, &bob, None).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.membership(&id, &bob).await.unwrap().standing, None);
    assert_eq!(add("bob", u64::from(u32::MAX)).await, MembersChange::Banned, "for ever");
    assert_eq!(store.members(&id).await.unwrap().len(), 1, "nobody is added");
    assert_eq!(
        store.ban(&id, &eve, Some(50)).await.unwrap(),
        done(3, &["eve"]),
        "who is no member can be kept out"
    );
    assert_eq!(add("eve", 49).await, MembersChange::Banned);
    assert_eq!(add("eve", 50).await, done(4, &["dan", "eve"]));
    assert_eq!(store.unban(&id, &bob).await.unwrap(), done(5, &["bob"]));
    assert_eq!(store.unban(&id, &bob).await.unwrap(), MembersChange::Unneeded);
    assert_eq!(store.membership(&id, &bob).await.unwrap().standing, None);
    assert_eq!(add("bob", 50).await, done(6, &["bob"]));
    assert_eq!(store.ban(&room("none"), &bob, None).await.unwrap(), MembersChange::Unneeded);
}

async fn a_list_shows_where_conversations_stand(bed: &Bed) {
    let store = bed.make("chat_list").await;
    make(&*store, "team", &["ann:owner", "bob:member", "cyd:observer"]).await;
    make(&*store, "quiet", &["ann:member"]).await;
    let first = said("team", 1, "bob", "text", "1");
    let second = Message { reply_to: Some(Seq(1)), ..said("team", 2, "bob", "image", r#"{"n":2}"#) };
    let batch = [first.clone(), second.clone(), changed(&first, 3, "ann", react("x", true))];
    commit(&*store, &batch).await;
    commit(&*store, &[said("team", 4, "bob", "members", "{}")]).await;

    let found = list(&*store, "ann").await;
    assert_eq!(found.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["team", "quiet"]);
    let team = &found[0];
    assert_eq!((team.active_ms, team.top, team.read, team.unread), (1_002, Seq(4), Seq(0), 2));
    assert_eq!((team.members_count, &team.others), (3, &users(&["bob", "cyd"])));
    assert_eq!((&team.role, team.created_ms, team.kind.as_str()), (&Role::OWNER, 5, "group"));
    assert_eq!(team.last.as_ref().unwrap().message, second);
    let quiet = &found[1];
    assert_eq!((quiet.active_ms, quiet.top, quiet.unread, &quiet.last), (5, Seq(0), 0, &None));
    assert_eq!((quiet.members_count, &quiet.others), (1, &vec![]));
    let one = store.summary(&room("team"), &user("ann")).await.unwrap();
    assert_eq!(one.as_ref(), Some(team));
    assert_eq!(store.summary(&room("team"), &user("eve")).await.unwrap(), None);

    // Who has sent has read; a new member has nothing to catch up with.
    assert_eq!(list(&*store, "bob").await[0].unread, 0);
    assert_eq!(list(&*store, "bob").await[0].read, Seq(2));
    store.add_members(&room("team"), &users(&["dan"]), &Role::MEMBER, 9, 9).await.unwrap();
    assert_eq!((list(&*store, "dan").await[0].unread, list(&*store, "dan").await[0].read), (0, Seq(4)));

    commit(&*store, &[changed(&second, 5, "bob", ChangeAction::Delete)]).await;
    let last = list(&*store, "ann").await[0].clone();
    assert_eq!((last.unread, last.last.unwrap().deleted_ms), (1, Some(1_005)));
    assert_eq!(last.active_ms, 1_002, "a deletion is no activity");
}

async fn a_list_is_paged_by_activity(bed: &Bed) {
    let store = bed.make("chat_pages").await;
    for id in ["a", "b", "c", "d", "e"] {
        make(&*store, id, &["ann:owner", "bob:member"]).await;
    }
    commit(&*store, &[said("c", 1, "ann", "text", "1"), said("a", 2, "ann", "text", "1")]).await;
    let page = async |after: Option<&ConversationSummary>, limit: u32| {
        let after = after.map(|one| ListCursor { active_ms: one.active_ms, id: one.id.clone() });
        store.conversations_of(&user("ann"), after.as_ref(), limit).await.unwrap()
    };
    let all = page(None, 10).await;
    assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "c", "e", "d", "b"]);
    let mut paged = page(None, 2).await;
    while let last = paged.last().cloned()
        && let more = page(last.as_ref(), 2).await
        && !more.is_empty()
    {
        paged.extend(more);
    }
    assert_eq!(paged, all);
    assert_eq!(store.conversations_of(&user("eve"), None, 10).await.unwrap(), []);
}

async fn a_direct_conversation_has_rows_from_its_first_message_on(bed: &Bed) {
    let store = bed.make("chat_direct").await;
    assert_eq!(list(&*store, "ann").await, []);
    let messages = [said("conv_ann_bob", 1, "ann", "text", "1"), said("conv_a_b_c", 2, "ann", "text", "1")];
    commit(&*store, &messages).await;
    commit(&*store, &[said("conv_ann_bob", 2, "ann", "text", "2")]).await;
    let of_bob = list(&*store, "bob").await;
    assert_eq!(of_bob.len(), 1);
    let direct = &of_bob[0];
    assert_eq!(
        (direct.kind.as_str(), &direct.role, &direct.others),
        ("direct", &Role::MEMBER, &users(&["ann"]))
    );
    assert_eq!((direct.created_ms, direct.active_ms, direct.unread), (1_001, 1_002, 2));
    assert_eq!(list(&*store, "ann").await[0].unread, 0);
    assert_eq!(store.conversation(&room("conv_a_b_c")).await.unwrap(), None, "nobody knows whose it is");
    // Made by hand before the first message.
    let made =
        Conversation { kind: "direct".to_owned(), ..team("conv_cyd_dan", &["cyd:member", "dan:member"]) };
    assert!(store.create_conversation(&made).await.unwrap());
    commit(&*store, &[said("conv_cyd_dan", 1, "dan", "text", "1")]).await;
    assert_eq!(list(&*store, "cyd").await[0].unread, 1);
}

async fn unread_messages_are_counted_up_to_a_limit(bed: &Bed) {
    let store = bed.make("chat_unread").await;
    make(&*store, "team", &["ann:owner", "bob:member", "cyd:member"]).await;
    let mut messages: Vec<Message> = (1..=99).map(|seq| said("team", seq, "ann", "text", "1")).collect();
    for (seq, kind) in (100..).zip(MessageKind::UNCOUNTED) {
        messages.push(said("team", seq, "ann", kind.as_str(), "null"));
    }
    messages.push(said("team", 105, "cyd", "text", "1"));
    commit(&*store, &messages).await;
    let unread = async || {
        let counts = store.unread_of(&room("team")).await.unwrap();
        counts.iter().map(|(user, count)| (user.as_str().to_owned(), *count)).collect::<Vec<_>>()
    };
    let expect = |ann: u32, bob: u32, cyd: u32| {
        vec![("ann".to_owned(), ann), ("bob".to_owned(), bob), ("cyd".to_owned(), cyd)]
    };
    assert_eq!(unread().await, expect(1, UNREAD_MAX, 0));
    store.mark(&room("team"), &user("bob"), Seq(1), Seq(0)).await.unwrap();
    assert_eq!(unread().await, expect(1, 99, 0));
    assert_eq!(list(&*store, "bob").await[0].unread, 99);
    commit(&*store, &[said("team", 106, "ann", "text", "1"), said("team", 107, "ann", "text", "1")]).await;
    assert_eq!(list(&*store, "bob").await[0].unread, UNREAD_MAX);
}

async fn marks_only_go_forward(bed: &Bed) {
    let store = bed.make("chat_marks").await;
    make(&*store, "team", &["ann:owner", "bob:member"]).await;
    let id = room("team");
    let mark = async |name: &str, read: u64, delivered: u64| {
        store.mark(&id, &user(name), Seq(read), Seq(delivered)).await.unwrap()
    };
    let receipt = |name: &str, read, delivered| Receipt {
        user: user(name),
        read: Seq(read),
        delivered: Seq(delivered),
    };
    assert_eq!(mark("ann", 0, 4).await, Marked::Forward(receipt("ann", 0, 4)));
    assert_eq!(mark("ann", 3, 0).await, Marked::Forward(receipt("ann", 3, 4)));
    assert_eq!(mark("ann", 6, 5).await, Marked::Forward(receipt("ann", 6, 6)), "what is read is received");
    assert_eq!(mark("ann", 2, 2).await, Marked::Unneeded);
    assert_eq!(mark("ann", 6, 6).await, Marked::Unneeded);
    assert_eq!(mark("eve", 6, 6).await, Marked::Stranger);
    assert_eq!(mark("bob", 7, 0).await, Marked::Forward(receipt("bob", 7, 7)));
    assert_eq!(store.receipts(&id).await.unwrap(), [receipt("bob", 7, 7), receipt("ann", 6, 6)]);
    assert_eq!(store.receipts(&room("none")).await.unwrap(), []);
}

async fn edits_and_deletions_show_the_last_word(bed: &Bed) {
    let store = bed.make("chat_edits").await;
    make(&*store, "team", &["ann:owner"]).await;
    let message = said("team", 1, "ann", "text", r#"{"n":1}"#);
    let exact = r#"{ "n":9007199254740993, "n":1e400 }"#;
    commit(&*store, &[message.clone(), changed(&message, 2, "ann", edit("2"))]).await;
    let first = state(&*store, &message).await;
    assert_eq!((first.edited_ms, text(first.body.as_ref())), (Some(1_002), "2".to_owned()));
    // Two in one batch: the later one is the last word.
    commit(&*store, &[changed(&message, 4, "ann", edit("4")), changed(&message, 5, "ann", edit(exact))])
        .await;
    let edited = state(&*store, &message).await;
    assert_eq!((edited.edited_ms, text(edited.body.as_ref())), (Some(1_005), exact.to_owned()));
    assert_eq!(history(&*store, "team").await[0].body.as_bytes(), exact.as_bytes());

    let other = said("team", 6, "ann", "text", "6");
    let wrong = Message { conversation: room("else"), ..changed(&other, 8, "ann", edit("9")) };
    commit(&*store, &[other.clone(), wrong]).await;
    assert_eq!(state(&*store, &other).await, MessageState::default(), "an entry of another conversation");

    let batch = [changed(&message, 9, "ann", ChangeAction::Delete), changed(&message, 10, "ann", edit("10"))];
    commit(&*store, &batch).await;
    commit(&*store, &[changed(&message, 11, "ann", edit("\"too late\""))]).await;
    let deleted = state(&*store, &message).await;
    assert_eq!((deleted.deleted_ms, text(deleted.body.as_ref())), (Some(1_009), "null".to_owned()));
    for entry in history(&*store, "team").await {
        if entry.kind == MessageKind::EDIT {
            let emptied = format!(r#"{{"target":1,"id":"{}","body":null}}"#, message.id);
            assert_eq!(entry.body.as_bytes(), emptied.as_bytes(), "{} still says it", entry.seq);
        }
    }
}

async fn reactions_show_the_last_word(bed: &Bed) {
    let store = bed.make("chat_reactions").await;
    make(&*store, "team", &["ann:owner", "bob:member"]).await;
    let message = said("team", 1, "ann", "text", "1");
    let batch = [
        message.clone(),
        changed(&message, 2, "bob", react("👍", true)),
        changed(&message, 3, "ann", react("👍", true)),
        changed(&message, 4, "ann", react("🎉", true)),
        changed(&message, 5, "ann", react("🎉", false)),
    ];
    commit(&*store, &batch).await;
    let shown = async || {
        let reactions = state(&*store, &message).await.reactions;
        let one = |reaction: &shared::domain::Reaction| {
            let users: Vec<&str> = reaction.users.iter().map(UserId::as_str).collect();
            format!("{} {} {}", reaction.emoji, reaction.count, users.join(","))
        };
        reactions.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(shown().await, ["👍 2 bob,ann"]);
    commit(&*store, &[changed(&message, 6, "bob", react("👍", false))]).await;
    commit(&*store, &[changed(&message, 7, "bob", react("🎉", true))]).await;
    assert_eq!(shown().await, ["👍 1 ann", "🎉 1 bob"]);
}

async fn what_is_stored_again_changes_nothing(bed: &Bed) {
    let store = bed.make("chat_replay").await;
    make(&*store, "team", &["ann:owner", "bob:member"]).await;
    let message = said("team", 1, "ann", "text", "1");
    let kept = said("team", 2, "ann", "text", "2");
    let batch = [
        message.clone(),
        kept.clone(),
        changed(&kept, 3, "ann", edit("3")),
        changed(&kept, 4, "ann", edit("4")),
        changed(&kept, 5, "bob", react("x", true)),
        changed(&kept, 6, "bob", react("x", false)),
        changed(&message, 7, "ann", ChangeAction::Delete),
    ];
    // The edit that is not the last word, published twice.
    let double = Message { seq: Seq(8), prev: Seq(7), ..batch[2].clone() };
    commit(&*store, &batch).await;
    commit(&*store, std::slice::from_ref(&double)).await;
    let seen = async || {
        let states = store.states(&room("team"), &[Seq(1), Seq(2)]).await.unwrap();
        (states, list(&*store, "bob").await, history(&*store, "team").await)
    };
    let before = seen().await;
    assert_eq!(text(before.0[1].body.as_ref()), "4");
    assert_eq!((before.0[1].reactions.len(), before.1[0].unread), (0, 1));
    commit(&*store, &batch).await;
    commit(&*store, &batch[2..4]).await;
    commit(&*store, &batch[4..5]).await;
    commit(&*store, &[&batch[..], std::slice::from_ref(&double)].concat()).await;
    assert_eq!(seen().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_make_the_same_direct_conversation_while_its_first_message_is_stored() {
    for bed in [Bed::Sqlite(tempfile::tempdir().unwrap()), Bed::postgres().await] {
        let store = bed.make("chat_together").await;
        for n in 0..20 {
            let id = format!("conv_ann_bob{n}");
            let (ann, bob) = ("ann:member".to_owned(), format!("bob{n}:member"));
            let made = Conversation { kind: "direct".to_owned(), ..team(&id, &[&ann, &bob]) };
            let (one, other, first) = (Arc::clone(&store), Arc::clone(&store), Arc::clone(&store));
            let message = said(&id, 1, "ann", "text", "1");
            let (one, other, ()) = tokio::join!(
                one.create_conversation(&made),
                other.create_conversation(&made),
                commit(&*first, std::slice::from_ref(&message)),
            );
            assert!(!(one.unwrap() && other.unwrap()), "it was made twice");
            let found = store.summary(&room(&id), &user("ann")).await.unwrap().unwrap();
            assert_eq!((found.members_count, found.top, found.last.unwrap().message), (2, Seq(1), message));
        }
    }
}
