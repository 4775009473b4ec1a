//! A server that ends with its owner.
//!
//! A guardian, a few lines of shell, is the server's parent. It holds the reading end of a pipe whose writing end is the
//! owner's: when the owner ends, by itself or by SIGKILL, the pipe closes, and the guardian ends the server's whole session
//! and removes its folder. Terminal signals do not reach it, so that an owner can stop things in its own order.

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
word=
read -r word
kill -s "${word:-KILL}" "$server" 2>/dev/null
[ -n "$word" ] && wait "$server"
kill -s KILL -- "-$server" 2>/dev/null
wait "$server" 2>/dev/null
[ -n "$word" ] || rm -rf "$dir"
"#;

/// The user that a server runs as where the caller is root.
#[derive(Debug, Clone, Copy)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The first of these users that this machine has, where the caller is root; none otherwise.
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

    /// Lets a command run as this user.
    pub fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a folder to this user.
    ///
    /// # Errors
    /// The caller may not.
    pub fn own(self, folder: &Path) -> std::io::Result<()> {
        std::os::unix::fs::chown(folder, Some(self.uid), Some(self.gid))
    }
}

/// A running server.
#[derive(Debug)]
pub struct Node {
    guardian: Child,
    pid: u32,
    folder: PathBuf,
}

impl Node {
    /// Starts a server in its folder, which is removed with it. The log is `log` in it.
    ///
    /// # Errors
    /// The guardian cannot be started.
    pub fn start(folder: &Path, user: Option<User>, server: &Command) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(GUARDIAN)
            .arg("guardian")
            .arg(folder)
            .arg(server.get_program())
            .args(server.get_args());
        for (name, value) in server.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.current_dir(folder).process_group(0);
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
            .context("the guardian named no process")?;
        Ok(Self {
            guardian,
            pid,
            folder: folder.to_owned(),
        })
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the server with this signal (`QUIT`, `KILL`, …), waits for its end, and keeps its folder.
    ///
    /// # Errors
    /// The guardian is gone.
    pub fn stop_with(&mut self, signal: &str) -> anyhow::Result<()> {
        let mut pipe = self.guardian.stdin.take().context("stopped already")?;
        writeln!(pipe, "{signal}")?;
        drop(pipe);
        self.guardian.wait()?;
        Ok(())
    }

    /// The last lines of the server's log.
    pub fn log(&self) -> String {
        tail(&self.folder.join("log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of the server in {}\n{}",
                self.folder.display(),
                self.log()
            );
        }
        // A server that was stopped by hand keeps its folder, for whoever starts it again.
        if let Some(pipe) = self.guardian.stdin.take() {
            drop(pipe);
            let _ = self.guardian.wait();
        }
    }
}

/// The last lines of a file.
pub fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
