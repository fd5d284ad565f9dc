//! What a server says of itself at `/metrics`, in the text format of Prometheus.

use super::ProcessUse;
use crate::http::{self, HttpError};

/// What is of interest here.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfReport {
    /// CPU time and memory, by the names that all Prometheus clients use; `None` where the server does not tell them.
    pub usage: Option<ProcessUse>,
    /// How far the persister is behind, in seconds.
    pub lag_seconds: Option<f64>,
}

/// Reads the metrics at this address.
///
/// # Errors
/// When the address does not answer.
pub async fn scrape(url: &str) -> Result<SelfReport, HttpError> {
    Ok(read(url, &http::get_text(url).await?))
}

fn read(url: &str, text: &str) -> SelfReport {
    let values = |name: &str| {
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let named = lines.filter(|(series, _)| series.split('{').next() == Some(name));
        named.filter_map(|(_, value)| value.parse::<f64>().ok()).collect::<Vec<_>>()
    };
    let (cpu, rss) = (values("process_cpu_seconds_total"), values("process_resident_memory_bytes"));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of CPU time and bytes"
    )]
    let usage = cpu.first().zip(rss.first()).map(|(seconds, bytes)| ProcessUse {
        id: url.to_owned(),
        name: url.to_owned(),
        cpu_us: (seconds * 1e6) as u64,
        rss_kib: (bytes / 1_024.0) as u64,
        cores: None,
    });
    let lag_seconds = values("starling_persister_lag_seconds").into_iter().reduce(f64::max);
    SelfReport { usage, lag_seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_found_among_others() {
        let text = "# HELP x y\nprocess_cpu_seconds_total 1.5\nprocess_resident_memory_bytes 2048\n\
            starling_persister_lag_seconds{partition=\"1\"} 0.25\nstarling_persister_lag_seconds{partition=\"2\"} 2\n";
        let report = read("u", text);
        assert_eq!(report.lag_seconds, Some(2.0));
        assert_eq!(report.usage.map(|usage| (usage.cpu_us, usage.rss_kib)), Some((1_500_000, 2)));
        assert_eq!(read("u", ""), SelfReport { usage: None, lag_seconds: None });
    }
}
