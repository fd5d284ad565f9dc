//! All clients of a node that died come to the other one at once: all resume, and whoever was there before is served on.
//! How long it took, and what the others noticed, is printed and not judged: both are the machine's as much as the node's.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use loadtest::{
    client::{Client, ClientError},
    session::{Identity, ResumingReader},
    token::TokenSource,
    usage,
};
use parking_lot::Mutex;
use tokio::{
    runtime::Runtime,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use crate::support::{SECRET, Stage, connect, eventually, seen};

/// How many come, unless `STARLING_STORM_CLIENTS` says otherwise.
const CLIENTS: usize = 2_000;
/// How many connect at the same time while nothing is broken yet, and how many are written to.
const CALM: usize = 64;
/// What those who are not concerned say before the storm, to compare with.
const CALM_MESSAGES: usize = 500;
/// Pause between two of their messages.
const TALK_PAUSE: Duration = Duration::from_millis(10);
/// How often it is looked who has come back.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Far above what it takes; only a failure waits for it.
const STORM_PATIENCE: Duration = Duration::from_mins(3);
const BODY: &str = r#"{"text":"hello"}"#;
/// Where those talk who are not concerned.
const OTHERS: &str = "conv_alice_bob";

fn clients() -> usize {
    std::env::var("STARLING_STORM_CLIENTS").map_or(CLIENTS, |clients| clients.parse().unwrap())
}

/// A direct conversation with the one who writes to all.
fn conversation(number: usize) -> String {
    format!("conv_u{number:05}_writer")
}

fn identity(urls: Vec<String>, user: &str, conversation: &str) -> Identity {
    let tokens = TokenSource::Secret(SECRET.to_owned());
    Identity { urls, tokens, user: user.to_owned(), conversation: conversation.to_owned() }
}

/// Readers at the first node, each in a conversation of its own.
async fn gather(urls: &[String]) -> Vec<ResumingReader> {
    let (calm, mut starting) = (Arc::new(Semaphore::new(CALM)), JoinSet::new());
    for number in 0..clients() {
        let (calm, identity) =
            (calm.clone(), identity(urls.to_vec(), &format!("u{number:05}"), &conversation(number)));
        starting.spawn(async move {
            let _turn = calm.acquire().await.unwrap();
            ResumingReader::start(identity.user.clone(), identity).await.unwrap()
        });
    }
    starting.join_all().await
}

/// Sends until it is answered: on a machine that is busy with its clients, an answer may take longer than one waits for it.
async fn send(client: &Client, conversation: &str, client_id: &str) -> u64 {
    let mut retry = false;
    loop {
        match client.send(conversation, client_id, BODY, retry).await {
            Ok(sent) => return sent.seq,
            Err(error) if error != ClientError::Closed && !error.is_definite() => retry = true,
            Err(error) => panic!("{conversation}: {error}"),
        }
    }
}

/// One message to each conversation, so many at the same time.
async fn write_to_all(writer: &Client, name: &str, at_once: usize) {
    let sends = stream::iter(0..clients())
        .map(|number| async move { send(writer, &conversation(number), name).await })
        .buffer_unordered(at_once);
    sends.for_each(|_| std::future::ready(())).await;
}

/// Waits until all have so many messages; returns after how long half, 99 of 100, and all of them had.
async fn all_have(readers: &[ResumingReader], count: usize) -> [Duration; 3] {
    let began = Instant::now();
    let mut took = [None; 3];
    let marks = [readers.len().div_ceil(2), (readers.len() * 99).div_ceil(100), readers.len()];
    while took[2].is_none() {
        let have = readers.iter().filter(|reader| reader.count() >= count).count();
        for (took, mark) in took.iter_mut().zip(marks) {
            if have >= mark {
                took.get_or_insert(began.elapsed());
            }
        }
        let missing = readers.len() - have;
        assert!(began.elapsed() < STORM_PATIENCE, "{missing} of {} wait for message {count}", readers.len());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    took.map(Option::unwrap)
}

/// Two who are not concerned: alice says one thing after another, and notes how long each answer takes.
struct Talk {
    is_over: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Duration>>>,
    talking: JoinHandle<u64>,
    /// Its own, so that what is noted is not how long those who come back keep this process busy.
    runtime: Runtime,
}

impl Talk {
    fn start(url: String) -> Self {
        let (is_over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (over, noted) = (is_over.clone(), answers.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let talking = runtime.spawn(async move {
            let alice = connect(&url, "alice").await.unwrap().0;
            let mut said = 0;
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                said = send(&alice, OTHERS, &said.to_string()).await;
                noted.lock().push(asked.elapsed());
                tokio::time::sleep(TALK_PAUSE).await;
            }
            said
        });
        Self { is_over, answers, talking, runtime }
    }

    /// How long the answers took that have come since this was asked last, sorted.
    fn answers(&self) -> Vec<Duration> {
        let mut answers = std::mem::take(&mut *self.answers.lock());
        answers.sort_unstable();
        answers
    }

    /// Returns the last seq.
    async fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let said = self.talking.await.unwrap();
        self.runtime.shutdown_background();
        said
    }
}

/// The parts of the system that have a share in every reconnect, by their processes.
struct Parts([(&'static str, u32); 3]);

impl Parts {
    fn of(stage: &mut Stage) -> Self {
        let (redis, postgres) = (stage.redis().process().pid(), stage.postgres().process().pid());
        Self([("gateway", stage.gateway(1).pid()), ("Redis", redis), ("Postgres", postgres)])
    }

    /// CPU time so far, in microseconds, of each process that belongs to a part: its own and its children.
    fn cpu_us(&self) -> [HashMap<u32, u64>; 3] {
        self.0.map(|(_, parent)| {
            let path = format!("/proc/{parent}/task/{parent}/children");
            let children = std::fs::read_to_string(path).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            let all = std::iter::once(parent).chain(children);
            // A child may end at any moment.
            all.filter_map(|pid| Some((pid, usage::process(pid).ok()?.cpu_us))).collect()
        })
    }

    /// Tells what each has spent since for every client.
    fn report(&self, when: &str, before: &[HashMap<u32, u64>; 3]) {
        let spent = self.cpu_us().into_iter().zip(before).zip(self.0).map(|((now, before), (name, _))| {
            let spent: u64 =
                now.iter().map(|(pid, us)| us.saturating_sub(before.get(pid).copied().unwrap_or(0))).sum();
            format!("{name} {}", spent / clients() as u64)
        });
        eprintln!("CPU µs for each client, {when}: {}", spent.collect::<Vec<_>>().join(", "));
    }
}

/// So many of a hundred took no longer; the list is sorted.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn report([half, most, all]: [Duration; 3], calm: &[Duration], storm: &[Duration]) {
    let clients = clients();
    eprintln!("{clients} clients came back: half in {half:.1?}, 99 % in {most:.1?}, all in {all:.1?}");
    for (name, answers) in [("before", calm), ("meanwhile", storm)] {
        let (half, most) = (percentile(answers, 50), percentile(answers, 99));
        eprintln!("others {name}: {} messages, half in {half:.1?}, 99 % in {most:.1?}", answers.len());
    }
    let ratio = percentile(storm, 99).as_secs_f64() / percentile(calm, 99).as_secs_f64();
    eprintln!("others: 99 % took {ratio:.1} times as long as before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_dead_node_come_back_at_once() {
    let mut stage = Stage::start(|options| {
        // All of them come from one address, and more than them are here.
        let name = "STARLING_CONNECTIONS_PER_ADDRESS_MAX".to_owned();
        options.gateway_env.push((name, (2 * clients()).to_string()));
    })
    .await;
    let (urls, survivor) = (stage.gateway_urls(), stage.gateway_url(1));
    let readers = gather(&urls).await;
    // Who does not look at what is pushed must not hold it up either.
    let writer = connect(&survivor, "writer").await.unwrap().0;
    write_to_all(&writer, "first", CALM).await;
    all_have(&readers, 1).await;

    let bob = ResumingReader::start("bob".to_owned(), identity(vec![survivor.clone()], "bob", OTHERS));
    let mut bob = bob.await.unwrap();
    let talk = Talk::start(survivor);
    eventually("they talk", async || seen(bob.count() > CALM_MESSAGES, || bob.count().to_string())).await;
    let calm = talk.answers();

    // It holds its clients and serves none: this they miss, and must be given when they resume.
    stage.gateway(0).stop_signal();
    write_to_all(&writer, "second", CALM).await;
    talk.answers();
    let before = bob.count();
    let parts = Parts::of(&mut stage);
    let spent = parts.cpu_us();
    stage.kill_gateway(0);
    let storm = async {
        let took = all_have(&readers, 2).await;
        parts.report("when all had come back", &spent);
        (took, talk.answers(), bob.count() - before)
    };
    let ((took, storm, meanwhile), ()) = tokio::join!(storm, write_to_all(&writer, "third", 1));
    all_have(&readers, 3).await;
    assert!(meanwhile > 0 && !storm.is_empty(), "others were starved");
    // What others are told of those who have come back takes longer.
    parts.report("when all had one more message", &spent);
    report(took, &calm, &storm);

    let said = talk.end().await;
    assert!(bob.wait_for(said, STORM_PATIENCE).await);
    let record = bob.stop().await;
    assert_eq!(record.reconnects, 0, "others were sent away");
    let heard: Vec<u64> = record.received.iter().map(|entry| entry.seq).collect();
    assert_eq!(heard, (record.from + 1..=said).collect::<Vec<_>>());
    for reader in readers {
        let record = reader.stop().await;
        let seqs: Vec<u64> = record.received.iter().map(|entry| entry.seq).collect();
        assert_eq!((seqs.as_slice(), record.limited), ([1, 2, 3].as_slice(), 0), "{}", record.name);
    }
}
