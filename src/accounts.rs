//! Many sessions behind one client: one for each account, made when it is first needed.

use std::collections::hash_map;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::accounts::opening::{Opened, Opening, refuse_reentry};
use crate::accounts::shard::{Entry, Shard};
use crate::error::{Error, ErrorKind};
use crate::session::{Patience, Session, SessionBuilder, Settings};
use crate::store::StoreError;

mod opening;
mod shard;

type OpenFuture =
    std::pin::Pin<Box<dyn Future<Output = Result<SessionBuilder, StoreError>> + Send>>;
type Open<K> = Box<dyn Fn(K, SessionBuilder) -> OpenFuture + Send + Sync>;

/// The account whose session authenticates a request. An extension of the request:
///
/// ```no_run
/// use reqwest_refresh::Account;
///
/// # async fn f(client: reqwest_middleware::ClientWithMiddleware) -> reqwest_middleware::Result<()> {
/// client.get("https://api.example.com/orders").with_extension(Account(7_u64)).send().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Account<K>(pub K);

/// The sessions of many accounts behind one client.
///
/// This *is* a middleware, as a [`Session`] is: each request says by its extension [`Account`] whose
/// session authenticates it. `K` is your own key: a customer's number, a tenant's name.
///
/// A session is opened at the first request for its account, once for all that come meanwhile, by
/// a function of yours that completes a [`SessionBuilder`]: with a store, with tokens, with a login
/// hook that knows the account. Sessions share everything else. What happens to one, an outage,
/// a dead refresh token, a slow login, does not touch the others.
///
/// Sessions that nobody uses are let go after a [time](AccountsBuilder::idle_time), or to keep
/// within a [number](AccountsBuilder::capacity); the next request opens them again, from their
/// store. One is never let go while somebody uses it, while it refreshes, while its tokens are not
/// saved, or where they are nowhere else but in it: without a store. Nor while it leaves a failing
/// server alone; and one that waits for a login has to be idle for that time, since the server and
/// the login hook are asked once more when it is opened again. There is no task and no timer.
///
/// ```
/// use reqwest_refresh::{Account, Accounts, MemoryStore, Session, TokenEndpoint};
///
/// # fn store_of(_: u64) -> MemoryStore { MemoryStore::new() }
/// # fn main() -> Result<(), reqwest_refresh::Error> {
/// # let endpoint = TokenEndpoint::digirunner("https://gateway.example.com", "tspclient", Some("tsp123abcd"))?;
/// let accounts = Accounts::builder(Session::builder(endpoint), |customer: u64, session| async move {
///     Ok(session.store(store_of(customer)))
/// })
/// .capacity(100_000)
/// .build()?;
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
///     .with(accounts.clone())
///     .build();
/// let request = client.get("https://gateway.example.com/api/orders").with_extension(Account(7_u64));
/// # Ok(()) }
/// ```
///
/// A request that names no account fails, unless it
/// [needs none](crate::Authenticate::Never), has an `Authorization` header of its own, or goes where
/// no token goes.
pub struct Accounts<K> {
    inner: Arc<Inner<K>>,
}

/// The settings of [`Accounts`]. Made by [`Accounts::builder`].
#[must_use = "call build()"]
pub struct AccountsBuilder<K> {
    sessions: SessionBuilder,
    open: Open<K>,
    capacity: usize,
    idle_time: Duration,
}

/// What all clones share.
struct Inner<K> {
    sessions: SessionBuilder,
    settings: Arc<Settings>,
    open: Open<K>,
    capacity: usize,
    /// In seconds, as the times of the entries are.
    idle_time: u32,
    start: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard<K>>]>,
    count: AtomicUsize,
}

/// What there is for an account.
pub(crate) enum Found {
    Session(Session),
    Opening(watch::Receiver<Opened>),
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Accounts<K> {
    /// Begins to build. `sessions` has what all sessions have in common; `open` completes it for an
    /// account, at the first request for it.
    ///
    /// What it changes beyond that, such as the origins, counts for that account. So a request that
    /// names it opens its session wherever it goes, the common token endpoint excepted, unless it has
    /// an `Authorization` header of its own or [wants none](crate::Authenticate::Never).
    ///
    /// The store must outlive the session: tokens in a [`MemoryStore`](crate::MemoryStore) that `open`
    /// makes are gone with it. Tokens that `open` gives to a session with a store count again when
    /// it is opened again and the store is empty, after a logout too; put them into the store instead.
    ///
    /// `open` runs in a task of its own, one at a time for an account, within the
    /// [`store_timeout`](SessionBuilder::store_timeout). If it fails, so do the requests that wait for
    /// it; the next one tries again. It may ask for the session of another account; what would have
    /// to wait for its own fails with [`Reentrant`](ErrorKind::Reentrant).
    pub fn builder<F, Fut>(sessions: SessionBuilder, open: F) -> AccountsBuilder<K>
    where
        F: Fn(K, SessionBuilder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SessionBuilder, StoreError>> + Send + 'static,
    {
        AccountsBuilder {
            sessions,
            open: Box::new(move |account, session| Box::pin(open(account, session))),
            capacity: usize::MAX,
            idle_time: Duration::from_secs(3600),
        }
    }

    /// The session of an account, opened if need be: to log in and out, to read the tokens, to
    /// watch. As long as you keep it or its [`Events`](crate::Events), it is not let go.
    ///
    /// # Errors
    ///
    /// [`Store`](ErrorKind::Store) if it could not be opened, with the reason as its source;
    /// what [`SessionBuilder::build`] says; [`Interrupted`](ErrorKind::Interrupted) if opening panicked;
    /// [`Reentrant`](ErrorKind::Reentrant) from within its own opening.
    pub async fn session(&self, account: &K) -> Result<Session, Error> {
        match self.find(account) {
            Some(session) => Ok(session),
            None => self.opened(self.find_or_open(account), &mut Patience::unlimited()).await,
        }
    }

    /// How many sessions are open at the moment.
    pub fn len(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Whether no session is open at the moment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of all sessions that nobody has used for the [`idle_time`](AccountsBuilder::idle_time),
    /// and says how many these were.
    ///
    /// Each session that is opened lets go of a few others, so this is only for a program that opens
    /// no more and wants its memory back.
    pub fn evict_idle(&self) -> usize {
        let idle_since = self.inner.idle_since();
        let evict = |shard: &Mutex<Shard<K>>| {
            let evicted = shard.lock().evict_idle(idle_since);
            self.inner.count.fetch_sub(evicted.len(), Ordering::Relaxed);
            evicted.len()
        };
        self.inner.shards.iter().map(evict).sum()
    }

    /// Waits until no session refreshes and everything is saved: what [`Session::settle`] does, for
    /// all that are open, and at once. A program that ends calls this last.
    ///
    /// # Errors
    ///
    /// As [`Session::settle`], for the first of those that failed.
    pub async fn settle(&self) -> Result<(), Error> {
        let settle = |session: Session| Box::pin(async move { session.settle().await });
        let mut settling: Vec<_> = self.unsettled().into_iter().map(settle).collect();
        let mut failure = None;
        poll_fn(|context| {
            settling.retain_mut(|session| match session.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(settled) => {
                    failure = failure.take().or_else(|| settled.err());
                    false
                }
            });
            if settling.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        failure.map_or(Ok(()), Err)
    }

    fn unsettled(&self) -> Vec<Session> {
        let mut unsettled = Vec::new();
        for shard in &self.inner.shards {
            let shard = shard.lock();
            let sessions = shard.entries.values().filter_map(|entry| match entry {
                Entry::Open { session, .. } => Some(session),
                Entry::Opening(_) => None,
            });
            unsettled.extend(sessions.filter(|session| !session.is_settled()).cloned());
        }
        unsettled
    }

    /// The session of an account, if it is open.
    pub(crate) fn find(&self, account: &K) -> Option<Session> {
        let now = self.inner.now();
        match self.inner.shard(account).lock().entries.get_mut(account) {
            Some(Entry::Open { session, used }) => {
                *used = now;
                Some(session.clone())
            }
            Some(Entry::Opening(_)) | None => None,
        }
    }

    /// The session of an account, or the way to it.
    pub(crate) fn find_or_open(&self, account: &K) -> Found {
        let inner = &self.inner;
        let now = inner.now();
        // NOTE: not below, where it would be user code that runs, and may panic, under the lock.
        let (key, account) = (account.clone(), account.clone());
        let mut shard = inner.shard(&key).lock();
        let entry = match shard.entries.entry(key) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => {
                let (opening, outcome) = Opening::new(Arc::clone(inner), account);
                let opened = outcome.subscribe();
                entry.insert(Entry::Opening(outcome));
                drop(shard);
                opening.start();
                return Found::Opening(opened);
            }
        };
        match entry {
            Entry::Open { session, used } => {
                *used = now;
                Found::Session(session.clone())
            }
            Entry::Opening(outcome) => Found::Opening(outcome.subscribe()),
        }
    }

    /// The session that was found, or waits for it.
    pub(crate) async fn opened(
        &self,
        found: Found,
        patience: &mut Patience,
    ) -> Result<Session, Error> {
        let mut opened = match found {
            Found::Session(session) => return Ok(session),
            Found::Opening(opened) => opened,
        };
        refuse_reentry(&opened)?;
        let clock = &self.inner.settings.clock;
        let opening = async {
            // The sender cannot go before it has said how it ended.
            match opened.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(result)) => result.clone(),
                _ => Err(Error::new(ErrorKind::Interrupted, "nobody opens the account's session")),
            }
        };
        patience.within(clock, opening).await?
    }

    /// What the sessions have in common.
    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn shard(&self, account: &K) -> &Mutex<Shard<K>> {
        let hash = self.hasher.hash_one(account);
        &self.shards[hash as usize % self.shards.len()]
    }

    /// Takes a session in, for which others may have to go.
    ///
    /// To be dropped last: a store of the user's goes with each, and may panic.
    fn open(&self, account: K, session: Session) -> Vec<Entry> {
        let now = self.now();
        let mut shard = self.shard(&account).lock();
        shard.open(account, session, now);
        let others = self.count.fetch_add(1, Ordering::Relaxed);
        let mut evicted = shard.make_room(others >= self.capacity, self.idle_since());
        // There are too many already: all were in use, for a while.
        if others > self.capacity {
            evicted.extend(shard.make_room(true, self.idle_since()));
        }
        drop(shard);
        self.count.fetch_sub(evicted.len(), Ordering::Relaxed);
        evicted
    }

    /// In seconds since these accounts were built.
    fn now(&self) -> u32 {
        let now = self.settings.clock.soon().monotonic;
        now.saturating_duration_since(self.start).as_secs() as u32
    }

    /// Who was not used since then is idle for too long.
    fn idle_since(&self) -> Option<u32> {
        self.now().checked_sub(self.idle_time)
    }
}

impl<K> AccountsBuilder<K> {
    /// Sets how many sessions are kept at most. One more lets go of one that was not used for a long
    /// time: the longest unused of a few that are looked at. If all of them are in use, there are more
    /// than this for a while. Defaults to no limit.
    pub fn capacity(mut self, sessions: usize) -> Self {
        self.capacity = sessions;
        self
    }

    /// Sets for how long a session is kept that nobody uses, in whole seconds. Defaults to an hour.
    ///
    /// It is let go when another one is opened, or by [`evict_idle`](Accounts::evict_idle).
    pub fn idle_time(mut self, time: Duration) -> Self {
        self.idle_time = time;
        self
    }

    /// Builds. No session is opened yet.
    ///
    /// # Errors
    ///
    /// As [`SessionBuilder::build`], for what the sessions have in common.
    pub fn build(self) -> Result<Accounts<K>, Error> {
        let settings = self.sessions.settings()?;
        let inner = Inner {
            start: settings.clock.now().monotonic,
            sessions: self.sessions,
            settings,
            open: self.open,
            capacity: self.capacity,
            idle_time: self.idle_time.as_secs().try_into().unwrap_or(u32::MAX),
            hasher: RandomState::new(),
            shards: (0..shards(self.capacity)).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
        };
        Ok(Accounts { inner: Arc::new(inner) })
    }
}

/// Enough for threads not to meet; few enough for each to have a choice whom to let go.
fn shards(capacity: usize) -> usize {
    (capacity / 64).clamp(1, 64)
}

impl<K> Clone for Accounts<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K> fmt::Debug for Accounts<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.inner.count.load(Ordering::Relaxed);
        f.debug_struct("Accounts").field("len", &count).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for AccountsBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountsBuilder")
            .field("capacity", &self.capacity)
            .field("idle_time", &self.idle_time)
            .finish_non_exhaustive()
    }
}
