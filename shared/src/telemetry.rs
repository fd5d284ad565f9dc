//! What a process says about itself: its log on stderr, and its metrics for Prometheus.
//!
//! May use: nothing of this project. Deliberately absent: the names of metrics (each room names its own), and serving them.

use std::{fs, io::IsTerminal, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// Upper bounds of the histogram buckets of every metric whose name ends in `_seconds`, in seconds.
const SECONDS_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// `USER_HZ`, by which Linux counts the CPU time of a process: it is this number on every platform that Linux has.
const TICKS_PER_SECOND: f64 = 100.0;
/// How often the histograms are emptied into their buckets, so that their memory stays bounded when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Writes the log to stderr. `RUST_LOG` filters it; without it, `info` and above are written.
///
/// Does nothing when the process has a log already.
pub fn init_tracing(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    // A second call can only come from a test that starts several parts in one process; the first log serves them all.
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// Collects every metric of this process from now on. To be called once in a process.
///
/// # Errors
/// When the process collects metrics already.
pub fn install_metrics() -> Result<MetricsHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .install_recorder()
        .map(MetricsHandle)
}

/// The metrics of this process.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// The metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render() + &own_use().unwrap_or_default()
    }

    /// Keeps the memory of the metrics bounded. Runs for ever; some task of the process must run it.
    pub async fn upkeep(&self) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// What this process uses, by the names that the clients of Prometheus share; `None` where there is no `/proc`.
fn own_use() -> Option<String> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; 11 fields stand between it and the two times.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|time| time.parse::<u32>().ok());
    let seconds = f64::from(times.next()? + times.next()?) / TICKS_PER_SECOND;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().trim_end_matches(" kB");
    let bytes = kib.parse::<u64>().ok()? * 1_024;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // A number, or the word `unlimited`.
    let files_max = files.split_whitespace().next()?.replace("unlimited", "+Inf");
    // The one that reads the list is in it.
    let files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(format!(
        "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {seconds}\n\
         # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n\
         # TYPE process_open_fds gauge\nprocess_open_fds {files}\n\
         # TYPE process_max_fds gauge\nprocess_max_fds {files_max}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_in_buckets_and_a_second_recorder_is_refused() {
        let metrics = install_metrics().unwrap();
        metrics::histogram!("starling_test_seconds").record(0.002);
        metrics::counter!("starling_test_total").increment(3);
        let text = metrics.render();
        assert!(text.contains("starling_test_seconds_bucket{le=\"0.001\"} 0"), "{text}");
        assert!(text.contains("starling_test_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("starling_test_total 3"), "{text}");
        let own =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(own("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6), "{text}");
        assert!(own("process_cpu_seconds_total").is_some(), "{text}");
        // Its three standard streams at least, or what they are led to.
        let (files, files_max) = (own("process_open_fds").unwrap(), own("process_max_fds").unwrap());
        assert!(files >= 3.0 && files_max > files, "{text}");
        assert!(install_metrics().is_err());
    }
}
