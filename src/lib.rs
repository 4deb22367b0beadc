#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accounts;
mod clock;
mod discovery;
mod error;
mod http_client;
mod middleware;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod properties;
mod proto;
mod refresh;
mod secret;
mod session;
pub mod store;
mod token;
mod token_endpoint;

pub use self::accounts::{Account, Accounts, AccountsBuilder};
#[cfg(feature = "test-util")]
pub use self::clock::ManualClock;
pub use self::discovery::ServerMetadata;
pub use self::error::{
    Error, ErrorKind, LoginReason, RefreshError, RefreshFailure, Rejection, ServerError,
};
pub use self::middleware::Authenticate;
pub use self::proto::client_auth::ClientAuth;
#[cfg(feature = "jwt-auth")]
pub use self::proto::jws::{SigningAlgorithm, SigningKey};
pub use self::proto::provider::{Judgement, Provider};
pub use self::refresh::Refresh;
pub use self::session::{Event, Events, Session, SessionBuilder, Status};
#[cfg(feature = "file")]
pub use self::store::{FileStore, FileStoreError};
#[cfg(feature = "keyring")]
pub use self::store::{KeyringStore, KeyringStoreError};
pub use self::store::{Lease, MemoryStore, SharedRefreshToken, StoreError, TokenStore};
#[cfg(feature = "redis")]
pub use self::store::{RedisStore, RedisStoreError};
pub use self::token::{ExposedTokenSet, Generation, TokenSet};
pub use self::token_endpoint::TokenEndpoint;
