//! One child process: its output goes to a file, and it never outlives the one who started it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::Program;

/// How much of a log's end an error shows.
const LOG_TAIL_BYTES_MAX: u64 = 16 * 1024;
const LOG_TAIL_LINES_MAX: usize = 60;
/// Pause between two looks at whether something has happened.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A running (or ended) child in a process group of its own. Dropping it kills the group.
///
/// If this process is killed itself, the child goes with it, where `setpriv` of util-linux 2.33 or newer is installed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` in `dir`, which also gets its output, as `NAME.log`. An existing log is continued, so that it
    /// survives a restart.
    ///
    /// # Errors
    /// When the program cannot be started or the log cannot be written.
    pub fn spawn(program: &Program, dir: &Path) -> Result<Self> {
        ensure!(program.path.is_file(), "{} does not exist", program.path.display());
        let log = dir.join(format!("{}.log", program.name));
        let output = OpenOptions::new().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the log's file")?;
        let mut command = command(program, *DIES_WITH_PARENT);
        command.current_dir(dir).process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = on_lasting_thread(move || command.spawn());
        let child = child.with_context(|| format!("cannot start {}", program.path.display()))?;
        Ok(Self { name: program.name.clone(), log, child })
    }

    /// The name under which it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, which is also that of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the whole process group, as a crash would, and returns when the process is gone.
    pub fn kill9(&mut self) {
        if self.is_running() {
            signal("KILL", &[format!("-{}", self.pid())]);
        }
        // `setpriv` may not have been replaced by the program yet, but process and group are the same either way; an error
        // here says that the process is gone already, which is what is wanted.
        let _ = self.child.wait();
    }

    /// Sends SIGTERM. [`Self::wait_exit`] tells when it has worked.
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// Sends SIGSTOP: the process hangs, with its sockets open, until [`Self::cont`].
    pub fn stop_signal(&mut self) {
        self.signal("STOP");
    }

    /// Sends SIGCONT.
    pub fn cont(&mut self) {
        self.signal("CONT");
    }

    /// Sends the signal `name` (without `SIG`) to the process itself, not to its children.
    pub(crate) fn signal(&mut self, name: &str) {
        // A process that has ended may have given its id to another one.
        if self.is_running() {
            signal(name, &[self.pid().to_string()]);
        }
    }

    /// Waits until it has ended by itself or by a signal.
    ///
    /// # Errors
    /// When it still runs after `timeout`; the process is left as it is.
    pub async fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot ask for a child's state")? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {timeout:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until `check` is true.
    ///
    /// # Errors
    /// When the process ends meanwhile, or after `timeout`. Both show the end of its log.
    pub async fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut check: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !check().await {
            if let Some(status) = self.child.try_wait().context("cannot ask for a child's state")? {
                bail!("{} ended ({status}) before it was {what}\n{}", self.name, self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("{} was not {what} after {timeout:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Resident memory of the process in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rss_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("{path} has no VmRSS: {} has ended", self.name))
    }

    /// The file that has its standard output and standard error.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output, under a line that names it.
    pub fn log_tail(&self) -> String {
        let text = tail(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        format!("--- last output of {} ---\n{text}\n---", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Sends a signal to processes, or to groups, whose ids have a minus sign. The shell has its own `kill`; a program of that name
/// is missing on small systems. A target that is gone already is no error: there is nothing left to signal.
pub(crate) fn signal(name: &str, targets: &[String]) {
    let _ = Command::new("/bin/sh")
        .args(["-c", r#"s=$1; shift; kill -s "$s" -- "$@""#, "kill", name])
        .args(targets)
        .stderr(Stdio::null())
        .status();
}

/// Whether `setpriv` can make a child die with its parent.
static DIES_WITH_PARENT: LazyLock<bool> = LazyLock::new(|| {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
});

fn command(program: &Program, dies_with_parent: bool) -> Command {
    let mut wrapper = Vec::new();
    if dies_with_parent {
        wrapper.extend(["--pdeathsig".to_owned(), "KILL".to_owned()]);
    }
    if let Some(user) = &program.user {
        wrapper.extend([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
    }
    let mut command = if wrapper.is_empty() {
        Command::new(&program.path)
    } else {
        let mut command = Command::new("setpriv");
        command.args(wrapper).arg("--").arg(&program.path);
        command
    };
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("STARLING_") || name == "REDIS_URL" || name == "DATABASE_URL" {
            command.env_remove(&*name);
        }
    }
    command.args(&program.args).envs(program.env.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs a program to its end.
///
/// # Errors
/// When it fails; the error has what it printed.
pub(crate) async fn run(program: &Program, dir: &Path) -> Result<()> {
    let mut command = tokio::process::Command::from(command(program, false));
    let output = command.current_dir(dir).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot start {}", program.path.display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({})\n{}{}",
        program.name,
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

type Job = Box<dyn FnOnce() + Send>;

/// Linux ties "dies with its parent" to the parent's thread, not to its process, and a test's thread ends with the test,
/// which must not end a server that several tests share. So children are started by a thread that lasts as long as the
/// process; nothing joins it.
static LASTING_THREAD: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    let run = move || queue.into_iter().for_each(|job| job());
    thread::Builder::new().name("spawner".to_owned()).spawn(run).expect("a process can have one more thread");
    jobs
});

fn on_lasting_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, result) = mpsc::sync_channel(1);
    let job = move || {
        let _ = answer.send(job());
    };
    LASTING_THREAD.send(Box::new(job)).expect("the thread never ends");
    result.recv().expect("the job answers")
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES_MAX)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far above what any of these steps takes; only a failure waits for it.
    const TIMEOUT: Duration = Duration::from_mins(2);

    fn shell(script: &str) -> Program {
        Program::new("script", "/bin/sh").arg("-c").arg(script)
    }

    fn exists(pid: u32) -> bool {
        Path::new("/proc").join(pid.to_string()).exists()
    }

    #[tokio::test]
    async fn output_and_exit_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut process =
            Process::spawn(&shell("echo $WORD; echo err >&2; exit 3").env("WORD", "out"), dir.path())
                .unwrap();
        let status = process.wait_exit(TIMEOUT).await.unwrap();
        assert_eq!(status.code(), Some(3));
        let tail = process.log_tail();
        assert!(tail.contains("out") && tail.contains("err"), "{tail}");
    }

    #[tokio::test]
    async fn an_early_end_shows_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::spawn(&shell("echo no such port; exit 1"), dir.path()).unwrap();
        let error = process.wait_until("ready", TIMEOUT, async || false).await.unwrap_err().to_string();
        assert!(error.contains("no such port"), "{error}");
    }

    #[tokio::test]
    async fn kill9_takes_the_children_along() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; sleep 1000 & echo $! > child; wait; wait";
        let mut process = Process::spawn(&shell(script), dir.path()).unwrap();
        let child_file = dir.path().join("child");
        let read = || std::fs::read_to_string(&child_file).ok()?.trim().parse::<u32>().ok();
        process.wait_until("running", TIMEOUT, async || read().is_some()).await.unwrap();
        let child = read().unwrap();
        assert!(exists(child) && process.rss_kib().unwrap() > 0);
        process.terminate();
        assert!(process.is_running());
        process.kill9();
        assert!(!process.is_running() && process.rss_kib().is_err());
        // The grandchild is reaped by init, which takes its own time.
        let gone =
            || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
        let deadline = Instant::now() + TIMEOUT;
        while gone() {
            assert!(Instant::now() < deadline, "the grandchild still runs");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    #[tokio::test]
    async fn a_stopped_process_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let script = shell("until [ -e go ]; do sleep 0.01; done; exit 7");
        let mut process = Process::spawn(&script, dir.path()).unwrap();
        process.stop_signal();
        let stat = format!("/proc/{}/stat", process.pid());
        let is_stopped = async || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T"));
        process.wait_until("stopped", TIMEOUT, is_stopped).await.unwrap();
        std::fs::write(dir.path().join("go"), "").unwrap();
        assert!(process.wait_exit(POLL_INTERVAL * 20).await.is_err());
        process.cont();
        assert_eq!(process.wait_exit(TIMEOUT).await.unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(&shell("exec sleep 1000"), dir.path()).unwrap();
        let pid = process.pid();
        assert!(exists(pid));
        drop(process);
        assert!(!exists(pid));
    }

    #[tokio::test]
    async fn a_process_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let spawn = move || Process::spawn(&shell("exec sleep 1000"), &path).unwrap();
        let mut process = thread::spawn(spawn).join().unwrap();
        assert!(process.wait_exit(POLL_INTERVAL * 20).await.is_err());
    }
}
