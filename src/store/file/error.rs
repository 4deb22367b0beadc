use std::io;
use std::path::PathBuf;

/// Why a [`FileStore`](crate::FileStore) could not do what it was asked.
///
/// Every [`StoreError`](crate::StoreError) of that store is one of these, and with a session it is
/// the source of the [`Error`](crate::Error):
///
/// ```
/// use std::error::Error as _;
///
/// use reqwest_refresh::{Error, FileStoreError};
///
/// fn is_of_a_newer_version(error: &Error) -> bool {
///     let why = error.source().and_then(|source| source.downcast_ref());
///     matches!(why, Some(FileStoreError::Newer { .. }))
/// }
/// ```
///
/// It says paths and numbers, and quotes nothing of a file's content. After [`Io`](Self::Io) the old
/// tokens are there or the new ones, whole; after the others everything is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileStoreError {
    /// Other users can read or write the file, or write in its directory. Take that from them
    /// (`chmod 600` the file, `chmod 700` the directory), and think of what they may have read.
    /// Unix only.
    #[error("{} is open to other users: its mode is {mode:03o}", path.display())]
    #[non_exhaustive]
    Exposed {
        /// The file or the directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is another user's, who may have put it there for us: only root gets to see such
    /// a file. Saving or clearing ends that state. Unix only.
    #[error("{} belongs to another user, number {owner}", path.display())]
    #[non_exhaustive]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The number of the user to whom it belongs.
        owner: u32,
    },
    /// The operating system said no: the disk is full or read-only, permission is denied.
    #[error("{} could not be {what}", path.display())]
    #[non_exhaustive]
    Io {
        /// The file or the directory.
        path: PathBuf,
        /// What was to be done with it: `read`, `written`, …
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A newer version of this crate has written the file, in a format that this one does not know.
    #[error("{} was written by a newer version, in format version {version}", path.display())]
    #[non_exhaustive]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u64,
    },
    /// What is there was not written by a [`FileStore`](crate::FileStore), or not to its end, or
    /// was damaged since. Move it away, or choose another path.
    #[error("{} is not a file of tokens: {why}", path.display())]
    #[non_exhaustive]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A symbolic link: it is not followed.
    #[error("{} is a symbolic link", path.display())]
    #[non_exhaustive]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The tokens could be written, but not read again: they take more than 4 MiB, or their
    /// [members](crate::TokenSet::members) are nested more than some 120 levels deep.
    #[error("the tokens are too large for {}", path.display())]
    #[non_exhaustive]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}
