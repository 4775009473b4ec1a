//! CPU time and memory of processes, from `/proc` (proc(5)).

use std::fs;

/// Clock ticks a second; 100 on every Linux that this runs on.
const TICKS: f64 = 100.0;

struct Stat {
    parent: u32,
    session: u32,
    own: f64,
    children: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    Some(Stat {
        parent: number(1)? as u32,
        session: number(3)? as u32,
        own: (number(11)? + number(12)?) / TICKS,
        children: (number(13)? + number(14)?) / TICKS,
    })
}

fn every() -> impl Iterator<Item = (u32, Stat)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
}

/// CPU-seconds that a process has used.
pub fn of_process(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.own)
}

/// CPU-seconds of a server with all of its processes, those that have ended included. A server's processes are those of
/// the session that it leads, and the children of its first process (PostgreSQL's have sessions of their own).
pub fn of_server(pid: u32) -> f64 {
    every()
        .filter(|(own, stat)| *own == pid || stat.session == pid || stat.parent == pid)
        .map(|(_, stat)| stat.own + stat.children)
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
