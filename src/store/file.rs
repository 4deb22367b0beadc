use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::store::pauses::Pauses;
use crate::store::{Lease, StoreError, TokenStore, is_free};
use crate::token::TokenSet;

mod disk;
mod error;
mod place;

use self::place::{Lock, Place};

pub use self::error::FileStoreError;

/// Tokens in a file, shared by every process of one user that names the same path. Needs the
/// feature `file`.
///
/// ```
/// use reqwest_refresh::{Error, FileStore, Session, TokenEndpoint};
///
/// fn session(endpoint: TokenEndpoint) -> Result<Session, Error> {
///     Session::builder(endpoint).store(FileStore::new("/home/me/.config/my-app/tokens.json")).build()
/// }
/// ```
///
/// # What is promised
///
/// - **Old or new, never torn.** A new file is written beside the old one, synced, and renamed over
///   it; then the directory is synced. A crash at any instant leaves one of the two. What a dead
///   process left unfinished is removed by the next one that writes.
/// - **One refresh for all processes.** The operating system holds the lock, and frees it when the
///   process ends, in whichever way. Changes have a second lock of their own, so
///   [`replace`](TokenStore::replace) is one step also against a login that does not wait for a
///   refresh.
/// - **Private from the first byte.** Files are created with mode 0600, missing directories with
///   0700. A file that other users can read or write, or that belongs to one of them, is not loaded;
///   saving and clearing end that state. A directory in which others can write is refused, unless it is sticky. Symbolic links
///   are not followed, but for the directories above the file.
/// - **Nothing is overwritten that was not understood**: a foreign, damaged, empty or half-written
///   file, or one of a newer version, is an error and stays as it is, also when tokens are saved or
///   cleared. A session goes on with the token in memory as long as that lives.
///
/// Every error is a [`FileStoreError`].
///
/// # The format
///
/// JSON, at most 4 MiB of it. Ends are moments, never lifetimes that count from "now".
///
/// ```json
/// {
///   "format": "reqwest-refresh",
///   "version": 1,
///   "tokens": {
///     "access_token": "the access token",
///     "refresh_token": "the refresh token",
///     "expires_at": 2000000000,
///     "lifetime": 3600
///   }
/// }
/// ```
///
/// `tokens` is what [`TokenSet::expose_secrets`] describes. Other members are ignored, and lost with
/// the next save. A later format that this version must not overwrite will have another `version`.
///
/// Beside `tokens.json` lie `tokens.json.lock` and `tokens.json.write-lock`. They are empty and stay:
/// whoever removes one while programs run has two locks. While a file is written there is
/// `.tokens.json.`, twelve random characters, and `.tmp`.
///
/// # Limits
///
/// - It is not encrypted: whoever can read the user's files can use the tokens.
/// - Only the directory that the file is in is looked at, not those above it, and nobody asks who
///   owns it: who does can take the file away, or put back one that was ours before.
/// - A network file system must have locks that hold across machines; else they hold on one alone.
/// - On Windows who may read the file is up to the directory, and whether a new name survives
///   a power cut is up to the file system.
/// - A Tokio runtime is needed, with its timer. Files are touched on its threads for blocking work.
///   A save or a clear that has begun there goes on when its caller goes away.
#[derive(Clone)]
pub struct FileStore {
    place: Arc<Place>,
}

impl FileStore {
    /// A store in this file, which need not be there yet; nor need its directory.
    ///
    /// Nothing is read or written before it is used. A relative path counts from the current
    /// directory of this moment.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { place: Arc::new(Place::new(path.into())) }
    }

    /// Does something as the only one who changes the file.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T, FileStoreError> + Send + 'static,
    ) -> Result<T, FileStoreError> {
        let lock = self.wait_for(Lock::Write).await?;
        self.block_on(move |place| {
            let _lock = lock;
            work(place)
        })
        .await
    }

    /// Asks again and again, and blocks nobody: whoever stops waiting leaves nothing behind.
    async fn wait_for(&self, lock: Lock) -> Result<File, FileStoreError> {
        let mut pauses = Pauses::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            if let Some(held) = self.block_on(move |place| place.try_lock(lock)).await? {
                return Ok(held);
            }
            sleep(pauses.next(fastrand::f64())).await;
        }
    }

    /// Does something that blocks on a thread that may.
    async fn block_on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T, FileStoreError> + Send + 'static,
    ) -> Result<T, FileStoreError> {
        let place = Arc::clone(&self.place);
        let interrupted = |source: tokio::task::JoinError| FileStoreError::Io {
            path: self.place.path().to_owned(),
            what: "used: the runtime shut down",
            source: source.into(),
        };
        spawn_blocking(move || work(&place)).await.map_err(interrupted)?
    }
}

/// How long to wait before a lock is tried again: at first, and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

#[async_trait]
impl TokenStore for FileStore {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        Ok(self.block_on(Place::load).await?)
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        let tokens = tokens.clone();
        let save = move |place: &Place| {
            place.check()?;
            place.write(&tokens)
        };
        Ok(self.change(save).await?)
    }

    async fn clear(&self) -> Result<(), StoreError> {
        // Where there is no directory there is nothing to clear, and none is made for it.
        if !self.block_on(Place::has_directory).await? {
            return Ok(());
        }
        let clear = |place: &Place| {
            place.check()?;
            place.remove()
        };
        Ok(self.change(clear).await?)
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        let (before, tokens) = (before.cloned(), tokens.clone());
        let replace = move |place: &Place| {
            let is_free = is_free(place.load()?.as_ref(), before.as_ref(), &tokens);
            if is_free {
                place.write(&tokens)?;
            }
            Ok(is_free)
        };
        Ok(self.change(replace).await?)
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        let lock = self.wait_for(Lock::Refresh).await?;
        Ok(Lease::new(lock).with_owner(format!("process {}", process::id())))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileStore").field(&self.place.path()).finish()
    }
}

#[cfg(test)]
mod tests;
