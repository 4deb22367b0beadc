use keyring_core::Error;

/// Why a [`KeyringStore`](crate::KeyringStore) could not do what it was asked.
///
/// Every [`StoreError`](crate::StoreError) of that store is one of these, and with a session it is
/// the source of the [`Error`](crate::Error):
///
/// ```
/// use std::error::Error as _;
///
/// use reqwest_refresh::{Error, KeyringStoreError};
///
/// fn is_locked(error: &Error) -> bool {
///     let why = error.source().and_then(|source| source.downcast_ref());
///     matches!(why, Some(KeyringStoreError::Locked(_)))
/// }
/// ```
///
/// It quotes nothing of what is in an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringStoreError {
    /// Several entries have the same service and user. Remove them, and log in.
    #[error("{count} entries of the secret store have the same service and user")]
    #[non_exhaustive]
    Ambiguous {
        /// How many.
        count: usize,
    },
    /// The call ended without an answer: the secret store panicked, or the runtime shut down.
    #[error("the secret store panicked, or the runtime shut down")]
    Interrupted,
    /// The secret store is locked, or does not let this program in.
    #[error("the secret store is locked")]
    Locked(#[source] Error),
    /// What is there was written by a newer version of this crate.
    #[error("the secret store's entry was written by a newer version, in format version {version}")]
    #[non_exhaustive]
    Newer {
        /// The version of its format.
        version: u64,
    },
    /// What is there was not written by a [`KeyringStore`](crate::KeyringStore), or was damaged
    /// since. Log in, or choose another service or user.
    #[error("the secret store's entry is not a token set: {why}")]
    #[non_exhaustive]
    NotOurs {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The secret store fails, is not there (`NoDefaultStore`), or does not take the service, the
    /// user (`Invalid`) or so much at once (`TooLong`).
    #[error("the secret store refuses")]
    Refused(#[source] Error),
    /// The tokens could be written, but not read again: their [members](crate::TokenSet::members)
    /// are nested more than some 120 levels deep.
    #[error("the tokens cannot be written such that they can be read again")]
    Unwritable,
}

/// What was in the entry is left out.
impl From<Error> for KeyringStoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Ambiguous(entries) => Self::Ambiguous { count: entries.len() },
            Error::BadDataFormat(..) | Error::BadEncoding(_) => {
                Self::NotOurs { why: "the secret store cannot read it" }
            }
            Error::NoStorageAccess(_) => Self::Locked(error),
            _ => Self::Refused(error),
        }
    }
}
