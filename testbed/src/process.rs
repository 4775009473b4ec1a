//! A process under test: started, watched, and ended with its owner.
//!
//! Beside it waits a guard, a line of shell that reads from a pipe whose other end is the owner's: when the owner ends
//! without a word, as by SIGKILL, the guard ends the process.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::node::tail;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(60);

const GUARD: &str = r#"read -r word || kill -s KILL "$1""#;

/// A process whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Child,
    name: String,
    log: PathBuf,
    /// Where `/readyz` is.
    admin: String,
}

impl Process {
    /// Starts a program. `admin` is the address of its admin port, `folder` where its log goes.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        admin: &str,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let name = arguments.first().copied().unwrap_or_default().to_owned();
        let log = folder.join(format!("{name}-{}.log", admin.replace(':', "-")));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            // Ctrl-C is its owner's, who stops things in order.
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

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// See [`Process::try_ready`].
    pub fn wait_ready(&mut self) {
        self.try_ready().unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// The process ends before, or takes a minute.
    pub fn try_ready(&mut self) -> anyhow::Result<()> {
        wait::try_until(&format!("{} is ready", self.name), LIMIT, || {
            let ended = self.child.try_wait()?;
            ensure!(
                ended.is_none(),
                "{} ended before it was ready:\n{}",
                self.name,
                tail(&self.log)
            );
            Ok(self.ready())
        })
    }

    /// Whether `/readyz` says yes now.
    pub fn ready(&self) -> bool {
        self.admin("/readyz")
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// What the admin port answers, head and body.
    ///
    /// # Errors
    /// It does not answer.
    pub fn admin(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.admin
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The sum of a metric over its labels; 0 where it was never moved. `name` may go on with a part of the labels.
    ///
    /// # Panics
    /// The process does not answer.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self
            .admin("/metrics")
            .unwrap_or_else(|error| panic!("{} has no metrics: {error}", self.name));
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            // The sum of nothing would be -0.
            .fold(0.0, |sum, value| sum + value)
    }

    /// Sends a signal, by its name.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()?;
        ensure!(status.success(), "{} is gone", self.name);
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within a minute.
    pub fn wait_end(&mut self) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.dismiss();
                return Ok(status);
            }
            ensure!(
                begun.elapsed() < LIMIT,
                "{} does not end:\n{}",
                self.name,
                tail(&self.log)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the guard: the process has ended, and another may get its number.
    fn dismiss(&mut self) {
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = pipe.write_all(b"done\n");
            drop(pipe);
            let _ = self.guard.wait();
        }
    }

    /// SIGTERM, and the end of it.
    ///
    /// # Errors
    /// It is gone, or does not end.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait_end()
    }

    /// Where its admin port is.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines it wrote.
    pub fn log(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Before its number is free for another.
        self.dismiss();
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
    fn a_process_ends_with_the_pipe_of_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            Process::start(Path::new("sleep"), &["1000"], "127.0.0.1:1", folder.path()).unwrap();
        assert_eq!(process.child.try_wait().unwrap(), None);
        // What the owner's end does, however it comes.
        drop(process.guard.stdin.take());
        assert!(!process.wait_end().unwrap().success());
    }

    #[test]
    fn the_guard_ends_with_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut process =
            Process::start(Path::new("true"), &["x"], "127.0.0.1:1", folder.path()).unwrap();
        assert!(process.wait_end().unwrap().success());
        assert!(process.guard.try_wait().unwrap().is_some());
    }
}
