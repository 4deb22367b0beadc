//! The file, its directory, and what lies beside it.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::iter;
use std::path::{Path, PathBuf};

use crate::store::envelope::{self, LIMIT, Unread};
use crate::store::file::disk::Disk;
use crate::store::file::error::FileStoreError;
use crate::token::TokenSet;

/// Where the tokens are. Everything here blocks.
pub(super) struct Place {
    path: PathBuf,
    pub(super) disk: Disk,
}

/// A file that is there to be locked. It stays, since others may be about to lock it.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    /// Held for the time of a refresh.
    Refresh,
    /// Held for the time of one change.
    Write,
}

type Result<T> = std::result::Result<T, FileStoreError>;

impl Place {
    pub(super) fn new(path: PathBuf) -> Self {
        let path = std::path::absolute(&path).unwrap_or(path);
        let path = match path.file_name() {
            Some(name) => path.with_file_name(name), // without a slash at its end
            None => path,
        };
        Self { path, disk: Disk::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens, if nobody else can have read or written them.
    pub(super) fn load(&self) -> Result<Option<TokenSet>> {
        let Some((metadata, tokens)) = self.look()? else { return Ok(None) };
        let path = self.path.clone();
        if let Some(mode) = exposure(&metadata, ANY_USE) {
            return Err(FileStoreError::Exposed { path, mode });
        }
        match self.disk.other_owner(&path, &metadata)? {
            Some(owner) => Err(FileStoreError::Foreign { path, owner }),
            None => Ok(Some(tokens)),
        }
    }

    /// Makes sure that what is there may be overwritten. It may if others could read it: what
    /// replaces it will be private.
    pub(super) fn check(&self) -> Result<()> {
        self.look().map(drop)
    }

    /// Replaces whatever is there, old or new at any instant. Whoever calls this has checked it,
    /// and holds [`Lock::Write`].
    pub(super) fn write(&self, tokens: &TokenSet) -> Result<()> {
        let Some(text) = envelope::seal(tokens) else {
            return Err(FileStoreError::TooLarge { path: self.path.clone() });
        };
        self.sweep();
        let draft = self.draft();
        let replaced =
            self.draw_up(&draft, &text).and_then(|()| self.disk.rename(&draft, &self.path));
        if replaced.is_err() {
            let _ = self.disk.remove(&draft); // the next write sweeps it up
        }
        replaced?;
        self.disk.sync_directory(self.directory())
    }

    /// Removes what is there. Whoever calls this has checked it, and holds [`Lock::Write`].
    pub(super) fn remove(&self) -> Result<()> {
        self.disk.remove(&self.path)?;
        self.sweep();
        self.disk.sync_directory(self.directory())
    }

    /// Takes a lock that lasts as long as the file is open; `None` if somebody else has it.
    pub(super) fn try_lock(&self, lock: Lock) -> Result<Option<File>> {
        self.make_directory()?;
        let path = self.beside(match lock {
            Lock::Refresh => ".lock",
            Lock::Write => ".write-lock",
        });
        self.file(&path)?;
        self.disk.try_lock(&path)
    }

    /// Whether the directory is there. Those who can write in it could put another file in the
    /// place of this one, unless it is sticky.
    pub(super) fn has_directory(&self) -> Result<bool> {
        let directory = self.directory();
        let Some(metadata) = self.disk.metadata(directory)? else { return Ok(false) };
        match exposure(&metadata, WRITE) {
            Some(mode) if mode & STICKY == 0 => {
                Err(FileStoreError::Exposed { path: directory.to_owned(), mode })
            }
            _ => Ok(true),
        }
    }

    fn look(&self) -> Result<Option<(Metadata, TokenSet)>> {
        if !self.has_directory()? || self.file(&self.path)?.is_none() {
            return Ok(None);
        }
        let Some((metadata, text)) = self.disk.read(&self.path, LIMIT)? else { return Ok(None) };
        let path = self.path.clone();
        match envelope::open(&text) {
            Ok(tokens) => Ok(Some((metadata, tokens))),
            Err(Unread::Newer(version)) => Err(FileStoreError::Newer { path, version }),
            Err(Unread::NotOurs(why)) => Err(FileStoreError::NotOurs { path, why }),
        }
    }

    fn make_directory(&self) -> Result<()> {
        if self.path.file_name().is_none() {
            let why = "its path has no file name";
            return Err(FileStoreError::NotOurs { path: self.path.clone(), why });
        }
        if self.has_directory()? {
            return Ok(());
        }
        let directory = self.directory();
        let missing: Vec<_> =
            directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        self.disk.create_directory(directory)?;
        for parent in missing.iter().filter_map(|made| made.parent()) {
            self.disk.sync_directory(parent)?;
        }
        Ok(())
    }

    /// A new file, whole and on the disk.
    fn draw_up(&self, draft: &Path, text: &[u8]) -> Result<()> {
        let file = self.disk.create(draft)?;
        self.disk.write(&file, draft, text)?;
        self.disk.sync(&file, draft)
    }

    /// Removes the drafts of those who died while they wrote. What cannot be removed now is removed
    /// by the next write.
    fn sweep(&self) {
        for path in self.disk.list(self.directory()).unwrap_or_default() {
            if self.is_draft(&path) {
                let _ = self.disk.remove(&path);
            }
        }
    }

    /// `.tokens.json.3kX9fQ27Lm0a.tmp` for `tokens.json`.
    fn draft(&self) -> PathBuf {
        let random = iter::repeat_with(fastrand::alphanumeric).take(RANDOM).collect::<String>();
        let mut name = self.draft_prefix();
        name.push(random);
        name.push(TMP);
        self.path.with_file_name(name)
    }

    fn is_draft(&self, path: &Path) -> bool {
        let prefix = self.draft_prefix();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let rest = name.strip_prefix(prefix.as_encoded_bytes());
        let random = rest.and_then(|rest| rest.strip_suffix(TMP.as_bytes()));
        random.is_some_and(|r| r.len() == RANDOM && r.iter().all(u8::is_ascii_alphanumeric))
    }

    fn draft_prefix(&self) -> OsString {
        let mut prefix = OsString::from(".");
        prefix.push(self.path.file_name().unwrap_or_default());
        prefix.push(".");
        prefix
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.path.with_file_name(name)
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// What is known about a file that is there, and nothing but a file.
    fn file(&self, path: &Path) -> Result<Option<Metadata>> {
        let metadata = self.disk.symlink_metadata(path)?;
        let path = path.to_owned();
        match metadata {
            Some(metadata) if metadata.is_symlink() => Err(FileStoreError::Symlink { path }),
            Some(metadata) if !metadata.is_file() => {
                Err(FileStoreError::NotOurs { path, why: "it is not a regular file" })
            }
            metadata => Ok(metadata),
        }
    }
}

/// The mode, if it gives users other than the owner one of these permissions. Elsewhere than on
/// Unix what others may is up to the directory.
fn exposure(metadata: &Metadata, permissions: u32) -> Option<u32> {
    #[cfg(unix)]
    let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777;
    #[cfg(not(unix))]
    let (mode, _) = (0, metadata);
    (mode & permissions != 0).then_some(mode)
}

/// Everything, for the group and for others.
const ANY_USE: u32 = 0o077;
const WRITE: u32 = 0o022;
/// Then only its owner removes or renames a file in a directory.
const STICKY: u32 = 0o1000;

/// How many random characters the name of a draft has.
const RANDOM: usize = 12;
const TMP: &str = ".tmp";
