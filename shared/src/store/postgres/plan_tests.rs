//! The list of conversations of a user with many of them is one query that uses its indexes.

use deploy::{PostgresOptions, PostgresServer};
use tokio_postgres::NoTls;

use super::{PostgresStore, conversations_sql};

/// 5,000 conversations of 4 messages and 20 members each; ann is in 1,000 of them. All rows are looked at, and once: what the planner
/// believes is not left to chance.
const FILL: &str = "\
    INSERT INTO conversations (id, kind, version, created_ms, last_seq, last_message_seq, last_ms) \
        SELECT 'c' || n, 'group', 1, 1, 4, 4, n FROM generate_series(1, 5000) n; \
    INSERT INTO members (conversation_id, user_id, role) \
        SELECT 'c' || n, 'ann', 'member' FROM generate_series(1, 5000, 5) n \
        UNION ALL SELECT 'c' || n, 'u' || n || '_' || k, 'member' \
        FROM generate_series(1, 5000) n, generate_series(1, 19) k; \
    INSERT INTO messages (conversation_id, seq, prev, id, time_ms, sender_id, kind, body) \
        SELECT 'c' || n, s, s - 1, gen_random_uuid(), n, 'bob', 'text', '1' \
        FROM generate_series(1, 5000) n, generate_series(1, 4) s; \
    SET default_statistics_target = 1000; \
    ANALYZE";

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_conversations_reads_no_whole_table() {
    let options = PostgresOptions { fsync: false, extra: vec!["autovacuum = off".to_owned()] };
    let server = PostgresServer::start(options).await.unwrap();
    let url = server.create_database("plan").await.unwrap();
    PostgresStore::connect(&url).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(FILL).await.unwrap();
    let list = conversations_sql::CONVERSATIONS_OF
        .replace("$1", "'ann'")
        .replace("$2::bigint", "4000::bigint")
        .replace("$2", "4000")
        .replace("$3", "'c1'")
        .replace("$4", "50");
    let rows = client.query(&format!("EXPLAIN (ANALYZE) {list}"), &[]).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(!plan.contains("Seq Scan"), "{plan}");
    for index in ["members_by_user", "conversations_pkey", "messages_pkey", "members_pkey"] {
        assert!(plan.contains(index), "{index} is not used:\n{plan}");
    }
    assert_eq!(client.query(&list, &[]).await.unwrap().len(), 50);
}
