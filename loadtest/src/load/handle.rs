//! A worker process as its parent sees it.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::Context;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
};

use super::plan::{Assignment, Look, Order, Said};
use crate::tally::{Counts, Timings};

/// A running worker. Dropping it ends it.
pub struct Worker {
    #[expect(dead_code, reason = "it is killed when it is dropped")]
    process: Child,
    orders: ChildStdin,
    /// What it has said.
    pub heard: Arc<Mutex<Heard>>,
    /// How many of its clients send.
    pub publishers: usize,
}

/// What a worker has said.
#[derive(Default)]
pub struct Heard {
    pub counts: Counts,
    pub timings: Timings,
    pub troubles: Vec<String>,
    /// Why no client will get in.
    pub hopeless: Option<String>,
    pub is_over: bool,
}

impl Worker {
    /// Starts it; its clients begin to connect at once.
    pub async fn start(plan: Assignment) -> anyhow::Result<Self> {
        let publishers = plan.seats.iter().filter(|seat| seat.publishes).count();
        let mut command = Command::new(std::env::current_exe()?);
        // In a group of its own, so that Ctrl-C at a terminal reaches the parent alone, which ends the run in order.
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let mut orders = process.stdin.take().context("stdin is piped")?;
        let said = process.stdout.take().context("stdout is piped")?;
        orders.write_all(format!("{}\n", serde_json::to_string(&plan)?).as_bytes()).await?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let listener = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut lines = BufReader::new(said).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                listener.lock().hear(&line);
            }
            listener.lock().is_over = true;
        });
        Ok(Self { process, orders, heard, publishers })
    }

    /// Tells it what to do.
    pub async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(order)?);
        self.orders.write_all(line.as_bytes()).await.context("a worker has ended")
    }
}

impl Heard {
    fn hear(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Said::Look(look)) => {
                let Look { counts, timings } = *look;
                self.counts = counts;
                self.timings.add(&timings);
            }
            Ok(Said::Trouble(trouble)) => self.troubles.push(trouble),
            Ok(Said::Hopeless(why)) => self.hopeless = Some(why),
            Err(error) => self.troubles.push(format!("a worker said {line}: {error}")),
        }
    }
}
