//! What processes use: CPU time by their clocks, memory from `/proc`, and what a server says of itself in its metrics.
//!
//! Deliberately absent: systems other than Linux, where a server is known by its metrics alone.

mod scrape;

pub use scrape::{SelfReport, scrape};

use std::{fs, io};

use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// `USER_HZ`, by which Linux counts the CPU time of the whole machine: it is this number on every platform that Linux has.
const TICKS_PER_SECOND: u64 = 100;

/// What one process had used at some moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// Its pid, or the address of its metrics.
    pub id: String,
    /// The program.
    pub name: String,
    /// CPU time since its start, in user mode and in the kernel, in microseconds.
    pub cpu_us: u64,
    /// Memory that it has in RAM, in KiB.
    pub rss_kib: u64,
    /// Cores that it may use, where that can be seen.
    pub cores: Option<usize>,
}

/// What the whole machine had used at some moment, in microseconds of CPU time of all its cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineUse {
    /// Nothing to do.
    pub idle_us: u64,
    /// Everything.
    pub total_us: u64,
}

/// What a process uses now.
///
/// # Errors
/// When there is no such process.
pub fn process(pid: u32) -> io::Result<ProcessUse> {
    let cpu_us = cpu_us(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let (rss, cores) = (field("VmRSS:"), field("Cpus_allowed_list:").and_then(count_of_list));
    let rss_kib = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    let name = field("Name:").unwrap_or_default().trim().to_owned();
    Ok(ProcessUse { id: pid.to_string(), name, cpu_us, rss_kib, cores })
}

/// CPU time of a process since its start, in user mode and in the kernel, in microseconds. Of its own clock, since
/// `/proc` tells only whole hundredths of a second.
///
/// # Errors
/// When there is no such process.
pub fn cpu_us(pid: u32) -> io::Result<u64> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?;
    let time = clock_gettime(clock_getcpuclockid(Pid::from_raw(pid))?)?;
    let (seconds, nanoseconds) = (time.tv_sec(), time.tv_nsec());
    Ok(u64::try_from(seconds * 1_000_000 + nanoseconds / 1_000).unwrap_or_default())
}

/// How many numbers a list such as `0-3,8` has.
fn count_of_list(list: &str) -> Option<usize> {
    let part = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?).map(|more| more + 1)
    };
    list.split(',').map(part).sum()
}

/// What the machine has used.
///
/// # Errors
/// Where there is no `/proc/stat`.
pub fn machine() -> io::Result<MachineUse> {
    let stat = fs::read_to_string("/proc/stat")?;
    let times: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    let us = |ticks: u64| ticks * 1_000_000 / TICKS_PER_SECOND;
    // user nice system idle iowait irq softirq steal; what follows is part of user.
    let idle = times.iter().skip(3).take(2).sum();
    Ok(MachineUse { idle_us: us(idle), total_us: us(times.iter().take(8).sum()) })
}

/// CPU time of this process's first thread, and the time for which it was ready to run and had no CPU, in microseconds.
///
/// # Errors
/// Where the kernel does not keep such numbers.
pub fn own_thread() -> io::Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/self/schedstat")?;
    let mut times = stat.split_whitespace().map_while(|time| time.parse::<u64>().ok());
    match (times.next(), times.next()) {
        (Some(ran), Some(waited)) => Ok((ran / 1_000, waited / 1_000)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What the machine is: for the head of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor.
    pub processor: String,
    /// Its cores.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        // What this process may use may be less.
        let cores = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: cores.max(std::thread::available_parallelism().map_or(1, usize::from)),
            memory_mib: memory.trim_end_matches(" kB").parse().unwrap_or(0) / 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_machine_are_seen() {
        let own = process(std::process::id()).unwrap();
        assert!(own.rss_kib > 100 && own.cores.is_some() && !own.name.is_empty(), "{own:?}");
        let tick_us = 1_000_000 / TICKS_PER_SECOND;
        let is_finer_than_ticks = |_| !cpu_us(std::process::id()).unwrap().is_multiple_of(tick_us);
        assert!((0..1_000).any(is_finer_than_ticks));
        assert_eq!(
            (count_of_list("\t0-3,8"), count_of_list("5"), count_of_list("")),
            (Some(5), Some(1), None)
        );
        let machine = machine().unwrap();
        assert!(machine.total_us > machine.idle_us);
        assert!(own_thread().is_ok());
        assert!(Machine::here().cores > 0);
        assert!(process(u32::MAX).is_err());
    }
}
