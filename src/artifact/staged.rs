//! A file that appears whole or not at all: prepared beside its place, flushed to the disk, and moved there.
//!
//! What is not a regular file, such as a device or a pipe, is written to and never replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Bytes on their way to a path; deleted unless they are published.
#[derive(Debug)]
pub(crate) struct Staged {
    file: NamedTempFile,
    out: PathBuf,
}

impl Staged {
    /// Begins a file that is to be at `out`, which is followed where it is a link to something.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn new(out: &Path) -> io::Result<Self> {
        let out = std::fs::canonicalize(out).unwrap_or_else(|_| out.to_path_buf());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".weightpress-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Those that any new file would have.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        Ok(Self { file: builder.tempfile_in(folder_of(&out))?, out })
    }

    /// Moves the file to its place, replacing the file that was there.
    ///
    /// # Errors
    /// Any error of the file system; then nothing is left behind.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        if is_special(&self.out) {
            self.file.rewind()?;
            let mut out = OpenOptions::new().write(true).open(&self.out)?;
            return io::copy(&mut self.file, &mut out).map(|_| ());
        }
        self.file.as_file().sync_all()?;
        self.file.persist(&self.out).map_err(|error| error.error)?;
        // The rename itself must survive a crash too.
        #[cfg(unix)]
        File::open(folder_of(&self.out))?.sync_all()?;
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where files for `path` are prepared.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    if is_special(path) {
        return std::env::temp_dir();
    }
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

/// Whether something stands at `path` that is neither a file nor a folder.
pub(crate) fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// Puts a copy of the file `from` in the place of `to`, whole or not at all.
///
/// # Errors
/// An I/O error; then `to` is as it was, unless it is a device or a pipe.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut staged = Staged::new(to)?;
    io::copy(&mut File::open(from)?, &mut staged)?;
    staged.publish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(out: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut staged = Staged::new(out)?;
        staged.write_all(bytes)?;
        staged.publish()
    }

    #[test]
    fn a_file_is_replaced_and_a_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        for bytes in [&b"first"[..], b"second"] {
            publish(&out, bytes).unwrap();
            assert_eq!(std::fs::read(&out).unwrap(), bytes);
        }
        let inside = folder.path().join("folder");
        std::fs::create_dir(&inside).unwrap();
        assert!(publish(&inside, b"third").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_names_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, b"before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        publish(&link, b"after").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"after");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_stays_a_pipe_and_is_written_to() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let read = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        publish(&pipe, b"whole").unwrap();
        assert_eq!(read.join().unwrap(), b"whole");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
