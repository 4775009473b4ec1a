//! Servers to send to, and what a command printed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// The idle server, which ends with the test.
pub(crate) struct IdleServer {
    child: Child,
    pub url: String,
}

impl IdleServer {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(PROGRAM);
        let mut child = command
            .args(["nothing", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.split(' ').next_back().unwrap().trim().to_owned();
        Self { child, url }
    }

    pub(crate) fn run(&self, scenario: &str, directory: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "run",
                scenario,
                "--unchecked",
                "--target",
                &self.url,
                "--report",
            ])
            .arg(directory)
            .args(more);
        command
    }
}

impl Drop for IdleServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A server that responds to the first `times` requests of each connection with 503, and then with
/// 202.
pub(crate) fn reject_first(times: usize) -> String {
    serve(move |responses| match responses {
        rejected if rejected < times => ("503 Service Unavailable", ""),
        _ => ("202 Accepted", ""),
    })
}

/// A server that responds to each request with the status and the body of the function, which is
/// called with the number of responses on the connection so far.
pub(crate) fn serve(
    respond: impl Fn(usize) -> (&'static str, &'static str) + Copy + Send + 'static,
) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            std::thread::spawn(move || {
                let mut responses = 0;
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    while stream.read_line(&mut line).unwrap_or_default() > 2 {
                        if let Some(value) =
                            line.to_ascii_lowercase().strip_prefix("content-length: ")
                        {
                            length = value.trim().parse().unwrap();
                        }
                        line.clear();
                    }
                    if std::io::Read::read_exact(&mut stream, &mut vec![0; length]).is_err()
                        || length == 0
                    {
                        return;
                    }
                    let (status, body) = respond(responses);
                    responses += 1;
                    let response = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    std::io::Write::write_all(stream.get_mut(), response.as_bytes()).unwrap();
                }
            });
        }
    });
    url
}

/// Runs a command whose standard output and standard error nobody reads.
pub(crate) fn run_unread(command: &mut Command) -> Option<i32> {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    command.stdout(closed()).stderr(closed());
    command.status().unwrap().code()
}
