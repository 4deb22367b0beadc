//! Where a session keeps its tokens between two runs of a program, and shares them with others.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;

use crate::token::TokenSet;

#[cfg(feature = "test-util")]
pub mod contract;
mod memory;

pub use self::memory::MemoryStore;

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
///   [`TokenSet::expose_secrets`] is a form to write them in.
/// - **`lock` excludes**: while a [`Lease`] lives, nobody else who shares the tokens holds one. It
///   waits until it is free; the session bounds the wait. The lock is freed when the lease is
///   dropped *and* when the process dies. A store that cannot lock returns [`Lease::none`]: then
///   two processes may use up one refresh token twice.
/// - `load`, `save` and `clear` work with and without the lease being held.
/// - Everything may be called again after an error, and `clear` when there is nothing to clear.
///
/// # Errors
///
/// "There is nothing" is `Ok(None)`; anything that could not be read or understood is an error:
/// then the session neither overwrites it nor takes it for a logged-out session.
///
/// With the feature `test-util`, `store::contract::check` runs all of this against your store.
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// Reads the tokens; `None` if there are none.
    async fn load(&self) -> Result<Option<TokenSet>, StoreError>;

    /// Replaces the tokens.
    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError>;

    /// Removes the tokens.
    async fn clear(&self) -> Result<(), StoreError>;

    /// Waits until nobody else refreshes these tokens.
    async fn lock(&self) -> Result<Lease, StoreError>;
}

/// The right to refresh, until it is dropped.
pub struct Lease {
    _guard: Option<Box<dyn Any + Send>>,
}

impl Lease {
    /// A lease that is given back when `guard` is dropped.
    pub fn new(guard: impl Any + Send) -> Self {
        Self { _guard: Some(Box::new(guard)) }
    }

    /// A lease that excludes nobody.
    pub const fn none() -> Self {
        Self { _guard: None }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
