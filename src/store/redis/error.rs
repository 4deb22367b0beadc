use redis::{ErrorKind, RedisError};

use crate::store::StoreError;

/// Why a [`RedisStore`](crate::RedisStore) could not do what it was asked.
///
/// Every [`StoreError`] of that store is one of these, and with a session it is the source of the
/// [`Error`](crate::Error):
///
/// ```
/// use std::error::Error as _;
///
/// use reqwest_refresh::{Error, RedisStoreError};
///
/// fn is_somebody_elses(error: &Error) -> bool {
///     let why = error.source().and_then(|source| source.downcast_ref());
///     matches!(why, Some(RedisStoreError::NotOurs { .. }))
/// }
/// ```
///
/// It quotes neither tokens nor what Redis says, which may quote a command with tokens in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisStoreError {
    /// The functions given to [`with_codec`](crate::RedisStore::with_codec) failed: the value may
    /// have been written with another key. It was not touched.
    #[error("the codec of the tokens failed")]
    Codec(#[source] StoreError),
    /// Others were quicker to change the tokens, again and again.
    #[error("the tokens in Redis change again and again")]
    Contended,
    /// Redis refuses the user name or the password.
    #[error("Redis refuses the user name or the password")]
    Credentials,
    /// What is there was written by a newer version of this crate. It was not touched.
    #[error("the value in Redis was written by a newer version, in format version {version}")]
    #[non_exhaustive]
    Newer {
        /// The version of its format.
        version: u64,
    },
    /// What is there was not written by a [`RedisStore`](crate::RedisStore), or was damaged since. It
    /// was not touched: remove it, or choose another key or prefix.
    #[error("the value in Redis is not a token set: {why}")]
    #[non_exhaustive]
    NotOurs {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Redis answered with an error.
    #[error("Redis answers with the error {code}")]
    #[non_exhaustive]
    Refused {
        /// Its first word, such as `NOAUTH`, `NOPERM`, `OOM`, `READONLY` or `WRONGTYPE`.
        code: String,
    },
    /// The tokens could be written, but not read again: they take more than 4 MiB, their
    /// [members](crate::TokenSet::members) are nested more than some 120 levels deep, or the
    /// codec makes nothing of them.
    #[error("the tokens cannot be written such that they can be read again")]
    Unwritable,
    /// No connection, or no answer in time.
    #[error("Redis cannot be reached: {why}")]
    #[non_exhaustive]
    Unreachable {
        /// What the operating system, or TLS, says.
        why: String,
    },
    /// Something answers that is not Redis, or not as this crate knows it.
    #[error("Redis answers something unexpected")]
    Unexpected,
}

impl From<RedisError> for RedisStoreError {
    fn from(error: RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => Self::Credentials,
            (ErrorKind::Io, _) => Self::Unreachable { why: error.to_string() },
            (_, Some(code)) if is_code(code) => Self::Refused { code: code.to_owned() },
            _ => Self::Unexpected,
        }
    }
}

/// Whether this is the word that an error of Redis begins with, and nothing else.
fn is_code(code: &str) -> bool {
    code.len() <= 20 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    /// K-63: an error of Redis is told by its code, and what is none may be anything.
    #[test]
    fn k_63_only_a_code_is_quoted() {
        for (code, is_quoted) in [
            ("OOM", true),
            ("CNRYABCDEFGHIJKLMNOP", true),
            ("CNRYABCDEFGHIJKLMNOPQ", false),
            ("cnry", false),
            ("CNRY:7", false),
        ] {
            let error = make_extension_error(code.to_owned(), None);
            let printed = RedisStoreError::from(error).to_string();
            assert_eq!(printed.contains(code), is_quoted, "{code}: {printed}");
        }
    }
}
