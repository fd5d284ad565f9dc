//! The list of conversations of a user with many of them is one query that uses its indexes.

use rusqlite::params;

use super::{SqliteStore, conversations_sql, open};

#[test]
fn a_list_of_conversations_reads_no_whole_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plan.db");
    drop(SqliteStore::open(&path).unwrap());
    let db = open::for_writing(&path).unwrap();
    for n in 0..1_000 {
        let id = format!("c{n}");
        db.execute(conversations_sql::CREATE, params![id, "group", None::<String>, n]).unwrap();
        db.execute(conversations_sql::JOIN, params![id, "ann", "member", n]).unwrap();
    }
    let page = params!["ann", 500, "c1", 50];
    let explain = format!("EXPLAIN QUERY PLAN {}", conversations_sql::CONVERSATIONS_OF);
    let mut statement = db.prepare(&explain).unwrap();
    let plan = statement.query_map(page, |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
    for step in &plan {
        // What is read as a whole is what other steps have found.
        let is_found = ["SCAN m", "SCAN (subquery"].iter().any(|found| step.starts_with(found));
        assert!(!step.starts_with("SCAN") || is_found, "{step} in {plan:#?}");
    }
    assert!(plan.iter().any(|step| step.contains("members_by_user")), "{plan:#?}");
    let mut statement = db.prepare(conversations_sql::CONVERSATIONS_OF).unwrap();
    assert_eq!(statement.query(page).unwrap().mapped(|_| Ok(())).count(), 50);
}
