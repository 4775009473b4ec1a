//! A private HAProxy in front of several front ends.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::node::Node;
use crate::{find, free_port, wait};

const PLACES: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
const LIMIT: Duration = Duration::from_secs(30);

/// A load balancer that gives each request to the server with the fewest connections.
#[derive(Debug)]
pub struct HaProxy {
    node: Node,
    address: String,
}

impl HaProxy {
    /// Starts one in front of these addresses.
    ///
    /// # Errors
    /// HAProxy is not installed, or does not start.
    pub fn start(servers: &[String]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("gridwatch-haproxy-")
            .tempdir()?
            .keep();
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut config = format!(
            "global\n  maxconn 4000\ndefaults\n  mode http\n  option http-keep-alive\n  timeout connect 5s\n  \
             timeout client 75s\n  timeout server 75s\nfrontend readings\n  bind {address}\n  \
             default_backend front-ends\nbackend front-ends\n  balance leastconn\n"
        );
        for (number, server) in servers.iter().enumerate() {
            config += &format!("  server front-end-{number} {server}\n");
        }
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, config)?;
        let mut server = Command::new(find("haproxy", PLACES)?);
        server.args(["-db", "-f"]).arg(&file);
        let node = Node::start(&folder, None, &server)?;
        wait::try_until("HAProxy listens", LIMIT, || {
            Ok(TcpStream::connect(&address).is_ok())
        })
        .with_context(|| node.log())?;
        Ok(Self { node, address })
    }

    /// What is installed; none where HAProxy says nothing.
    ///
    /// # Errors
    /// HAProxy is not installed.
    pub fn version() -> anyhow::Result<Option<String>> {
        let output = Command::new(find("haproxy", PLACES)?).arg("-v").output()?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .map(str::to_owned))
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.node.pid()
    }
}
