//! For tests and benchmarks only: private PostgreSQL, RabbitMQ and HAProxy nodes, processes that are watched, and a faulty TCP link.
//!
//! Everything listens on loopback, on free ports, and keeps its files in a temporary folder. Nothing outlives the process
//! that started it, however that ends: see [`node`].

pub mod haproxy;
pub mod link;
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

/// A port that is free now.
///
/// # Errors
/// Loopback has none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where a program is: on PATH, or in one of the places where packages put it. A `*` in a place stands for a version; of
/// several the last counts.
///
/// # Errors
/// It is nowhere; the error says how to get it.
pub fn find(program: &str, places: &[&str]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for place in places {
        match place.split_once("/*/") {
            None => folders.push(place.into()),
            Some((parent, rest)) => {
                let mut versions: Vec<_> = std::fs::read_dir(parent)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
                    .collect();
                versions.sort();
                folders.extend(versions.into_iter().rev().map(|version| version.join(rest)));
            }
        }
    }
    folders
        .into_iter()
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            anyhow::anyhow!("{program} was not found; 'scripts/setup.sh' installs what is missing")
        })
}
