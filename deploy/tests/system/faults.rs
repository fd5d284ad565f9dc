//! Every part of a cluster is killed in the middle of traffic: nothing acknowledged is lost, repeated or reordered, and
//! all of it ends up in Postgres.

use std::os::unix::process::ExitStatusExt;

use loadtest::{check::Durability, verify::Run};

use crate::support::{PATIENCE, Stage, Traffic, assert_goes_on, eventually, metric, seen};

/// The signal of `abort`, by which a process ends at its failpoint.
const SIGABRT: i32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_killed() {
    let mut stage = Stage::start(|_| {}).await;
    let mut acked = 0;
    for victim in 0..2 {
        let killed = async |stage: &mut Stage, _: &Run| {
            stage.kill_gateway(victim);
            stage.restart_gateway(victim).await.unwrap();
        };
        acked += stage.amid(Traffic::default(), killed).await;
    }
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_are_restarted_one_after_the_other() {
    let mut stage = Stage::start(|_| {}).await;
    let mut acked = 0;
    for victim in 0..2 {
        let restarted = async |stage: &mut Stage, _: &Run| {
            stage.gateway(victim).terminate();
            let status = stage.gateway(victim).wait_exit(PATIENCE).await.unwrap();
            assert!(status.success(), "{status}");
            stage.restart_gateway(victim).await.unwrap();
        };
        acked += stage.amid(Traffic::default(), restarted).await;
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
    let mut acked = 0;
    for _ in 0..2 {
        let killed = async |stage: &mut Stage, _: &Run| {
            stage.redis().kill9();
            stage.redis().restart().await.unwrap();
        };
        acked += stage.amid(Traffic::default(), killed).await;
    }
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed() {
    let mut stage = Stage::start(|_| {}).await;
    let killed = async |stage: &mut Stage, run: &Run| {
        stage.postgres().kill9();
        // What is being said goes on; it waits in the log.
        assert_goes_on(run, "without Postgres nothing is accepted").await;
        stage.postgres().restart().await.unwrap();
    };
    let acked = stage.amid(Traffic::default(), killed).await;
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_loses_everything_while_the_gateways_live() {
    let mut stage = Stage::start(|_| {}).await;
    let mut acked = 0;
    for _ in 0..2 {
        let lost = async |stage: &mut Stage, _: &Run| stage.flush().await;
        acked += stage.amid(Traffic::default(), lost).await;
    }
    stage.wait_stored(acked).await;
}
