//! What a child gives up before it looks at anything.

use std::fs::File;

use nix::sys::resource::{Resource, setrlimit};

use super::Limits;

/// Open files of a child: the libraries it reads, its models, spools of its threads.
const MAX_OPEN_FILES: u64 = 512;

/// Puts this process within `limits`, while it has one thread. Returns whether it still has a network.
///
/// # Errors
/// When the system refuses a limit.
pub(super) fn enter(limits: &Limits, processor_seconds: Option<u64>) -> std::io::Result<bool> {
    die_with_parent()?;
    let has_network = !leave_network();
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)?;
    setrlimit(Resource::RLIMIT_AS, limits.memory_bytes, limits.memory_bytes)?;
    if let Some(seconds) = processor_seconds {
        // The soft limit says why it died; the hard one cannot be caught.
        setrlimit(Resource::RLIMIT_CPU, seconds, seconds.saturating_add(1))?;
    }
    Ok(has_network)
}

/// Has the system kill this process when the thread that started it is gone: one that computes does not hear its parent hang up.
#[cfg(target_os = "linux")]
fn die_with_parent() -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> std::io::Result<()> {
    Ok(())
}

/// Moves into a network of its own, with nothing in it; as root, or else as the root of a world of its own. False where the
/// system forbids both.
#[cfg(target_os = "linux")]
fn leave_network() -> bool {
    use nix::sched::{CloneFlags, unshare};
    let alone = CloneFlags::CLONE_NEWNET;
    unshare(alone).or_else(|_| unshare(alone | CloneFlags::CLONE_NEWUSER)).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn leave_network() -> bool {
    false
}

/// A file in memory without a name.
///
/// # Errors
/// When the system refuses it.
#[cfg(target_os = "linux")]
pub(super) fn shared_file() -> std::io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(File::from(memfd_create("weightpress", MFdFlags::MFD_CLOEXEC)?))
}

/// A file without a name.
///
/// # Errors
/// When the system refuses it.
#[cfg(not(target_os = "linux"))]
pub(super) fn shared_file() -> std::io::Result<File> {
    tempfile::tempfile()
}
