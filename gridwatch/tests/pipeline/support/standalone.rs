//! A standalone process: both APIs are on one port, and all data is in one directory.

use std::path::Path;

use testbed::process::Process;

use super::{Site, free_address, program};

/// A standalone process and the address of its two APIs.
pub(crate) struct Standalone {
    pub process: Process,
    pub listen: String,
}

impl Standalone {
    /// Starts a process with its data in `directory`, and waits until it is ready.
    pub(crate) fn ready(directory: &Path, more: &[&str]) -> Self {
        Self::ready_of(program(), directory, more)
    }

    /// As [`Standalone::ready`], of another program.
    pub(crate) fn ready_of(program: &Path, directory: &Path, more: &[&str]) -> Self {
        let mut standalone = Self::start_of(program, directory, more);
        standalone.process.wait_ready();
        standalone
    }

    /// Starts a process on the database of a site, which then sends its requests there.
    pub(crate) fn of_site(site: &mut Site) -> Self {
        let database = ["--database-url", &site.database_url];
        let standalone = Self::ready(site.directory.path(), &database);
        site.listen.clone_from(&standalone.listen);
        standalone
    }

    /// Starts a process with its data in `directory`.
    pub(crate) fn start(directory: &Path, more: &[&str]) -> Self {
        Self::start_of(program(), directory, more)
    }

    fn start_of(program: &Path, directory: &Path, more: &[&str]) -> Self {
        let (listen, admin) = (free_address(), free_address());
        let data = directory.join("data");
        let arguments = [
            "standalone",
            "--data",
            data.to_str().unwrap(),
            "--listen",
            &listen,
            "--admin",
            &admin,
        ];
        let arguments = [&arguments, more].concat();
        let process = Process::start(program, &arguments, &admin, directory).unwrap();
        Self { process, listen }
    }

    /// Ends the process, which must succeed.
    pub(crate) fn stop(mut self) {
        assert!(self.process.terminate().unwrap().success());
    }
}
