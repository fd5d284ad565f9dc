//! The way out: a signal, clients sent away a few at a time, tasks waited for.

use std::time::Duration;

use shared::domain::Disconnect;
use tokio::signal::unix::{Signal, SignalKind, signal as on};
use tokio_util::task::TaskTracker;

use crate::heartbeat::Heartbeat;

/// How long tasks get to end by themselves.
const TASKS_PATIENCE: Duration = Duration::from_secs(15);
/// How long clients that are sent away get for what they asked for before.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(5);
/// How often clients that came late are sent away meanwhile.
const SWEEP: Duration = Duration::from_millis(500);
/// Into how many steps the drain window is divided.
const DRAIN_STEPS: usize = 20;
/// The exit code after a second signal: as a shell says of a program ended by SIGINT.
const EXIT_AT_ONCE: i32 = 130;

/// Waits for SIGTERM or SIGINT, from the call on and not only once it is awaited: whoever sees this process answer may tell it to
/// stop. A second one ends the process at once.
pub fn signal() -> impl Future<Output = ()> {
    let watched = (on(SignalKind::terminate()), on(SignalKind::interrupt()));
    async move {
        match watched {
            (Ok(terminate), Ok(interrupt)) => told(terminate, interrupt).await,
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "cannot listen for signals: stop this process with SIGKILL");
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn told(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; once more to stop at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(EXIT_AT_ONCE);
    });
}

/// Closes every client with a code that tells it to come back, spread over the window so that they do not all do at once.
pub async fn send_away(heartbeat: &Heartbeat, window: Duration) {
    let mut clients = heartbeat.clients();
    let step = clients.len().div_ceil(DRAIN_STEPS).max(1);
    let pause = window / u32::try_from(DRAIN_STEPS).expect("it is small");
    while !clients.is_empty() {
        let rest = clients.split_off(step.min(clients.len()));
        for client in &clients {
            client.send_away();
        }
        clients = rest;
        if !clients.is_empty() {
            tokio::time::sleep(pause).await;
        }
    }
    // Those that came before the door was shut, and those that wait for answers.
    let last = heartbeat.clients();
    for client in &last {
        client.send_away();
    }
    let all_gone = async {
        for client in &last {
            client.outbox.closed().await;
        }
    };
    if tokio::time::timeout(ANSWERS_PATIENCE, all_gone).await.is_err() {
        for client in &last {
            client.close(Disconnect::Shutdown);
        }
    }
}

/// Waits for connections to end, now that no new ones come. Those that came while others were sent away follow them.
pub async fn wait_for_connections(connections: &TaskTracker, heartbeat: &Heartbeat) {
    let stragglers = async {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            sweep.tick().await;
            for client in heartbeat.clients() {
                client.close(Disconnect::Shutdown);
            }
        }
    };
    tokio::select! {
        () = wait(connections, "connections") => {}
        () = stragglers => {}
    }
}

/// Waits for tasks to end by themselves.
pub async fn wait(tasks: &TaskTracker, what: &str) {
    tasks.close();
    if tokio::time::timeout(TASKS_PATIENCE, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "{what} did not end in time");
    }
}
