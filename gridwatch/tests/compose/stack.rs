//! A deployment of docker-compose.yml, with a project, passwords, ports and images of its own.
//!
//! In: profiles. Out: running containers. Everything is removed when it is dropped: containers,
//! volumes, the network, the images of Gridwatch and the passwords. Base images stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testbed::wait;

/// Ends a test that hangs. Three nodes of RabbitMQ start one after the other.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// A deployment.
pub(crate) struct Stack {
    directory: tempfile::TempDir,
    project: String,
    profile: &'static str,
    compose: Vec<String>,
}

/// Why the test cannot run here, as a sentence.
pub(crate) fn obstacle() -> Option<String> {
    if !succeeds(&["docker", "info"]) {
        return Some("Docker is not running, or this user may not use it".into());
    }
    if compose().is_none() {
        return Some("neither 'docker compose' nor 'docker-compose' is installed".into());
    }
    base_images().err().map(|error| format!("{error:#}"))
}

/// The directory of the repository.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap().to_owned()
}

fn succeeds(command: &[&str]) -> bool {
    run(command).is_ok()
}

/// Runs a command in the root of the repository, and returns what it printed.
///
/// # Errors
/// It fails. The error has its output.
pub(crate) fn run(command: &[&str]) -> anyhow::Result<String> {
    run_with(Command::new(command[0]).args(&command[1..]))
}

fn run_with(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = command.current_dir(root()).output().context(name.clone())?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{name}: {status}\n{stdout}\n{stderr}");
    Ok(stdout)
}

/// The command of Compose: the plugin, or the program of its first version.
fn compose() -> Option<Vec<String>> {
    let commands: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let works = |command: &&&[&str]| succeeds(&[command, &["version"][..]].concat());
    let command = commands.iter().find(works)?;
    Some(command.iter().map(|&word| word.to_owned()).collect())
}

/// Pulls the images of the servers, or builds stand-ins.
fn base_images() -> anyhow::Result<()> {
    let text = fs::read_to_string(root().join("docker-compose.yml"))?;
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile"))?;
    let used = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "));
    let from = dockerfile.lines().filter_map(|line| {
        let image = line.strip_prefix("FROM ")?.split(' ').next()?;
        image.contains(':').then_some(image)
    });
    let is_missing = |image: &&str| {
        !image.starts_with('$')
            && !succeeds(&["docker", "image", "inspect", image])
            && !succeeds(&["docker", "pull", "--quiet", image])
    };
    if used.chain(from).any(|image| is_missing(&image)) {
        run(&["deploy/stand-in-images.sh"])
            .context("no registry has the images, and no stand-ins can be built")?;
    }
    Ok(())
}

impl Stack {
    /// Prepares a deployment and builds its images. It is not started.
    pub(crate) fn build(profile: &'static str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gridwatch-compose-")
            .tempdir()?;
        let path = directory.path().display().to_string();
        run(&["deploy/make-env.sh", &path])?;
        let stack = Self {
            directory,
            project: format!("gridwatch-test-{}", std::process::id()),
            profile,
            compose: compose().context("Compose is not installed")?,
        };
        stack.compose(&["build"])?;
        Ok(stack)
    }

    /// Runs a command of Compose, with ports that are free and programs of this machine.
    pub(crate) fn compose(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let env = self.directory.path().join(".env");
        let mut command = Command::new(&self.compose[0]);
        command
            .args(&self.compose[1..])
            .args(["--project-name", &self.project, "--profile", self.profile])
            .arg("--env-file")
            .arg(env)
            .args(arguments)
            .env_remove("COMPOSE_PROFILES")
            .env("GRIDWATCH_IMAGE", self.image())
            .env("GRIDWATCH_BINARIES", "host");
        for port in [
            "",
            "QUERY_",
            "HAPROXY_",
            "PROMETHEUS_",
            "RABBITMQ_",
            "GRAFANA_",
        ] {
            // Port 0 is a free one.
            command.env(format!("GRIDWATCH_{port}PORT"), "0");
        }
        run_with(&mut command)
    }

    fn image(&self) -> String {
        format!("gridwatch:{}", self.project)
    }

    /// The id of the container of a service.
    pub(crate) fn container(&self, service: &str) -> anyhow::Result<String> {
        let id = self.compose(&["ps", "-q", service])?.trim().to_owned();
        ensure!(!id.is_empty(), "{service} has no container");
        Ok(id)
    }

    /// A field of `docker inspect` of a service.
    pub(crate) fn inspect(&self, service: &str, format: &str) -> anyhow::Result<String> {
        let id = self.container(service)?;
        let output = run(&["docker", "inspect", "--format", format, &id])?;
        Ok(output.trim().to_owned())
    }

    /// The address of a service in the network of the deployment.
    pub(crate) fn address(&self, service: &str) -> anyhow::Result<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.inspect(service, format)
    }

    /// The address on this machine of a published port.
    pub(crate) fn published(&self, service: &str, port: u16) -> anyhow::Result<String> {
        let address = self.compose(&["port", service, &port.to_string()])?;
        Ok(address.trim().to_owned())
    }

    /// The content of a secret.
    pub(crate) fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.directory.path().join("secrets").join(name);
        Ok(fs::read_to_string(path)?.trim().to_owned())
    }

    /// Whether the health check of a service succeeds.
    pub(crate) fn is_healthy(&self, service: &str) -> bool {
        let status = self.inspect(service, "{{.State.Status}} {{.State.Health.Status}}");
        status.is_ok_and(|status| status == "running healthy")
    }

    /// Waits until a service is healthy.
    pub(crate) fn wait_healthy(&self, service: &str) {
        wait::try_until(&format!("{service} is healthy"), LIMIT, || {
            Ok(self.is_healthy(service))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs(service)));
    }

    /// Kills the process of a service from outside, as the kernel does when memory runs out. `docker
    /// kill` would not do: Docker restarts only what ends by itself. Returns when it runs again.
    pub(crate) fn kill(&self, service: &str) -> anyhow::Result<()> {
        let pid = self.inspect(service, "{{.State.Pid}}")?;
        let image = self.inspect("postgres", "{{.Config.Image}}")?;
        let shell = [
            "run",
            "--rm",
            "--pid=host",
            "--user=0",
            "--entrypoint=sh",
            &image,
            "-c",
        ];
        let kill = format!("kill -9 {pid}");
        run(&[&["docker"], &shell[..], &[&kill]].concat())?;
        wait::try_until(&format!("{service} is restarted"), LIMIT, || {
            let now = self.inspect(service, "{{.State.Status}} {{.State.Pid}}")?;
            Ok(now.starts_with("running ") && now != format!("running {pid}"))
        })
    }

    /// The last lines of the log of a service.
    pub(crate) fn logs(&self, service: &str) -> String {
        let logs = self.compose(&["logs", "--no-color", "--tail=40", service]);
        logs.unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let down = self.compose(&["down", "--volumes", "--remove-orphans", "--timeout=20"]);
        if let Err(error) = down {
            eprintln!("the deployment {} is not removed: {error:#}", self.project);
        }
        for suffix in ["", "-embedded", "-loadtest"] {
            let image = format!("{}{suffix}", self.image());
            let _ = run(&["docker", "rmi", "--force", &image]);
        }
    }
}
