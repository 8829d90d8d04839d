//! What the process uses of its machine, read from `/proc` at each scrape. Called by `Metrics`.
//! The names are those of Prometheus's own client libraries.

use std::fmt::Write;
use std::fs;

/// Prometheus's text format 0.0.4; without what can't be read, so empty where there is no `/proc`.
pub(super) fn render() -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    text(&read("stat"), &read("status"), &read("limits"), open_files)
}

fn text(stat: &str, status: &str, limits: &str, open_files: u64) -> String {
    let metrics = [
        ("process_cpu_seconds_total", "counter", "CPU time, user and system", cpu_seconds(stat)),
        ("process_resident_memory_bytes", "gauge", "resident memory", resident_bytes(status)),
        ("process_open_fds", "gauge", "open file descriptors", Some(open_files.to_string())),
        ("process_max_fds", "gauge", "limit of open file descriptors", max_files(limits)),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in metrics {
        if let Some(value) = value {
            // Writing to a String can't fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    }
    text
}

/// The second field of `/proc/self/stat` is the program's name in parentheses, which may itself
/// contain spaces and parentheses (proc_pid_stat(5)).
fn cpu_seconds(stat: &str) -> Option<String> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(UTIME - 3);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = user + system;
    Some(format!("{}.{:02}", ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND))
}

fn resident_bytes(status: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((kibibytes * 1024).to_string())
}

fn max_files(limits: &str) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let limit: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(limit.to_string())
}

/// Number of the field with the user time in `/proc/self/stat`; the system time follows.
const UTIME: usize = 14;
/// USER_HZ, in which Linux gives times to programs: 100 on every platform that Rust supports well.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 500 0 1 0 1234 71 0 0 20 0 9 0 5 8 9";
        let status = "Name:\ta\nVmHWM:\t  900 kB\nVmRSS:\t    20 kB\nThreads:\t9\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 20000                files\n";
        let text = text(stat, status, limits, 12);
        for line in [
            "# TYPE process_cpu_seconds_total counter",
            "process_cpu_seconds_total 13.05",
            "process_resident_memory_bytes 20480",
            "process_open_fds 12",
            "process_max_fds 1024",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        for stat in ["", "7 (a", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194560 500 0 1 0 x 71"] {
            assert_eq!(cpu_seconds(stat), None, "{stat}");
        }
        assert_eq!(resident_bytes("VmRSS:\t many kB"), None);
        assert_eq!(max_files("Max open files            unlimited            unlimited"), None);
    }
}
