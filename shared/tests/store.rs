//! One suite for both stores, and what only one of them can suffer.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support_store;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use deploy::{PostgresServer, eventually};
use shared::{
    broker::{EntryId, LogPosition},
    domain::{Body, ClientMessageId, Direction, Epoch, Message, MessageId, MessageKind, Partition, Seq},
    store::{
        Committed, HistoryRange, Store, StoreError, Writer, postgres::PostgresStore, sqlite::SqliteStore,
    },
};
use uuid::Uuid;

use support_store::{Bed, room, user};

async fn suite(bed: &Bed) {
    installation_and_partitions_are_fixed_once(bed).await;
    concurrent_claims_get_different_epochs(bed).await;
    a_claim_keeps_others_out(bed).await;
    a_clean_mark_is_good_for_one_claim(bed).await;
    a_commit_tells_what_became_of_each_message(bed).await;
    doubles_inside_one_batch(bed).await;
    what_collided_is_stored_under_its_new_seq(bed).await;
    a_voided_place_is_filled_once(bed).await;
    a_bad_message_stores_nothing_of_its_batch(bed).await;
    cursors_never_go_back(bed).await;
    partitions_have_one_owner(bed).await;
    history_in_both_directions(bed).await;
    bodies_are_carried_byte_for_byte(bed).await;
}

on_both_stores!();

/// The message `name` of a conversation, at `seq`, after `prev`.
fn message(name: &str, seq: u64, prev: u64) -> Message {
    let client_id = ClientMessageId::parse(name).unwrap();
    let (conversation, sender) = (room("general"), user("ann"));
    Message {
        id: MessageId::derived(&conversation, &sender, &client_id),
        conversation,
        seq: Seq(seq),
        prev: Seq(prev),
        time: 1_700_000_000_000 + seq % 1000,
        sender,
        client_id: Some(client_id),
        reply_to: None,
        kind: MessageKind::TEXT,
        body: Body::from_json(format!("\"{name}\"")),
    }
}

fn position(epoch: u32, ms: u64, n: u64) -> LogPosition {
    LogPosition { epoch: Epoch(epoch), entry: EntryId { ms, n } }
}

async fn history(store: &dyn Store) -> Vec<Message> {
    read(store, 0, None, 1000, Direction::Forward).await
}

async fn read(
    store: &dyn Store,
    after: u64,
    before: Option<u64>,
    limit: u32,
    direction: Direction,
) -> Vec<Message> {
    let conversation = room("general");
    let range = HistoryRange { conversation, after: Seq(after), before: before.map(Seq), limit, direction };
    store.messages(&range).await.unwrap()
}

fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.seq.0).collect()
}

async fn lock_eventually(writer: &mut Box<dyn Writer>, partition: Partition) {
    eventually(async || writer.lock(partition).await.unwrap().then_some(())).await;
}

async fn installation_and_partitions_are_fixed_once(bed: &Bed) {
    let store = bed.make("installation").await;
    store.ping().await.unwrap();
    let id = store.installation().await.unwrap();
    assert_eq!(id.len(), 8);
    assert_eq!(store.fix_partitions(64).await.unwrap(), 64);
    assert_eq!(store.fix_partitions(32).await.unwrap(), 64);
    drop(store);
    let store = bed.open("installation").await;
    assert_eq!(store.installation().await.unwrap(), id);
    assert_eq!(store.fix_partitions(16).await.unwrap(), 64);
    let other = bed.make("installation_other").await;
    assert_ne!(other.installation().await.unwrap(), id);
}

async fn concurrent_claims_get_different_epochs(bed: &Bed) {
    const CLAIMS: u32 = 20;
    let store = bed.make("claims").await;
    let claims: Vec<_> = (0..CLAIMS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.claim_epoch(Partition(3)).await.unwrap().epoch.0 })
        })
        .collect();
    let mut epochs = BTreeSet::new();
    for claim in claims {
        epochs.insert(claim.await.unwrap());
    }
    assert_eq!(epochs, (0..CLAIMS).collect());
    assert_eq!(store.claim_epoch(Partition(4)).await.unwrap().epoch, Epoch(0));
}

async fn a_claim_keeps_others_out(bed: &Bed) {
    let store = bed.make("claim_guard").await;
    let first = store.claim_epoch(Partition(0)).await.unwrap();
    let is_dropped = Arc::new(AtomicBool::new(false));
    let second = tokio::spawn({
        let (store, is_dropped) = (Arc::clone(&store), Arc::clone(&is_dropped));
        async move {
            let claim = store.claim_epoch(Partition(0)).await.unwrap();
            (claim.epoch, is_dropped.load(Ordering::SeqCst))
        }
    });
    // More than enough work for the second claim to come through, if it could.
    for partition in 1..20 {
        assert_eq!(store.claim_epoch(Partition(partition)).await.unwrap().epoch, Epoch(0));
    }
    is_dropped.store(true, Ordering::SeqCst);
    drop(first);
    assert_eq!(second.await.unwrap(), (Epoch(1), true));
}

async fn a_clean_mark_is_good_for_one_claim(bed: &Bed) {
    let store = bed.make("clean").await;
    for epoch in 0..3 {
        assert_eq!(store.claim_epoch(Partition(0)).await.unwrap().epoch, Epoch(epoch));
    }
    drop(store.claim_epoch(Partition(1)).await.unwrap());
    store.mark_clean(&[Partition(0), Partition(9)]).await.unwrap();
    drop(store);
    let store = bed.open("clean").await;
    assert_eq!(store.claim_epoch(Partition(0)).await.unwrap().epoch, Epoch(2));
    assert_eq!(store.claim_epoch(Partition(0)).await.unwrap().epoch, Epoch(3));
    assert_eq!(store.claim_epoch(Partition(1)).await.unwrap().epoch, Epoch(1));
    assert_eq!(store.claim_epoch(Partition(9)).await.unwrap().epoch, Epoch(0));
}

async fn a_commit_tells_what_became_of_each_message(bed: &Bed) {
    let store = bed.make("commit").await;
    let mut writer = store.writer("a").await.unwrap();
    let (one, two) = (message("one", 1, 0), message("two", 2, 1));
    let committed = writer.commit(&[one.clone(), two.clone()], &[]).await.unwrap();
    assert_eq!(committed, Committed { inserted: 2, ..Committed::default() });
    assert_eq!(writer.commit(&[], &[]).await.unwrap(), Committed::default());

    let (two_again, other, three) = (message("two", 3, 2), message("other", 1, 0), message("three", 4, 3));
    let batch = [one.clone(), two_again.clone(), other.clone(), three.clone()];
    let committed = writer.commit(&batch, &[]).await.unwrap();
    let expected = Committed {
        inserted: 1,
        replayed: 1,
        voided: vec![two_again.clone()],
        collided: vec![other.clone()],
    };
    assert_eq!(committed, expected);

    // The same entries once more, as after a crash before the trim: only the collision remains to be told.
    let committed = writer.commit(&batch, &[]).await.unwrap();
    assert_eq!(committed, Committed { replayed: 3, collided: vec![other], ..Committed::default() });

    let stored = history(&*store).await;
    assert_eq!(seqs(&stored), [1, 2, 3, 4]);
    assert_eq!((&stored[0], &stored[1], &stored[3]), (&one, &two, &three));
    let void = &stored[2];
    assert_eq!((&void.kind, void.prev, void.body.as_bytes()), (&MessageKind::VOID, Seq(2), &b"null"[..]));
    assert_eq!((void.time, &void.client_id), (two_again.time, &None));
    assert_eq!(store.last_seq(&room("general")).await.unwrap(), Seq(4));
    assert_eq!(store.last_seq(&room("empty")).await.unwrap(), Seq(0));
    assert_eq!(store.message(two.id).await.unwrap().as_ref(), Some(&two));
    assert_eq!(store.message(MessageId(Uuid::nil())).await.unwrap(), None);
}

async fn doubles_inside_one_batch(bed: &Bed) {
    let store = bed.make("doubles").await;
    let mut writer = store.writer("a").await.unwrap();
    let (one, later, other) = (message("one", 1, 0), message("one", 2, 1), message("other", 1, 0));
    let batch = [one.clone(), one.clone(), later.clone(), later.clone(), other.clone()];
    let committed = writer.commit(&batch, &[]).await.unwrap();
    let expected = Committed { inserted: 1, replayed: 2, voided: vec![later], collided: vec![other] };
    assert_eq!(committed, expected);
    assert_eq!(seqs(&history(&*store).await), [1, 2]);
}

async fn what_collided_is_stored_under_its_new_seq(bed: &Bed) {
    let store = bed.make("collided").await;
    let mut writer = store.writer("a").await.unwrap();
    writer.commit(&[message("one", 1, 0)], &[]).await.unwrap();
    let collided = writer.commit(&[message("two", 1, 0)], &[]).await.unwrap().collided;
    assert_eq!(collided, [message("two", 1, 0)]);
    writer.commit(&[message("two", 2, 1)], &[]).await.unwrap();
    // The old entry comes again: its message is stored by now, and must not be published a third time.
    let committed = writer.commit(&collided, &[]).await.unwrap();
    assert_eq!(committed, Committed { replayed: 1, ..Committed::default() });
    assert_eq!(seqs(&history(&*store).await), [1, 2]);
}

async fn a_voided_place_is_filled_once(bed: &Bed) {
    let store = bed.make("void").await;
    let mut writer = store.writer("a").await.unwrap();
    writer.commit(&[message("one", 1, 0)], &[]).await.unwrap();
    let bad = Message { time: u64::MAX, prev: Seq(7), ..message("bad", 2, 1) };
    writer.void(&bad).await.unwrap();
    writer.void(&bad).await.unwrap();
    writer.void(&message("other", 1, 0)).await.unwrap();
    let stored = history(&*store).await;
    assert_eq!(stored[0], message("one", 1, 0));
    assert_eq!((seqs(&stored), &stored[1].kind), (vec![1, 2], &MessageKind::VOID));
    // Were the same entry read again and found good, its place would still be gone.
    let committed = writer.commit(&[message("bad", 2, 1)], &[]).await.unwrap();
    assert_eq!(committed, Committed { replayed: 1, ..Committed::default() });
    let collided = writer.commit(&[message("stranger", 2, 1)], &[]).await.unwrap().collided;
    assert_eq!(collided, [message("stranger", 2, 1)]);
}

async fn a_bad_message_stores_nothing_of_its_batch(bed: &Bed) {
    let store = bed.make("rejected").await;
    let mut writer = store.writer("a").await.unwrap();
    let bad = [
        Message { time: u64::MAX, ..message("late", 2, 1) },
        message("itself", 2, 2),
        message("huge", u64::MAX, 1),
    ];
    for bad in bad {
        let cursors = [(Partition(0), position(0, 5, 0))];
        let error = writer.commit(&[message("one", 1, 0), bad], &cursors).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error}");
        assert!(!error.to_string().contains("general"), "the error quotes a row: {error}");
        assert_eq!(history(&*store).await, []);
        assert_eq!(store.cursors().await.unwrap(), []);
    }
    // The session is as good as before.
    let committed = writer.commit(&[message("one", 1, 0)], &[]).await.unwrap();
    assert_eq!(committed.inserted, 1);
}

async fn cursors_never_go_back(bed: &Bed) {
    let store = bed.make("cursors").await;
    let mut writer = store.writer("a").await.unwrap();
    let (first, second) = (Partition(0), Partition(63));
    assert_eq!(store.cursors().await.unwrap(), []);
    let steps = [
        (position(0, 100, 1), position(0, 100, 1)),
        (position(0, 100, 0), position(0, 100, 1)),
        (position(0, 99, 9), position(0, 100, 1)),
        (position(0, 100, 2), position(0, 100, 2)),
        (position(1, 1, 0), position(1, 1, 0)),
        (position(0, 900, 0), position(1, 1, 0)),
    ];
    for (given, expected) in steps {
        writer.commit(&[], &[(first, given)]).await.unwrap();
        assert_eq!(store.cursors().await.unwrap(), [(first, expected)], "{given:?}");
    }
    let batch = [(second, position(0, 7, 0)), (first, position(1, 2, 0)), (second, position(0, 6, 0))];
    writer.commit(&[], &batch).await.unwrap();
    let expected = vec![(first, position(1, 2, 0)), (second, position(0, 7, 0))];
    assert_eq!(store.cursors().await.unwrap(), expected);
}

async fn partitions_have_one_owner(bed: &Bed) {
    let store = bed.make("owners").await;
    let (mut a, mut b) = (store.writer("a").await.unwrap(), store.writer("b").await.unwrap());
    assert_eq!((a.beat().await.unwrap(), b.beat().await.unwrap()), (2, 2));
    let (one, two) = (Partition(1), Partition(2));
    assert!(a.lock(one).await.unwrap());
    assert!(a.lock(one).await.unwrap(), "locking what is locked is no change");
    assert!(a.lock(two).await.unwrap());
    assert!(!b.lock(one).await.unwrap());
    b.unlock(one).await.unwrap();
    assert!(!b.lock(one).await.unwrap(), "another's lock was taken away");
    a.unlock(one).await.unwrap();
    assert!(b.lock(one).await.unwrap());
    assert!(!a.lock(one).await.unwrap());
    assert!(!b.lock(two).await.unwrap());
    drop(a);
    lock_eventually(&mut b, two).await;
    eventually(async || (b.beat().await.unwrap() == 1).then_some(())).await;
}

async fn history_in_both_directions(bed: &Bed) {
    let store = bed.make("history").await;
    let mut writer = store.writer("a").await.unwrap();
    let other = Message { conversation: room("other"), id: MessageId(Uuid::new_v4()), ..message("x", 5, 0) };
    let mut all: Vec<Message> = (1..=9).map(|n| message(&format!("m{n}"), n * 10, (n - 1) * 10)).collect();
    all.push(other);
    writer.commit(&all, &[]).await.unwrap();
    let (forward, backward) = (Direction::Forward, Direction::Backward);
    let cases = [
        (0, None, 100, forward, vec![10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (0, None, 3, forward, vec![10, 20, 30]),
        (0, None, 3, backward, vec![90, 80, 70]),
        (20, Some(50), 100, forward, vec![30, 40]),
        (20, Some(50), 100, backward, vec![40, 30]),
        (20, Some(90), 2, forward, vec![30, 40]),
        (20, Some(90), 2, backward, vec![80, 70]),
        (25, Some(45), 100, forward, vec![30, 40]),
        (90, None, 100, forward, vec![]),
        (u64::MAX, None, 100, forward, vec![]),
        (85, Some(u64::MAX), 100, backward, vec![90]),
        (0, None, 0, forward, vec![]),
    ];
    for (after, before, limit, direction, expected) in cases {
        let found = read(&*store, after, before, limit, direction).await;
        assert_eq!(seqs(&found), expected, "{after}..{before:?} {limit} {direction:?}");
    }
    assert_eq!(history(&*store).await, all[..9]);
}

async fn bodies_are_carried_byte_for_byte(bed: &Bed) {
    let store = bed.make("bodies").await;
    let mut writer = store.writer("a").await.unwrap();
    let bodies = [
        r#"{"n":123456789012345678901234567890.10e+400,"m":9007199254740993}"#.to_owned(),
        r#"{"a":1,"a":2, "b" : [ ] }"#.to_owned(),
        "\"\\u0000 \\ud800 \\u00e9 é \u{1f600}\"".to_owned(),
        format!("\"{}\"", "x".repeat(32 * 1024 - 2)),
        "null".to_owned(),
    ];
    let messages: Vec<Message> = (1_u64..)
        .zip(&bodies)
        .map(|(seq, body)| Message {
            body: Body::from_json(body.clone()),
            client_id: None,
            id: MessageId(Uuid::now_v7()),
            ..message("x", seq, seq - 1)
        })
        .collect();
    writer.commit(&messages, &[]).await.unwrap();
    let stored = history(&*store).await;
    assert_eq!(stored, messages);
    for (message, body) in stored.iter().zip(&bodies) {
        assert_eq!(message.body.as_bytes(), body.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_process_and_one_schema() {
    let bed = Bed::Sqlite(tempfile::tempdir().unwrap());
    let store = bed.make("file").await;
    let Err(error) = SqliteStore::open(&bed.path("file")) else { panic!("opened twice") };
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(store);
    let file = rusqlite::Connection::open(bed.path("file")).unwrap();
    file.execute("INSERT INTO starling_migrations (version, checksum) VALUES (999, '')", []).unwrap();
    drop(file);
    let Err(error) = SqliteStore::open(&bed.path("file")) else { panic!("opened a newer schema") };
    assert!(matches!(&error, StoreError::Rejected(text) if text.contains("999")), "{error}");
}

async fn admin(server: &PostgresServer, database: &str, sql: &str) -> u64 {
    let (client, connection) =
        tokio_postgres::connect(&server.url(database), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let count = client.execute(sql, &[]).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_migrate_at_once_but_only_to_one_schema() {
    let bed = Bed::postgres().await;
    let Bed::Postgres(server) = &bed else { unreachable!() };
    let url = server.create_database("fresh").await.unwrap();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(
                async move { PostgresStore::connect(&url).await.unwrap().installation().await.unwrap() },
            )
        })
        .collect();
    let mut installations = BTreeSet::new();
    for start in starts {
        installations.insert(start.await.unwrap());
    }
    assert_eq!(installations.len(), 1);

    let refusals = [
        ("UPDATE starling_migrations SET checksum = 'x'", "not the one"),
        ("INSERT INTO starling_migrations (version, checksum) VALUES (999, '')", "not the one"),
        ("DELETE FROM starling_migrations WHERE version < 999", "newer program"),
    ];
    for (change, reason) in refusals {
        assert_ne!(admin(server, "fresh", change).await, 0);
        let Err(error) = PostgresStore::connect(&url).await else { panic!("connected after {change}") };
        assert!(matches!(&error, StoreError::Rejected(text) if text.contains(reason)), "{error}");
    }
    assert!(matches!(PostgresStore::connect("nonsense").await, Err(StoreError::Rejected(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_make_tables_can_use_them() {
    let bed = Bed::postgres().await;
    let Bed::Postgres(server) = &bed else { unreachable!() };
    bed.make("granted").await;
    for grant in [
        "CREATE ROLE app LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app",
    ] {
        admin(server, "granted", grant).await;
    }
    let url = server.url("granted").replace("postgres@", "app@");
    let store = PostgresStore::connect(&url).await.unwrap();
    assert_eq!(store.claim_epoch(Partition(0)).await.unwrap().epoch, Epoch(0));
    let mut writer = store.writer("a").await.unwrap();
    assert_eq!(writer.beat().await.unwrap(), 1);
    assert_eq!(writer.commit(&[message("one", 1, 0)], &[]).await.unwrap().inserted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_session_loses_the_partitions() {
    let bed = Bed::postgres().await;
    let Bed::Postgres(server) = &bed else { unreachable!() };
    let store = bed.make("sessions").await;
    let partition = Partition(5);

    let mut killed = store.writer("killed").await.unwrap();
    assert!(killed.lock(partition).await.unwrap());
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'starling-persister-killed'";
    assert_eq!(admin(server, "sessions", terminate).await, 1);
    let mut silent = store.writer("silent").await.unwrap();
    lock_eventually(&mut silent, partition).await;
    let error = killed.commit(&[message("one", 1, 0)], &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(killed.beat().await.is_err());

    // A writer that hangs is ended by the server, in favour of one that does not.
    let mut next = store.writer("next").await.unwrap();
    assert!(!next.lock(partition).await.unwrap());
    lock_eventually(&mut next, partition).await;
    let error = silent.commit(&[message("one", 1, 0)], &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(history(&*store).await, []);
    assert_eq!(next.beat().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_is_survived() {
    let mut bed = Bed::postgres().await;
    let store = bed.make("crash").await;
    let mut writer = store.writer("a").await.unwrap();
    writer.commit(&[message("one", 1, 0)], &[]).await.unwrap();
    let claim = store.claim_epoch(Partition(0)).await.unwrap();
    let Bed::Postgres(server) = &mut bed else { unreachable!() };
    server.kill9();
    for error in [
        store.ping().await.unwrap_err(),
        writer.beat().await.unwrap_err(),
        writer.commit(&[message("two", 2, 1)], &[]).await.unwrap_err(),
        store.claim_epoch(Partition(0)).await.map(|claim| claim.epoch).unwrap_err(),
        store.writer("b").await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    server.restart().await.unwrap();
    // The same store goes on; the session is lost.
    eventually(async || store.ping().await.ok()).await;
    assert!(writer.beat().await.is_err());
    assert_eq!(history(&*store).await, [message("one", 1, 0)]);
    assert_eq!(store.claim_epoch(Partition(0)).await.unwrap().epoch, Epoch(claim.epoch.0 + 1));
    let mut writer = store.writer("b").await.unwrap();
    assert_eq!(writer.commit(&[message("two", 2, 1)], &[]).await.unwrap().inserted, 1);
}
