use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use keyring_core::CredentialStore;
use secrecy::zeroize::Zeroizing;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::error::{Error, ErrorKind};
use crate::store::envelope::{self, Unread};
use crate::store::keyring::entries::Entries;
use crate::store::{Lease, StoreError, TokenStore, is_free};
use crate::token::TokenSet;

mod entries;
mod error;

pub use self::error::KeyringStoreError;

/// Tokens in the system's secret store: Keychain (macOS), Credential Manager (Windows), Secret
/// Service (Linux, BSD). They outlive the process, and other users cannot read them.
///
/// Needs the feature `keyring`. The secret store is the application's choice: the crate
/// [`keyring`](https://docs.rs/keyring) 4 opens the system's own, and
/// [`keyring_core`] takes any other by `set_default_store`.
///
/// ```no_run
/// # mod keyring { // The real one is a hundred crates on Linux.
/// #     pub struct Entry;
/// #     impl Entry { pub fn store_status() -> &'static keyring_core::Result<()> { &Ok(()) } }
/// # }
/// use reqwest_refresh::{KeyringStore, Session, TokenEndpoint};
///
/// fn session(endpoint: TokenEndpoint) -> Result<Session, Box<dyn std::error::Error>> {
///     keyring::Entry::store_status().as_ref()?; // opens the system's secret store
///     let store = KeyringStore::new("my-app", "alice")?;
///     Ok(Session::builder(endpoint).store(store).build()?)
/// }
/// ```
///
/// # Processes
///
/// Secret stores have no locks. Clones of a `KeyringStore` share one, so sessions of one process
/// refresh one at a time; two processes may send the same refresh token at the same time, and one
/// may write over what the other has just saved. A program of which several run at once needs
/// a store that locks.
///
/// # Large sets
///
/// An entry of the Credential Manager holds 2,560 bytes, which two JWTs exceed. What is too long for
/// one entry, by the limit that the secret store itself tells, is kept in several (`alice#…`) that
/// are replaced in one step all the same. A crash while they are written, or two processes that
/// write at the same time, can leave some behind that nobody reads.
///
/// # Time
///
/// Calls go to threads that may block, one after the other. The secret store may ask a person to
/// unlock it; the session waits for that no longer than its
/// [`store_timeout`](crate::SessionBuilder::store_timeout). What has begun by then is still done,
/// before anything else.
#[derive(Clone)]
pub struct KeyringStore {
    /// Locked while they are used: what was asked for first is done first.
    entries: Arc<Mutex<Entries>>,
    lock: Arc<Mutex<()>>,
}

impl KeyringStore {
    /// The tokens of `user` at `service`, in the secret store that the application has set with
    /// `keyring_core::set_default_store`, or the crate `keyring` for it.
    ///
    /// `service` and `user` are names in a list that people look at: the application, and who has
    /// logged in. Each session needs its own pair.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if no secret store was set, or it does not
    /// take these names.
    pub fn new(service: impl Into<String>, user: impl Into<String>) -> Result<Self, Error> {
        let store = keyring_core::get_default_store().ok_or(keyring_core::Error::NoDefaultStore);
        Self::within(store, service, user)
    }

    /// The same in `store`, for an application that has several.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if it does not take these names.
    pub fn in_store(
        store: Arc<CredentialStore>,
        service: impl Into<String>,
        user: impl Into<String>,
    ) -> Result<Self, Error> {
        Self::within(Ok(store), service, user)
    }

    fn within(
        store: Result<Arc<CredentialStore>, keyring_core::Error>,
        service: impl Into<String>,
        user: impl Into<String>,
    ) -> Result<Self, Error> {
        let entries = store.and_then(|store| Entries::new(store, service.into(), user.into()));
        let entries = entries.map_err(|error| {
            let source = Some(Arc::new(KeyringStoreError::from(error)) as _);
            Error::with_source(ErrorKind::Configuration, NO_ENTRY, source)
        })?;
        Ok(Self { entries: Arc::new(Mutex::new(entries)), lock: Arc::default() })
    }

    /// Runs what blocks. A caller who goes away does not stop it, and it is over before the next
    /// one begins.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entries) -> Result<T, KeyringStoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let entries = Arc::clone(&self.entries).lock_owned().await;
        let done = spawn_blocking(move || work(&entries)).await;
        // What is lost here may quote what the secret store panicked about.
        Ok(done.unwrap_or(Err(KeyringStoreError::Interrupted))?)
    }
}

#[async_trait]
impl TokenStore for KeyringStore {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.in_turn(load).await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        let tokens = tokens.clone();
        self.in_turn(move |entries| save(entries, &tokens)).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.in_turn(|entries| Ok(entries.clear()?)).await
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        let (before, tokens) = (before.cloned(), tokens.clone());
        let work = move |entries: &Entries| {
            let is_free = is_free(load(entries)?.as_ref(), before.as_ref(), &tokens);
            if is_free {
                save(entries, &tokens)?;
            }
            Ok(is_free)
        };
        self.in_turn(work).await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        Ok(Lease::new(Arc::clone(&self.lock).lock_owned().await))
    }
}

impl fmt::Debug for KeyringStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyringStore").finish_non_exhaustive()
    }
}

fn load(entries: &Entries) -> Result<Option<TokenSet>, KeyringStoreError> {
    let Some(written) = entries.read()? else { return Ok(None) };
    envelope::open(&Zeroizing::new(written)).map(Some).map_err(|unread| match unread {
        Unread::Newer(version) => KeyringStoreError::Newer { version },
        Unread::NotOurs(why) => KeyringStoreError::NotOurs { why },
    })
}

fn save(entries: &Entries, tokens: &TokenSet) -> Result<(), KeyringStoreError> {
    let tokens = envelope::seal(tokens).ok_or(KeyringStoreError::Unwritable)?;
    Ok(entries.write(&tokens)?)
}

const NO_ENTRY: &str = "no secret store was set, or it does not take this service and user";
