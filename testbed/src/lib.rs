//! For tests and benchmarks only: private servers, watched processes and a faulty TCP proxy.
//!
//! Each module starts one kind of program. Everything listens on loopback, on free ports, and keeps
//! its files in a temporary directory. Nothing outlives the process that started it, however that
//! process ends: see [`node`] for servers and [`process`] for programs under test.

pub mod faulty_proxy;
pub mod haproxy;
pub mod node;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod rabbitmq;
pub mod usage;
pub mod wait;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports that are handed out. The system takes those of outgoing connections from 32768 on, so
/// that no connection of a test takes a port before its server listens on it.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A port of loopback that is free now, and that this process has not handed out lately.
///
/// # Errors
/// No port is free.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes that run at the same time begin at different ports.
    let begin = std::process::id().wrapping_mul(977);
    for _ in 0..count {
        let next = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(next).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

/// The path of a program: on `PATH`, or in one of the directories that packages install to. A `*`
/// in such a directory stands for a version; the last version wins.
///
/// # Errors
/// The program is not installed; the error names the script that installs it.
pub fn find(program: &str, search_paths: &[&str]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for search_path in search_paths {
        match search_path.split_once("/*/") {
            None => directories.push(search_path.into()),
            Some((parent, rest)) => {
                let mut versions: Vec<_> = std::fs::read_dir(parent)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
                    .collect();
                versions.sort();
                directories.extend(versions.into_iter().rev().map(|version| version.join(rest)));
            }
        }
    }
    directories
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            anyhow::anyhow!(
                "{program} was not found; 'scripts/setup.sh' installs the missing programs"
            )
        })
}
