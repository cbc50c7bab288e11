//! A child as its parent sees it.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use crate::jobs::ExecuteError;

use super::wire::{Reply, Request};
use super::{Limits, fault};

/// Longest message of a child, in bytes: a report of a search with thousands of trials is well within it.
const MAX_MESSAGE_BYTES: usize = 256 << 20;
/// How long a child may take to begin.
const START_TIME: Duration = Duration::from_secs(30);
/// What runs in a child, the same file even if it was replaced since.
#[cfg(target_os = "linux")]
const PROGRAM: &str = "/proc/self/exe";

/// A running child; killed when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    messages: Messages,
}

/// The parent's end of the socket.
#[derive(Debug)]
pub(super) struct Messages {
    reader: BufReader<UnixStream>,
    /// The beginning of a message whose rest is still to come.
    partial: Vec<u8>,
}

impl Child {
    /// Starts a child within `limits`, whose threads may each work for `time`; `shared` becomes its standard output.
    pub(super) fn start(limits: &Limits, time: Option<Duration>, shared: Option<&File>) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let output = shared.map(File::try_clone).transpose()?.map_or(Stdio::null(), Stdio::from);
        let mut command = Command::new(program()?);
        command.arg("child").env_clear().stdin(OwnedFd::from(theirs)).stdout(output);
        if let Some(folder) = std::env::var_os("TMPDIR") {
            command.env("TMPDIR", folder);
        }
        let process = command.spawn()?;
        // It holds the child's end of the socket, which must close with the child.
        drop(command);
        let messages = Messages { reader: BufReader::new(ours), partial: Vec::new() };
        let mut child = Self { process, messages };
        let processor_seconds = time.map(|time| time.as_secs().max(1).saturating_mul(limits.threads as u64));
        child.send(&Request::Begin { limits: *limits, processor_seconds })?;
        match child.receive(START_TIME)? {
            Some(Reply::Ready { has_network }) => warn_of_network(has_network),
            _ => return Err(Error::other("a child process did not begin")),
        }
        Ok(child)
    }

    pub(super) fn send(&mut self, request: &Request) -> std::io::Result<()> {
        send(self.messages.reader.get_mut(), request)
    }

    /// The next message, if it comes within `patience`.
    ///
    /// # Errors
    /// When the child is gone, or says what cannot be understood.
    pub(super) fn receive(&mut self, patience: Duration) -> std::io::Result<Option<Reply>> {
        self.messages.receive(Some(patience))
    }

    /// What it died of, once it has; it is killed if it has not.
    pub(super) fn end(&mut self, limits: &Limits) -> ExecuteError {
        // It closes its end when it dies, and is a zombie a moment later.
        for _ in 0..20 {
            match self.process.try_wait() {
                Ok(Some(status)) => return fault::of(status, limits),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return ExecuteError::failed(error),
            }
        }
        self.kill();
        ExecuteError::failed("a child process broke off")
    }

    /// Ends it, if it has not ended.
    pub(super) fn kill(&mut self) {
        // One that is dead already is none the worse for it.
        _ = self.process.kill();
        _ = self.process.wait();
    }

    /// A second end to receive from, while this one sends.
    pub(super) fn messages(&self) -> std::io::Result<Messages> {
        let reader = BufReader::new(self.messages.reader.get_ref().try_clone()?);
        Ok(Messages { reader, partial: Vec::new() })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Messages {
    /// The next message, if it comes within `patience`; `None`: however long it takes.
    pub(super) fn receive(&mut self, patience: Option<Duration>) -> std::io::Result<Option<Reply>> {
        self.reader.get_ref().set_read_timeout(patience)?;
        loop {
            let (found, is_whole) = match self.reader.fill_buf() {
                Ok([]) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => match bytes.iter().position(|&byte| byte == b'\n') {
                    Some(end) => (&bytes[..=end], true),
                    None => (bytes, false),
                },
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let taken = found.len();
            self.partial.extend_from_slice(found);
            self.reader.consume(taken);
            if self.partial.len() > MAX_MESSAGE_BYTES {
                return Err(Error::new(ErrorKind::InvalidData, "a child process says too much"));
            }
            if is_whole {
                let message = std::mem::take(&mut self.partial);
                return Ok(Some(serde_json::from_slice(&message)?));
            }
        }
    }
}

/// Sends one message, whole.
pub(super) fn send(to: &mut UnixStream, message: &impl serde::Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

#[cfg(target_os = "linux")]
fn program() -> std::io::Result<&'static str> {
    Ok(PROGRAM)
}

#[cfg(not(target_os = "linux"))]
fn program() -> std::io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

fn warn_of_network(has_network: bool) {
    static WARNED: Once = Once::new();
    if has_network {
        WARNED.call_once(|| tracing::warn!("the system does not let child processes be cut off from the network"));
    }
}
