//! Where a session keeps its tokens between two runs of a program, and shares them with others.
//!
//! # A store of your own: a sketch for PostgreSQL
//!
//! Two tables, since a transaction that holds the lock's row must not keep anybody from writing
//! tokens:
//!
//! ```text
//! CREATE TABLE session_lock   (session text PRIMARY KEY);   -- one row per session, made beforehand
//! CREATE TABLE session_tokens (session text PRIMARY KEY, tokens text NOT NULL);
//!
//! lock      on a connection of its own:
//!           SET idle_in_transaction_session_timeout = '30s';
//!           BEGIN;
//!           SELECT FROM session_lock WHERE session = $1 FOR UPDATE;
//!           The guard of the lease owns the connection; whoever drops it ends the transaction.
//! load      SELECT tokens FROM session_tokens WHERE session = $1
//! save      INSERT INTO session_tokens VALUES ($1, $2)
//!               ON CONFLICT (session) DO UPDATE SET tokens = excluded.tokens
//! clear     DELETE FROM session_tokens WHERE session = $1
//! replace   load; if these are not the `before` of the caller (`same_tokens`), and not yet its
//!           `tokens`: false. Else
//!           UPDATE session_tokens SET tokens = $3 WHERE session = $1 AND tokens = $2
//!           with the text that was loaded as $2; or, if nothing was there,
//!           INSERT INTO session_tokens VALUES ($1, $2) ON CONFLICT DO NOTHING
//!           One row: true. None: from the beginning, a few times.
//! ```
//!
//! `tokens` is a [`TokenSet`] by [`expose_secrets`](TokenSet::expose_secrets), as JSON. What this
//! promises, and what not:
//!
//! - The server frees the lock when the connection ends. It learns that a host has vanished, or that
//!   a process was paused, by the timeout only: so the lease ends by itself, and must say so
//!   ([`Lease::held_while`]): until 30 seconds after the last answer on that connection, less a
//!   margin. A refresh that takes longer needs a statement now and then (`SELECT 1`). Without the
//!   timeout a paused holder keeps everybody waiting.
//! - Whoever is dropped while it waits for the row must close its connection, or the lock is given
//!   to nobody; `lock_timeout` bounds that.
//! - Each refresh holds a connection and a transaction, for as long as the token endpoint takes. A
//!   pooler must not share the connection in between.
//! - Tokens are as durable as a commit: after a failover to an asynchronous replica, or with
//!   `synchronous_commit = off`, the newest set may be gone, and its refresh token with it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::token::TokenSet;

#[cfg(feature = "test-util")]
pub mod contract;
#[cfg(any(feature = "file", feature = "keyring", feature = "redis"))]
pub(crate) mod envelope;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "keyring")]
mod keyring;
mod memory;
#[cfg(any(feature = "file", feature = "redis"))]
mod pauses;
#[cfg(feature = "redis")]
mod redis;
mod resources;

#[cfg(feature = "file")]
pub use self::file::{FileStore, FileStoreError};
#[cfg(feature = "keyring")]
pub use self::keyring::{KeyringStore, KeyringStoreError};
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStoreError};
pub use self::resources::SharedRefreshToken;

/// Why a store could not do what it was asked.
///
/// It ends up as the source of an [`Error`](crate::Error) that people log: keep tokens out of it.
pub type StoreError = Box<dyn StdError + Send + Sync>;

/// A place for one session's tokens.
///
/// # What an implementation promises
///
/// - **`save` is atomic**: whoever loads, even after a crash at any instant, finds the old set or
///   the new one, whole. When it returns, the set is durable: the old refresh token may already be
///   dead, and nobody else has the new one.
/// - **What was saved comes back**: both tokens, the ends, the lifetime, the scope, the type and the
///   other members. Ends are wall-clock times; never store a lifetime that counts from "now".
///   [`TokenSet::expose_secrets`] is a form to write them in. It has one thing more: which login the
///   set comes from. A store that loses that may get a login written over its own successors, where
///   an earlier try to save it has arrived though it seemed to fail.
/// - **`lock` excludes**: while a [`Lease`] lives, nobody else who shares the tokens holds one. It
///   waits until it is free; the session bounds the wait. The lock is freed when the lease is
///   dropped *and* when the process dies.
/// - **`replace` is one step** where a lock can end while its holder lives: of two callers that
///   found the same set, one replaces it.
/// - `load`, `save`, `replace` and `clear` work with and without the lease being held: the user's
///   login or logout does not wait for ever.
/// - Everything may be called again after an error: then it may have been done already.
///   `clear` may be called when there is nothing to clear.
///
/// # What is lost without it
///
/// A store that cannot lock returns [`Lease::none`]. Then two processes may send the same refresh
/// token at the same time; a server that detects reuse ends both their sessions. Where a lock ends
/// by itself ([`Lease::held_while`]) and `replace` is several steps, a holder that was paused may
/// write an older set over a newer one, or bring back a session that was logged out.
///
/// # Errors
///
/// "There is nothing" is `Ok(None)`; anything that could not be read or understood is an error:
/// then the session neither overwrites it nor takes it for a logged-out session. An error of `lock`
/// or `load` puts the refresh off, since nobody knows which refresh token is the current one; the
/// access token in memory is used as long as it lives. After an error of `save` or `replace` the
/// new set is used, and saved later.
///
/// With the feature `test-util`, `store::contract::check` runs all of this against your store.
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// Reads the tokens; `None` if there are none.
    async fn load(&self) -> Result<Option<TokenSet>, StoreError>;

    /// Replaces whatever is there: for a login, where what is there cannot be read, or changes again
    /// and again.
    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError>;

    /// Removes the tokens.
    async fn clear(&self) -> Result<(), StoreError>;

    /// Waits until nobody else refreshes these tokens.
    async fn lock(&self) -> Result<Lease, StoreError>;

    /// Replaces `before`, which the caller found here, by `tokens`. Says `false`, and changes
    /// nothing, if something else is here by now: not the [same tokens](TokenSet::same_tokens) as
    /// `before`, and not yet `tokens` either.
    ///
    /// By default this is `load`, compare and `save`: enough where the lock lasts until it is given
    /// back.
    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        let found = self.load().await?;
        let is_free = is_free(found.as_ref(), before, tokens);
        if is_free {
            self.save(tokens).await?;
        }
        Ok(is_free)
    }
}

/// Whether `tokens` may be written where `found` is, by somebody who found `before`.
fn is_free(found: Option<&TokenSet>, before: Option<&TokenSet>, tokens: &TokenSet) -> bool {
    match (found, before) {
        (None, None) => true,
        (Some(found), Some(before)) if found.same_tokens(before) => true,
        (Some(found), _) => found.same_tokens(tokens),
        (None, Some(_)) => false,
    }
}

/// The right to refresh, until it is dropped.
pub struct Lease {
    owner: String,
    is_held: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    /// In a mutex because a guard need not be `Sync`, and a lease is.
    guard: Option<Mutex<Box<dyn Any + Send>>>,
    /// So is this future.
    is_free: Option<Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Lease {
    /// A lease that is given back when `guard` is dropped.
    pub fn new(guard: impl Any + Send) -> Self {
        Self { guard: Some(Mutex::new(Box::new(guard))), ..Self::none() }
    }

    /// A lease that excludes nobody.
    pub const fn none() -> Self {
        Self { owner: String::new(), is_held: None, guard: None, is_free: None }
    }

    /// Names the owner, as others who share the store see it. For logs: no secret.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Says how to find out, without asking anybody, whether the lease is over: for a lock that
    /// ends by itself. The session asks before it sends the refresh token. By default a lease is
    /// held until it is dropped.
    #[must_use]
    pub fn held_while(mut self, is_held: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.is_held = Some(Box::new(is_held));
        self
    }

    /// Says when the lock is free, once the guard was dropped: for a lock that is given back over a
    /// network. The session waits for it, so that a program that ends with
    /// [`settle`](crate::Session::settle) leaves no lock. By default it is free at once.
    #[must_use]
    pub fn free_after(mut self, is_free: impl Future<Output = ()> + Send + 'static) -> Self {
        self.is_free = Some(Mutex::new(Box::pin(is_free)));
        self
    }

    /// Drops the guard, and waits until the lock is free.
    pub(crate) async fn give_back(mut self) {
        drop(self.guard.take());
        if let Some(is_free) = self.is_free.take() {
            is_free.into_inner().await;
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.is_held.as_ref().is_none_or(|is_held| is_held())
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("owner", &self.owner).finish_non_exhaustive()
    }
}
