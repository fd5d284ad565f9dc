//! CPU time of processes, from `/proc`.

use anyhow::Context;

/// CPU seconds of this process.
pub fn own() -> anyhow::Result<f64> {
    of(&std::fs::read_to_string("/proc/self/stat")?).context("/proc/self/stat has no times")
}

/// CPU seconds of the children of a process that live.
pub fn children(parent: u32) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let of_parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1));
        if of_parent.is_some_and(|pid| pid == parent.to_string()) {
            seconds += of(&stat).unwrap_or_default();
        }
    }
    Ok(seconds)
}

/// User and system time of a process, from its `stat`; Linux counts them in hundredths of a second.
fn of(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2).map_while(|time| time.parse::<u32>().ok());
    Some(f64::from(times.next()? + times.next()?) / 100.0)
}
