//! A private HAProxy in front of several front ends.
//!
//! In: HTTP requests to one address. Out: each request to the server with the fewest connections.
//! HAProxy ends with the process that started it.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::node::Node;
use crate::{find, free_port, wait};

const SEARCH_PATHS: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
const LIMIT: Duration = Duration::from_secs(30);

/// A load balancer that gives each request to the server with the fewest connections.
#[derive(Debug)]
pub struct HaProxy {
    node: Node,
    address: String,
}

impl HaProxy {
    /// Starts HAProxy in front of these addresses (`host:port`).
    ///
    /// # Errors
    /// HAProxy is not installed, or does not start.
    pub fn start(servers: &[String]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gridwatch-haproxy-")
            .tempdir()?
            .keep();
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut config = format!(
            concat!(
                "global\n  maxconn 4000\n",
                "defaults\n  mode http\n  option http-keep-alive\n  timeout connect 5s\n",
                "  timeout client 75s\n  timeout server 75s\n",
                "frontend readings\n  bind {address}\n  default_backend front-ends\n",
                "backend front-ends\n  balance leastconn\n",
            ),
            address = address
        );
        for (number, server) in servers.iter().enumerate() {
            config += &format!("  server front-end-{number} {server}\n");
        }
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, config)?;
        let mut server = Command::new(find("haproxy", SEARCH_PATHS)?);
        server.args(["-db", "-f"]).arg(&file);
        let node = Node::start(&directory, None, &server)?;
        wait::try_until("HAProxy listens", LIMIT, || {
            Ok(TcpStream::connect(&address).is_ok())
        })
        .with_context(|| node.log())?;
        Ok(Self { node, address })
    }

    /// The first line of `haproxy -v`, or `None` where it prints nothing.
    ///
    /// # Errors
    /// HAProxy is not installed.
    pub fn version() -> anyhow::Result<Option<String>> {
        let output = Command::new(find("haproxy", SEARCH_PATHS)?)
            .arg("-v")
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .map(str::to_owned))
    }

    /// The address it listens on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.node.pid()
    }
}
