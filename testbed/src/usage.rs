//! CPU time and memory of processes, read from `/proc` (proc(5)).
//!
//! A process that does not exist, or has exited, uses 0 seconds and 0 MiB.

use std::fs;

/// Clock ticks per second; 100 on every supported Linux.
const TICKS: f64 = 100.0;

struct Stat {
    parent: u32,
    session: u32,
    cpu_seconds: f64,
    children_cpu_seconds: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may contain spaces and parentheses.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    Some(Stat {
        parent: number(1)? as u32,
        session: number(3)? as u32,
        cpu_seconds: (number(11)? + number(12)?) / TICKS,
        children_cpu_seconds: (number(13)? + number(14)?) / TICKS,
    })
}

fn all_processes() -> impl Iterator<Item = (u32, Stat)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
}

/// CPU time of a process in seconds.
pub fn of_process(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.cpu_seconds)
}

/// CPU time of a server in seconds, including its processes that have exited. The processes of a
/// server are those of its session and the children of its first process (the children of
/// PostgreSQL have their own sessions).
pub fn of_server(pid: u32) -> f64 {
    all_processes()
        .filter(|(id, stat)| *id == pid || stat.session == pid || stat.parent == pid)
        .map(|(_, stat)| stat.cpu_seconds + stat.children_cpu_seconds)
        .sum()
}

/// Resident memory of a process in MiB.
pub fn memory_mib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}
