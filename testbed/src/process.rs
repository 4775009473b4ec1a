//! A process under test, which ends with the process that started it, its owner.
//!
//! Its output goes to a log file; its health and metrics are read from its admin port. A guard, one
//! line of shell, reads from a pipe; the owner holds the writing end. When the owner is killed, the
//! pipe closes, and the guard kills the process.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use schema::prometheus;

use crate::node::tail;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(60);

const GUARD: &str = r#"read -r line || kill -s KILL "$1""#;

/// A process whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Child,
    name: String,
    log: PathBuf,
    /// The address of its admin port.
    admin: String,
}

impl Process {
    /// Starts a program. `admin` is the address of its admin port; its log is written to
    /// `directory`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        admin: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let name = arguments.first().copied().unwrap_or_default().to_owned();
        let log = directory.join(format!("{name}-{}.log", admin.replace(':', "-")));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            // Ctrl-C reaches the owner only, which stops its processes in order.
            .process_group(0)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut guard = Command::new("sh");
        guard
            .args(["-c", GUARD, "guard", &child.id().to_string()])
            .process_group(0);
        let guard = guard
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guard {
            Ok(guard) => Ok(Self {
                child,
                guard,
                name,
                log,
                admin: admin.to_owned(),
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error).context("sh")
            }
        }
    }

    /// Waits until `/readyz` responds with 200.
    ///
    /// # Panics
    /// See [`Process::try_ready`].
    pub fn wait_ready(&mut self) {
        self.try_ready().unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until `/readyz` responds with 200.
    ///
    /// # Errors
    /// The process exits before, or is not ready within a minute.
    pub fn try_ready(&mut self) -> anyhow::Result<()> {
        wait::try_until(&format!("{} is ready", self.name), LIMIT, || {
            let exited = self.child.try_wait()?;
            ensure!(
                exited.is_none(),
                "{} exited before it was ready:\n{}",
                self.name,
                tail(&self.log)
            );
            Ok(self.ready())
        })
    }

    /// Whether `/readyz` responds with 200 now.
    pub fn ready(&self) -> bool {
        self.admin("/readyz")
            .is_ok_and(|response| response.starts_with("HTTP/1.1 200"))
    }

    /// The response of the admin port to `GET`, head and body.
    ///
    /// # Errors
    /// The admin port does not respond.
    pub fn admin(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.admin
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    /// The sum of all samples of a metric; 0 if it has none. `selector` is its name, or its name
    /// with labels as in `a_total{code="x"}`.
    ///
    /// # Panics
    /// See [`Process::try_metric`].
    pub fn metric(&self, selector: &str) -> f64 {
        self.try_metric(selector)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// As [`Process::metric`], without the panic.
    ///
    /// # Errors
    /// The admin port does not respond, or the selector is not valid.
    pub fn try_metric(&self, selector: &str) -> anyhow::Result<f64> {
        let text = self
            .admin("/metrics")
            .with_context(|| format!("cannot read the metrics of {}", self.name))?;
        Ok(prometheus::sum_selected(
            &prometheus::parse(&text),
            selector,
        )?)
    }

    /// Sends a signal, by its name (`TERM`, `KILL`, …).
    ///
    /// # Errors
    /// The process has exited.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()?;
        ensure!(status.success(), "{} has exited", self.name);
        Ok(())
    }

    /// Waits until the process has exited.
    ///
    /// # Errors
    /// It does not exit within a minute.
    pub fn wait_exit(&mut self) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.end_guard();
                return Ok(status);
            }
            ensure!(
                begun.elapsed() < LIMIT,
                "{} does not exit:\n{}",
                self.name,
                tail(&self.log)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the guard: the process has exited, and its id may be reused.
    fn end_guard(&mut self) {
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = pipe.write_all(b"done\n");
            drop(pipe);
            let _ = self.guard.wait();
        }
    }

    /// Sends SIGTERM and waits until the process has exited.
    ///
    /// # Errors
    /// The process had exited before, or does not exit within a minute.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait_exit()
    }

    /// The address of its admin port.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Before its id may be reused.
        self.end_guard();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_when_the_pipe_to_its_owner_closes() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(
            Path::new("sleep"),
            &["1000"],
            "127.0.0.1:1",
            directory.path(),
        )
        .unwrap();
        assert_eq!(process.child.try_wait().unwrap(), None);
        // This happens when the owner exits, for whatever reason.
        drop(process.guard.stdin.take());
        assert!(!process.wait_exit().unwrap().success());
    }

    #[test]
    fn the_guard_exits_with_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let mut process =
            Process::start(Path::new("true"), &["x"], "127.0.0.1:1", directory.path()).unwrap();
        assert!(process.wait_exit().unwrap().success());
        assert!(process.guard.try_wait().unwrap().is_some());
    }
}
