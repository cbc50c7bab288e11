//! The real program as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::harness::PostgresDatabase;

/// How long a process may take to start, on a machine that does much else.
const START_TIME: Duration = Duration::from_secs(120);

/// A process of the program; killed when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Runs a subcommand on the database and the blobs of `data_dir` until it says `ready`; returns the rest of that line.
    fn start(args: &[&str], data_dir: &Path, database: Option<&PostgresDatabase>, ready: &str) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weightpress"));
        command.args(args).arg("--data-dir").arg(data_dir);
        if let Some(database) = database {
            command.args(["--database-url", &database.url()]);
        }
        // Shorter than the defaults, so that what a killed process left is soon taken up.
        command.env("WEIGHTPRESS_LEASE_MS", "1000").env("WEIGHTPRESS_MAX_ATTEMPTS", "50");
        command.env("WEIGHTPRESS_SWEEP_SECONDS", "1");
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Self { child };
        let lines = BufReader::new(process.child.stderr.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        // The pipe must not fill up.
        std::thread::spawn(move || {
            // Once the line was found, nobody listens any more.
            lines.map_while(Result::ok).for_each(|line| drop(tell.send(line)));
        });
        let deadline = Instant::now() + START_TIME;
        loop {
            let line = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("{args:?} did not say {ready:?}: {error}"));
            if let Some((_, rest)) = line.split_once(ready) {
                return (process, rest.trim().to_owned());
            }
        }
    }

    /// A process that runs jobs, one at a time.
    pub fn worker(data_dir: &Path, database: Option<&PostgresDatabase>) -> Self {
        Self::start(&["worker", "--threads", "1"], data_dir, database, "waiting for jobs").0
    }

    /// As [`Process::worker`], with a client of the address at which it tells how it is.
    pub fn listening_worker(data_dir: &Path, database: Option<&PostgresDatabase>) -> (Self, Client) {
        let args = ["worker", "--threads", "1", "--listen", "127.0.0.1:0"];
        let (process, base) = Self::start(&args, data_dir, database, "listening on ");
        (process, Client::new(base))
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing can be tidied up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, serving; killed when dropped.
pub struct Program {
    process: Process,
    pub client: Client,
}

impl Program {
    /// Starts the program on any port and waits until it listens.
    pub fn start(data_dir: &Path, database: Option<&PostgresDatabase>) -> Self {
        Self::start_at("127.0.0.1:0", &[], data_dir, database)
    }

    /// Starts the program at `address`, with further flags, and waits until it listens.
    pub fn start_at(address: &str, flags: &[&str], data_dir: &Path, database: Option<&PostgresDatabase>) -> Self {
        let args = [&["serve", "--listen", address], flags].concat();
        let (process, base) = Process::start(&args, data_dir, database, "listening on ");
        Self { process, client: Client::new(base) }
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL: nothing can be tidied up.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// An address that nobody listens on now.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
