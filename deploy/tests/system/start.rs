//! A gateway that is started before what it needs: it waits, says so, and can be told to stop.

use deploy::{Process, Program, binary, free_port, http_get};

use crate::support::{PATIENCE, SECRET, Stage, connect, eventually, seen};

/// One more gateway of the cluster, whatever of the cluster runs.
struct Newcomer {
    process: Process,
    url: String,
    health_url: String,
}

impl Newcomer {
    fn start(stage: &Stage, name: &str) -> Self {
        let (port, health) = (free_port().unwrap(), free_port().unwrap());
        let program = Program::new(name, binary("gateway").unwrap())
            .env("STARLING_LISTEN", format!("127.0.0.1:{port}"))
            .env("STARLING_HEALTH_LISTEN", format!("127.0.0.1:{health}"))
            .env("STARLING_TOKEN_HMAC_SECRET", SECRET)
            .env("STARLING_DRAIN_DELAY_SECONDS", "0")
            .env("REDIS_URL", stage.redis_url())
            .env("DATABASE_URL", stage.database_url());
        let process = Process::spawn(&program, stage.log_dir()).unwrap();
        let [url, health_url] = [port, health].map(|port| format!("http://127.0.0.1:{port}"));
        Self { process, url, health_url }
    }

    /// Waits until it says that it is ready, or that it is not and why.
    async fn says(&self, status: u16, reason: &str) {
        let url = format!("{}/readyz", self.health_url);
        eventually(reason, async || {
            let answer = http_get(&url).await.map_err(|error| error.to_string())?;
            seen(answer.status == status && answer.body.contains(reason), || answer.body)
        })
        .await;
    }

    async fn stop(mut self) {
        self.process.terminate();
        let status = self.process.wait_exit(PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_waits_for_redis_and_postgres_and_can_be_stopped_meanwhile() {
    let mut stage = Stage::start(|_| {}).await;
    stage.redis().stop().await.unwrap();
    let early = Newcomer::start(&stage, "early");
    early.says(503, "starting").await;
    early.stop().await;

    let patient = Newcomer::start(&stage, "patient");
    patient.says(503, "starting").await;
    stage.postgres().stop().await.unwrap();
    stage.redis().restart().await.unwrap();
    let late = Newcomer::start(&stage, "late");
    late.says(503, "starting").await;
    stage.postgres().restart().await.unwrap();
    for newcomer in [patient, late] {
        newcomer.says(200, "ready").await;
        let (client, _pushes) = connect(&newcomer.url, "alice").await.unwrap();
        eventually("it takes messages", async || {
            let sent =
                client.send("conv_alice_bob", newcomer.process.name(), r#"{"text":"hello"}"#, true).await;
            sent.map(drop).map_err(|error| error.to_string())
        })
        .await;
        newcomer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_ends_it_at_once_with_the_setting_at_fault() {
    for (name, value, cluster) in [
        ("REDIS_URL", "no url", true),
        ("DATABASE_URL", "no url", true),
        ("STARLING_CONNECTIONS_MAX", "0", false),
        ("STARLING_PROBE_SECONDS", "0", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let port = || format!("127.0.0.1:{}", free_port().unwrap());
        let mut program = Program::new("wrong", binary("gateway").unwrap())
            .env("STARLING_LISTEN", port())
            .env("STARLING_HEALTH_LISTEN", port())
            .env("STARLING_DATA_DIR", dir.path())
            .env("STARLING_TOKEN_HMAC_SECRET", SECRET);
        if cluster {
            program = program.env("REDIS_URL", format!("redis://{}", port()));
            program = program.env("DATABASE_URL", format!("postgres://{}/none", port()));
        }
        let mut process = Process::spawn(&program.env(name, value), dir.path()).unwrap();
        let status = process.wait_exit(PATIENCE).await.unwrap();
        let log = std::fs::read_to_string(process.log_path()).unwrap().to_lowercase();
        let setting = name.trim_start_matches("STARLING_").to_lowercase();
        assert!(!status.success() && log.contains(&setting), "{name}: {status}: {log}");
    }
}
