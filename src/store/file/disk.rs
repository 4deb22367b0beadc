//! The system calls, one by one, so that a test can let each of them fail or be the last.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

use crate::store::file::error::FileStoreError;

#[cfg(test)]
pub(super) mod faults;

/// The file system.
#[derive(Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

type Result<T> = std::result::Result<T, FileStoreError>;
type Content = Zeroizing<Vec<u8>>;

impl Disk {
    /// What `path` leads to, links followed.
    pub(super) fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.call("looked at", path, || if_found(fs::metadata(path)))
    }

    /// What `path` itself is.
    pub(super) fn symlink_metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.call("looked at", path, || if_found(fs::symlink_metadata(path)))
    }

    /// The content, cut off one byte beyond `limit`, and what is known about the file that has it.
    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<Option<(Metadata, Content)>> {
        let read = || {
            let Some(file) = if_found(File::open(path))? else { return Ok(None) };
            let (metadata, limit) = (file.metadata()?, limit as u64 + 1);
            // Room for all of it: what is outgrown is not wiped.
            let room = metadata.len().min(limit) as usize;
            let mut bytes = Zeroizing::new(Vec::with_capacity(room));
            file.take(limit).read_to_end(&mut bytes)?;
            Ok(Some((metadata, bytes)))
        };
        self.call("read", path, read)
    }

    /// To whom the file belongs, if not to us. Elsewhere than on Unix nobody asks.
    pub(super) fn other_owner(&self, path: &Path, metadata: &Metadata) -> Result<Option<u32>> {
        #[cfg(unix)]
        let other_owner = || {
            use std::os::unix::fs::MetadataExt;
            // Something that certainly belongs to us.
            let (pipe, _) = io::pipe()?;
            let ours = File::from(std::os::fd::OwnedFd::from(pipe)).metadata()?.uid();
            Ok(Some(metadata.uid()).filter(|owner| *owner != ours))
        };
        #[cfg(not(unix))]
        let (other_owner, _) = (|| Ok(None), metadata);
        self.call("looked at", path, other_owner)
    }

    /// The paths of what is in a directory.
    pub(super) fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let list = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
        self.call("listed", directory, list)
    }

    /// Creates the directory and those above it, for the user alone.
    pub(super) fn create_directory(&self, directory: &Path) -> Result<()> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        self.call("created", directory, || builder.recursive(true).create(directory))
    }

    /// Locks a file, creating it where needed; `None` if somebody else has locked it.
    pub(super) fn try_lock(&self, path: &Path) -> Result<Option<File>> {
        let lock = || {
            let file = private().read(true).create(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        self.call("locked", path, lock)
    }

    /// Creates a file, for the user alone, where there is none.
    pub(super) fn create(&self, path: &Path) -> Result<File> {
        self.call("created", path, || private().create_new(true).open(path))
    }

    pub(super) fn write(&self, mut file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
        #[cfg(test)]
        self.faults.write_half(file, bytes);
        self.call("written", path, || file.write_all(bytes))
    }

    /// Waits until the content is on the disk.
    pub(super) fn sync(&self, file: &File, path: &Path) -> Result<()> {
        self.call("synced", path, || file.sync_all())
    }

    /// Puts `from` in the place of `to`, in one step.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.call("replaced", to, || fs::rename(from, to))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.call("removed", path, || if_found(fs::remove_file(path)).map(drop))
    }

    /// Waits until the names in the directory are on the disk. Windows has nothing of the kind, and
    /// neither have some file systems.
    pub(super) fn sync_directory(&self, directory: &Path) -> Result<()> {
        match cfg!(unix) {
            true => self.call("synced", directory, || if_known(File::open(directory)?.sync_all())),
            false => Ok(()),
        }
    }

    fn call<T>(
        &self,
        what: &'static str,
        path: &Path,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T> {
        #[cfg(test)]
        let call = || self.faults.call(what, call);
        call().map_err(|source| FileStoreError::Io { path: path.to_owned(), what, source })
    }
}

/// How a file is opened for writing; what is created is the user's alone from its first byte.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn if_known(result: io::Result<()>) -> io::Result<()> {
    match result.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        _ => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K-62: a file system that cannot do it is no hindrance, a disk that fails is one.
    #[test]
    fn k_62_only_what_is_unknown_is_done_without() {
        for (kind, is_fine) in [
            (ErrorKind::InvalidInput, true),
            (ErrorKind::Unsupported, true),
            (ErrorKind::Other, false),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::StorageFull, false),
        ] {
            assert_eq!(if_known(Err(kind.into())).is_ok(), is_fine, "{kind}");
        }
        assert!(if_known(Ok(())).is_ok());
    }
}
