//! Tokens in Redis: many processes on many hosts share one session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Client, Cmd, cmd};
use secrecy::zeroize::Zeroizing;

use crate::clock::FAR;
use crate::error::Error;
use crate::store::envelope::{self, Unread};
use crate::store::{Lease, StoreError, TokenStore, is_free};
use crate::token::TokenSet;

mod claim;
mod error;
mod link;

use self::claim::Claim;
use self::link::Link;

pub use self::error::RedisStoreError;

/// Tokens in Redis (or Valkey), shared by all who name the same server and key: one session for a
/// fleet. Needs the feature `redis`, and `redis-tls` for `rediss://`.
///
/// ```no_run
/// use reqwest_refresh::{Error, RedisStore, Session, SessionBuilder};
///
/// fn shared(builder: SessionBuilder) -> Result<Session, Error> {
///     let store = RedisStore::new("redis://:password@redis.example.com/0", "orders")?;
///     builder.store(store).build()
/// }
/// ```
///
/// # What is there
///
/// | key | value |
/// |---|---|
/// | `reqwest-refresh:{orders}:tokens` | the tokens: the JSON of a `FileStore`, or what [`with_codec`](Self::with_codec) makes of it |
/// | `reqwest-refresh:{orders}:lock` | the owner of the lease, as host, process and a random number |
///
/// The braces are in the keys: they put both into one slot of a cluster. The tokens stay until
/// somebody logs out. Whoever can read them can use them: give the keys to a user of their own
/// (`ACL SETUSER … ~reqwest-refresh:*`), and use TLS. What is needed are the commands `GET`, `SET`,
/// `DEL`, `PEXPIRE` and `EVAL`, and `SELECT` for a database other than 0.
///
/// A value that this crate has not written, that a newer version of it has written, or that cannot
/// be decoded, is an error, and is neither overwritten nor removed, by a login or logout either.
///
/// # One refresh for the fleet
///
/// A lease is a key with an owner and an end, [30 seconds](Self::with_lease) later; while it is in
/// use it is renewed each third of that time, and a holder that does not get through to Redis stops
/// counting on it before Redis does. A holder that was paused beyond that may still come back with
/// an answer: it is written by a script, and only if the tokens that it replaces are still there.
/// Its session then takes over what it finds.
///
/// So nothing newer is overwritten. That nobody ever *sends* the same refresh token twice cannot be
/// had: a process may be paused between its last look at the lease and its request. Nor can a lease
/// outlive a failover, since Redis copies to its replicas afterwards (`min-replicas-to-write`
/// narrows that gap). How durable a saved set is, is up to `appendonly` and `appendfsync`.
///
/// Tokens that Redis has lost altogether cannot be told from a logout: with their next refresh all
/// who share them are logged out. So Redis must not evict them (`maxmemory-policy noeviction`), nor
/// start again without its data. Where it has merely lost the last set, and holds the one before,
/// the process that got the last one goes on with it, and replaces the old one with its next
/// refresh; any other takes what it finds, whose refresh token may be used up.
///
/// A process that is killed while it holds the lease keeps the others waiting until the lease ends;
/// one that ends with [`settle`](crate::Session::settle) does not. Who waits asks again after 10 milliseconds, and then ever
/// less often, down to 4 times a second.
///
/// # When Redis is away
///
/// Connecting is given up after 2 seconds, an answer after 3. The tokens in memory are used as long
/// as they live; no rotating refresh token is sent without the lease, unless
/// [`refresh_without_store`](crate::SessionBuilder::refresh_without_store) says so.
///
/// A connection lasts as long as somebody reads, writes, waits for the lease or has it. So there is
/// nothing to reconnect: after a restart or a failover the next one goes where the name leads to.
/// A node of a cluster that sends its clients elsewhere (`MOVED`) is not followed: use the cluster's
/// proxy or a single server.
///
/// # Errors
///
/// Every error is a [`RedisStoreError`].
#[derive(Clone)]
pub struct RedisStore {
    client: Client,
    prefix: String,
    key: String,
    lease: Duration,
    codec: Option<Codec>,
}

type Transform = dyn Fn(Vec<u8>) -> Result<Vec<u8>, StoreError> + Send + Sync;

#[derive(Clone)]
struct Codec {
    encode: Arc<Transform>,
    decode: Arc<Transform>,
}

impl RedisStore {
    /// The tokens of the session `key`, at `redis://[user][:password]@host[:port][/database]`,
    /// `rediss://` for TLS, or `redis+unix:///path?db=…&user=…&pass=…`.
    ///
    /// Nothing is sent yet. For TLS the system's certificates count, or those of the environment
    /// variables `SSL_CERT_FILE` and `SSL_CERT_DIR`. Where other crates bring a second crypto
    /// provider for rustls, your program must install one of them (`install_default`), or rustls
    /// panics when it connects.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the URL is none for Redis,
    /// has a fragment (`#insecure`), or is for TLS without the feature `redis-tls`.
    pub fn new(url: &str, key: impl Into<String>) -> Result<Self, Error> {
        if url.contains('#') {
            let message = "the URL of the Redis store has a fragment; \
                           `#insecure` would take any server's certificate";
            return Err(Error::configuration(message));
        }
        let is_tls = ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme));
        // What the client says about it may quote a part of the URL.
        let client =
            Client::open(url).map_err(|_| match is_tls && !cfg!(feature = "redis-tls") {
                true => Error::configuration("Redis over TLS needs the feature `redis-tls`"),
                false => Error::configuration("the URL of the Redis store is none for Redis"),
            })?;
        let (prefix, key) = ("reqwest-refresh:".to_owned(), key.into());
        Ok(Self { client, prefix, key, lease: Duration::from_secs(30), codec: None })
    }

    /// What both keys begin with. Defaults to `reqwest-refresh:`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long a lease lasts after its last renewal: how long a process that was killed keeps the
    /// others from refreshing, and for how long Redis may be away while somebody refreshes. At least
    /// a tenth of a second. Defaults to 30 seconds.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(Duration::from_millis(100), FAR);
        self
    }

    /// What becomes of the bytes of a token set before they are written, and after they were read:
    /// encryption, for one. By default they are JSON.
    ///
    /// All who share the key need the same. An `encode` that gives something else each time is fine,
    /// an empty result is an error. What these functions say in an error is passed on as it is.
    ///
    /// ```
    /// use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, NONCE_LEN, RandomizedNonceKey};
    /// use reqwest_refresh::{RedisStore, StoreError};
    ///
    /// fn encrypted(store: RedisStore, key: &[u8; 32]) -> Result<RedisStore, StoreError> {
    ///     let sealing = RandomizedNonceKey::new(&AES_256_GCM, key)?;
    ///     let opening = RandomizedNonceKey::new(&AES_256_GCM, key)?;
    ///     let encrypt = move |mut bytes: Vec<u8>| {
    ///         let nonce = sealing.seal_in_place_append_tag(Aad::empty(), &mut bytes)?;
    ///         Ok([nonce.as_ref().as_slice(), &bytes].concat())
    ///     };
    ///     let decrypt = move |bytes: Vec<u8>| {
    ///         let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or("too short")?;
    ///         let (nonce, mut sealed) = (Nonce::try_assume_unique_for_key(nonce)?, sealed.to_vec());
    ///         Ok(opening.open_in_place(nonce, Aad::empty(), &mut sealed)?.to_vec())
    ///     };
    ///     Ok(store.with_codec(encrypt, decrypt))
    /// }
    /// ```
    #[must_use]
    pub fn with_codec(
        mut self,
        encode: impl Fn(Vec<u8>) -> Result<Vec<u8>, StoreError> + Send + Sync + 'static,
        decode: impl Fn(Vec<u8>) -> Result<Vec<u8>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.codec = Some(Codec { encode: Arc::new(encode), decode: Arc::new(decode) });
        self
    }

    fn link(&self) -> Link {
        Link::new(self.client.clone())
    }

    /// No key of another session, whatever its name, is the same.
    fn key_of(&self, what: &str) -> String {
        format!("{}{{{}}}:{what}", self.prefix, self.key)
    }

    /// The bytes that are there; none if there is nothing.
    async fn get(&self, link: &mut Link) -> Result<Vec<u8>, RedisStoreError> {
        let found: Option<_> = link.ask(cmd("GET").arg(self.key_of("tokens"))).await?;
        Ok(found.unwrap_or_default())
    }

    fn encode(&self, tokens: &TokenSet) -> Result<Vec<u8>, RedisStoreError> {
        let bytes = envelope::seal(tokens).ok_or(RedisStoreError::Unwritable)?;
        let bytes = match &self.codec {
            Some(codec) => (codec.encode)(bytes.to_vec()).map_err(RedisStoreError::Codec)?,
            None => bytes.to_vec(),
        };
        match bytes.is_empty() {
            true => Err(RedisStoreError::Unwritable),
            false => Ok(bytes),
        }
    }

    fn decode(&self, bytes: Vec<u8>) -> Result<Option<TokenSet>, RedisStoreError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes = match &self.codec {
            Some(codec) => (codec.decode)(bytes).map_err(RedisStoreError::Codec)?,
            None => bytes,
        };
        envelope::open(&Zeroizing::new(bytes)).map(Some).map_err(|unread| match unread {
            Unread::Newer(version) => RedisStoreError::Newer { version },
            Unread::NotOurs(why) => RedisStoreError::NotOurs { why },
        })
    }

    /// Writes `tokens`, or removes what is there, if that `may_go`. One step: what was judged is
    /// what is replaced, byte for byte.
    async fn write(
        &self,
        tokens: Option<&TokenSet>,
        may_go: impl Fn(Option<&TokenSet>) -> bool + Send,
    ) -> Result<bool, RedisStoreError> {
        let after = tokens.map(|tokens| self.encode(tokens)).transpose()?.unwrap_or_default();
        let mut link = self.link();
        for _ in 0..ROUNDS {
            let before = self.get(&mut link).await?;
            let swap = self.swap(&before, &after);
            if !may_go(self.decode(before)?.as_ref()) {
                return Ok(false);
            }
            if link.ask(&swap).await? {
                return Ok(true);
            }
        }
        Err(RedisStoreError::Contended)
    }

    fn swap(&self, before: &[u8], after: &[u8]) -> Cmd {
        let mut swap = cmd("EVAL");
        swap.arg(SWAP).arg(1).arg(self.key_of("tokens")).arg(before).arg(after);
        swap
    }
}

#[async_trait]
impl TokenStore for RedisStore {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        Ok(self.decode(self.get(&mut self.link()).await?)?)
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.write(Some(tokens), |_| true).await?;
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.write(None, |_| true).await?;
        Ok(())
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        let claim = Claim::new(self.link(), self.key_of("lock"), self.lease);
        Ok(claim.wait().await?)
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        Ok(self.write(Some(tokens), |found| is_free(found, before, tokens)).await?)
    }
}

impl fmt::Debug for RedisStore {
    /// Without the server: its URL may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .field("key", &self.key)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

/// Nothing and an empty value are the same.
const SWAP: &str = "\
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1";

/// How often something is tried again that somebody else was quicker to write.
const ROUNDS: usize = 10;
