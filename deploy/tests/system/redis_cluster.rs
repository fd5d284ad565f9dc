//! Over a Redis Cluster everything holds that holds over one server, and slots and primaries come and go.

use deploy::{ClusterOptions, RedisClusterOptions};
use loadtest::{check::Durability, verify::Run};

use crate::support::{Stage, Traffic, assert_goes_on, eventually, seen};

/// So many conversations that every server has some.
const SPREAD: Traffic =
    Traffic { conversations: 24, writers: 2, readers: 1, messages: 40, durability: Durability::Accepted };

fn over_a_cluster(replicas: usize) -> impl FnOnce(&mut ClusterOptions) {
    move |options| {
        let server = options.redis.clone();
        options.redis_cluster =
            Some(RedisClusterOptions { replicas, server, ..RedisClusterOptions::default() });
    }
}

/// The slots on a server that have a log.
async fn slots_of(stage: &mut Stage, server: usize) -> Vec<u16> {
    let client = redis::Client::open(stage.redis_cluster().server(server).url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let logs: Vec<String> = redis::cmd("KEYS").arg("{*}log").query_async(&mut connection).await.unwrap();
    let mut slots = Vec::new();
    for log in logs {
        let mut ask = redis::cmd("CLUSTER");
        slots.push(ask.arg("KEYSLOT").arg(log).query_async(&mut connection).await.unwrap());
    }
    slots
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_is_killed_and_keeps_its_file() {
    let mut stage = Stage::start(over_a_cluster(0)).await;
    let mut acked = 0;
    for victim in 0..2 {
        let killed = async |stage: &mut Stage, run: &Run| {
            stage.redis_cluster().server(victim).kill9();
            assert_goes_on(run, "nothing is accepted without one of three servers").await;
            for gateway in 0..2 {
                eventually("a gateway wants traffic all the same", async || {
                    let status = stage.readiness(gateway).await;
                    seen(status == Some(200), || format!("gateway {gateway} says {status:?}"))
                })
                .await;
            }
            stage.redis_cluster().server(victim).restart().await.unwrap();
        };
        acked += stage.amid(SPREAD, killed).await;
    }
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_traffic() {
    let mut stage = Stage::start(over_a_cluster(0)).await;
    let moved = async |stage: &mut Stage, _: &Run| {
        let slots = slots_of(stage, 0).await;
        assert!(slots.len() > 4, "{slots:?}");
        for slot in slots.into_iter().take(4) {
            stage.redis_cluster().move_slot(slot, 2).await.unwrap();
        }
    };
    let mut acked = stage.amid(SPREAD, moved).await;
    // And there they stay.
    acked += SPREAD.finish(stage.traffic(SPREAD).await).await.acked;
    stage.wait_stored(acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_the_place_of_a_primary_that_is_gone() {
    let mut stage = Stage::start(over_a_cluster(1)).await;
    let killed = async |stage: &mut Stage, _: &Run| {
        let slot = slots_of(stage, 0).await[0];
        stage.redis_cluster().server(0).kill9();
        eventually("the replica leads", async || {
            let owner = stage.redis_cluster().owner(slot).await;
            seen(matches!(owner, Ok(3)), || format!("{owner:?} has the slot"))
        })
        .await;
    };
    let acked = stage.amid(SPREAD, killed).await;
    stage.redis_cluster().server(0).restart().await.unwrap();
    stage.redis_cluster().wait_whole().await.unwrap();
    stage.wait_stored(acked).await;
}
