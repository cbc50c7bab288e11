//! The real program as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::Client;
use crate::harness::PostgresDatabase;

/// The program, serving; killed when dropped.
pub struct Program {
    child: Child,
    pub client: Client,
}

impl Program {
    /// Starts the program and waits until it listens.
    pub fn start(data_dir: &Path, database: Option<&PostgresDatabase>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weightpress"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        if let Some(database) = database {
            command.args(["--database-url", &database.url()]);
        }
        // Shorter than the default, so that jobs of a killed worker are soon taken up again.
        command.env("WEIGHTPRESS_LEASE_MS", "1000").env("WEIGHTPRESS_MAX_ATTEMPTS", "50");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().split_once("listening on ").map(|(_, rest)| rest.trim().to_owned()))
            .expect("the program says where it listens");
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, client: Client::new(address) }
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
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
