//! Every part of a cluster is killed in the middle of traffic: nothing acknowledged is lost, repeated or reordered, and
//! all of it ends up in Postgres.

use std::os::unix::process::ExitStatusExt;

use loadtest::check::Durability;

use crate::support::{PATIENCE, Stage, Traffic, eventually, metric, seen};

/// The signal of `abort`, by which a process ends at its failpoint.
const SIGABRT: i32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_killed() {
    let mut stage = Stage::start(|_| {}).await;
    let traffic = Traffic::default();
    let mut acked = 0;
    for victim in 0..2 {
        let run = stage.traffic(traffic).await;
        traffic.wait_middle(&run).await;
        stage.kill_gateway(victim);
        traffic.assert_unfinished(&run);
        stage.restart_gateway(victim).await.unwrap();
        acked += traffic.finish(run).await.acked;
    }
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_are_restarted_one_after_the_other() {
    let mut stage = Stage::start(|_| {}).await;
    let traffic = Traffic::default();
    let mut acked = 0;
    for victim in 0..2 {
        let run = stage.traffic(traffic).await;
        traffic.wait_middle(&run).await;
        stage.gateway(victim).terminate();
        traffic.assert_unfinished(&run);
        let status = stage.gateway(victim).wait_exit(PATIENCE).await.unwrap();
        assert!(status.success(), "{status}");
        stage.restart_gateway(victim).await.unwrap();
        acked += traffic.finish(run).await.acked;
    }
    stage.wait_stored(acked).await;
}

/// How many partitions a persister owns.
const OWNED: &str = "starling_persister_partitions_owned";
/// So many conversations that some of them are the victim's, however the partitions are shared.
const MANY: Traffic =
    Traffic { conversations: 16, writers: 2, readers: 1, messages: 40, durability: Durability::Accepted };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_persister_is_killed_at_each_step() {
    let mut stage = Stage::start(|_| {}).await;
    let mut acked = 0;
    for (turn, step) in ["after-read", "after-commit", "after-notify", "after-trim"].into_iter().enumerate() {
        // They take turns, so that each also has to take over from the other.
        let victim = turn % 2;
        eprintln!("persister {victim} will die {step}");
        let failpoint = [("STARLING_FAILPOINT", step)];
        stage.restart_persister_with(victim, &failpoint).await.unwrap();
        let health = stage.persister_health_url(victim);
        eventually("it owns its share", async || {
            let owned = metric(&health, OWNED).await;
            seen(owned > 0.0, || format!("{owned} partitions"))
        })
        .await;
        let run = stage.traffic(MANY).await;
        let status = stage.persister(victim).wait_exit(PATIENCE).await.unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "it dies at its failpoint, not otherwise");
        acked += MANY.finish(run).await.acked;
        // The other one alone stores all, also what the dead one had begun.
        stage.wait_stored(acked).await;
        stage.restart_persister(victim).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_keeps_its_file() {
    let mut stage = Stage::start(|_| {}).await;
    let traffic = Traffic::default();
    let mut acked = 0;
    for _ in 0..2 {
        let run = stage.traffic(traffic).await;
        traffic.wait_middle(&run).await;
        stage.redis().kill9();
        traffic.assert_unfinished(&run);
        stage.redis().restart().await.unwrap();
        acked += traffic.finish(run).await.acked;
    }
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed() {
    let mut stage = Stage::start(|_| {}).await;
    let traffic = Traffic::default();
    let run = stage.traffic(traffic).await;
    traffic.wait_middle(&run).await;
    stage.postgres().kill9();
    traffic.assert_unfinished(&run);
    // What is being said goes on; it waits in the log.
    let next = run.acked() + 1;
    let goes_on = tokio::time::timeout(PATIENCE, run.wait_acked(next)).await;
    assert_eq!(goes_on, Ok(true), "without Postgres nothing is accepted");
    stage.postgres().restart().await.unwrap();
    let acked = traffic.finish(run).await.acked;
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_loses_everything_while_the_gateways_live() {
    let stage = Stage::start(|_| {}).await;
    let traffic = Traffic::default();
    let mut acked = 0;
    for _ in 0..2 {
        let run = stage.traffic(traffic).await;
        traffic.wait_middle(&run).await;
        let client = redis::Client::open(stage.redis_url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
        traffic.assert_unfinished(&run);
        acked += traffic.finish(run).await.acked;
    }
    stage.wait_stored(acked).await;
}
