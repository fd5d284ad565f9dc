//! CPU time of processes, in seconds.

use loadtest::usage::cpu_us;

/// CPU seconds of a process since its start.
#[expect(clippy::cast_precision_loss, reason = "a benchmark's CPU time is far below 2^52 microseconds")]
pub fn of(pid: u32) -> std::io::Result<f64> {
    Ok(cpu_us(pid)? as f64 / 1e6)
}

/// CPU seconds of the children of a process that live.
pub fn children(parent: u32) -> std::io::Result<f64> {
    let pids = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    // A child may have ended meanwhile.
    Ok(pids.split_whitespace().filter_map(|pid| of(pid.parse().ok()?).ok()).sum())
}
