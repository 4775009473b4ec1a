//! A server that ends with the process that started it, its owner.
//!
//! The server's parent is a guardian, a short shell script. The guardian reads from a pipe; the
//! owner holds the writing end. When the owner exits or is killed, the pipe closes. The guardian
//! then kills the server's whole session and removes its directory. Terminal signals do not reach
//! the guardian, so that the owner decides in which order to stop its servers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

const GUARDIAN: &str = r#"
dir=$1; shift
setsid "$@" </dev/null >>"$dir/log" 2>&1 &
server=$!
echo "$server"
signal=
read -r signal
kill -s "${signal:-KILL}" "$server" 2>/dev/null
[ -n "$signal" ] && wait "$server"
kill -s KILL -- "-$server" 2>/dev/null
wait "$server" 2>/dev/null
[ -n "$signal" ] || rm -rf "$dir"
"#;

/// The user that a server runs as when the caller is root.
#[derive(Debug, Clone, Copy)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The first of these users that exists here, if the caller is root; otherwise `None`.
    ///
    /// # Errors
    /// The user database cannot be read.
    pub fn instead_of_root(names: &[&str]) -> anyhow::Result<Option<Self>> {
        let id = Command::new("id").arg("-u").output().context("id -u")?;
        if id.stdout.trim_ascii() != b"0" {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        Ok(names.iter().find_map(|name| {
            let line = passwd
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some(Self {
                uid: fields.next()?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
            })
        }))
    }

    /// Makes a command run as this user.
    pub fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this user the owner of a directory.
    ///
    /// # Errors
    /// The caller lacks the permission.
    pub fn chown(self, directory: &Path) -> std::io::Result<()> {
        std::os::unix::fs::chown(directory, Some(self.uid), Some(self.gid))
    }
}

/// A running server.
#[derive(Debug)]
pub struct Node {
    guardian: Child,
    pid: u32,
    directory: PathBuf,
}

impl Node {
    /// Starts a server in `directory`, which is removed when the node is dropped. The server's
    /// output goes to the file `log` in it.
    ///
    /// # Errors
    /// The guardian cannot be started.
    pub fn start(directory: &Path, user: Option<User>, server: &Command) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(GUARDIAN)
            .arg("guardian")
            .arg(directory)
            .arg(server.get_program())
            .args(server.get_args());
        for (name, value) in server.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.current_dir(directory).process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(user) = user {
            user.apply(&mut command);
        }
        let mut guardian = command.spawn().context("sh")?;
        let mut line = String::new();
        BufReader::new(guardian.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let pid = line
            .trim()
            .parse()
            .context("the guardian printed no process id")?;
        Ok(Self {
            guardian,
            pid,
            directory: directory.to_owned(),
        })
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the server this signal (`QUIT`, `KILL`, …), waits until it has exited, and keeps its
    /// directory.
    ///
    /// # Errors
    /// The server was stopped before, or the guardian has exited.
    pub fn stop_with(&mut self, signal: &str) -> anyhow::Result<()> {
        let mut pipe = self
            .guardian
            .stdin
            .take()
            .context("the server was stopped before")?;
        writeln!(pipe, "{signal}")?;
        drop(pipe);
        self.guardian.wait()?;
        Ok(())
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        tail(&self.directory.join("log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of the server in {}\n{}",
                self.directory.display(),
                self.log()
            );
        }
        // A server that was stopped explicitly keeps its directory, so that it can be restarted.
        if let Some(pipe) = self.guardian.stdin.take() {
            drop(pipe);
            let _ = self.guardian.wait();
        }
    }
}

/// The last 60 lines of a file.
pub fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
