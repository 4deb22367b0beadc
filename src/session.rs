//! The handle: a session's tokens behind a lock. Transcribes verdicts of `proto`, decides nothing.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Request;
use tokio::sync::{broadcast, watch};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, LoginReason};
use crate::proto::credential::{Age, Credential};
use crate::proto::origin::Reach;
use crate::proto::policy::Policy;
use crate::proto::provider::Provider;
use crate::proto::state::{BeforeRequest, Need, State};
use crate::refresh::Refresh;
use crate::session::builder::Hook;
use crate::session::flight::Flight;
use crate::session::waiting::{Arrival, Progress};
use crate::store::TokenStore;
use crate::token::{Generation, TokenSet};

pub(crate) mod builder;
mod events;
mod flight;
mod keeping;
mod waiting;

pub use self::builder::SessionBuilder;
pub use self::events::{Event, Events};

/// What begins with a login and ends when its refresh token is dead.
///
/// A session *is* the middleware: give a clone to
/// [`ClientBuilder::with`](reqwest_middleware::ClientBuilder::with) and keep another to log in and
/// out, to read the current token, and to watch. Clones are the same session. An idle session has
/// no task and no timer. Whatever waits or writes needs a Tokio runtime.
///
/// ```
/// # async fn ask_the_user(_: reqwest_refresh::LoginReason) -> Option<TokenSet> { None }
/// use reqwest_refresh::{Session, TokenEndpoint, TokenSet};
///
/// # fn main() -> Result<(), reqwest_refresh::Error> {
/// # let (access, refresh) = ("a", "r");
/// let session = Session::builder(TokenEndpoint::digirunner("https://gateway.example.com", "tspclient", Some("tsp123abcd"))?)
///     .tokens(TokenSet::new(access).with_refresh_token(refresh))
///     .on_login_required(|why| async move { ask_the_user(why).await })
///     .build()?;
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
///     .with(session.clone())
///     .build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
}

/// How a session stands, without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The access token is over or was rejected; the next request refreshes it.
    Expired,
    /// The access token is good, as far as is known.
    Fresh,
    /// There are no tokens; if there is a store, it may not have been read yet.
    LoggedOut,
    /// The refresh token is dead; the access token may still be alive.
    LoginRequired,
    /// The access token is good, and about to be refreshed behind the next request.
    Stale,
}

impl Session {
    /// Begins to build a session that refreshes its tokens by `refresh`.
    pub fn builder(refresh: impl Refresh) -> SessionBuilder {
        SessionBuilder::new(Arc::new(refresh))
    }

    /// A token set whose access token is good, refreshed first if need be.
    ///
    /// For what does not go through the middleware: a websocket, `git`, another client.
    ///
    /// # Errors
    ///
    /// As a request through the middleware.
    pub async fn tokens(&self) -> Result<TokenSet, Error> {
        self.tokens_for(Need::ANY).await
    }

    /// The current token set as it is, good or not; `None` without one.
    pub fn current_tokens(&self) -> Option<TokenSet> {
        let guarded = self.inner.guarded.lock();
        guarded.state.credential().map(|credential| credential.tokens.clone())
    }

    /// Refreshes now, or joins the refresh that is running, and gives the new set.
    ///
    /// # Errors
    ///
    /// As a request through the middleware; the old set stays in place.
    pub async fn refresh(&self) -> Result<TokenSet, Error> {
        let need = Need { new: true, ..Need::ANY };
        self.tokens_for(need).await
    }

    /// Takes new tokens, after a login. Requests that wait go on with them at once; a refresh that
    /// is running loses, in memory and in the store.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for an access token that cannot be sent: then
    /// nothing has changed. [`Store`](crate::ErrorKind::Store) if the tokens could not be saved: they are
    /// in use all the same.
    pub async fn set_tokens(&self, tokens: TokenSet) -> Result<(), Error> {
        let inner = &self.inner;
        {
            let mut guarded = inner.guarded.lock();
            let now = inner.settings.clock.now();
            let set = guarded.state.set(as_login(tokens), &inner.policy, now);
            set.map_err(Error::configuration)?;
            guarded.let_go();
        }
        self.keep_in_store().await
    }

    /// Forgets the tokens, in memory and in the store, without telling the server.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store) if the store could not be cleared.
    pub async fn clear(&self) -> Result<(), Error> {
        let by_hook = self.inner.is_inside();
        self.inner.guarded.lock().clear(by_hook);
        self.keep_in_store().await
    }

    /// Forgets the tokens, in memory and in the store, and then asks the server to revoke them
    /// (RFC 7009), if it has a [revocation endpoint](crate::TokenEndpoint::with_revocation_url).
    ///
    /// - Memory is cleared at once, and the store before the server is asked: a server that is down
    ///   keeps nobody logged in. A caller who goes away does not interrupt it.
    /// - What is revoked is the newest pair: that of the store, which another process may have
    ///   refreshed, or else the session's own. Both of its tokens, the refresh token first.
    /// - What a refresh still brings that is running now is revoked too; if that fails, the log says
    ///   so.
    /// - An access token is left to its end if the server does not revoke such tokens
    ///   (`unsupported_token_type`, §2.2.1). That is no error.
    /// - Each token is tried once. The revocation takes
    ///   [`refresh_timeout`](SessionBuilder::refresh_timeout) at most, the store its own time.
    /// - No login hook is called. The next request says that nobody is logged in; with
    ///   [client credentials](crate::TokenEndpoint::with_client_credentials) it gets a new token.
    ///
    /// # Errors
    ///
    /// Which token could not be revoked, and why; whether the store could not be read or cleared; or
    /// all of these. The session has forgotten the tokens in any case, so a token that was not
    /// revoked lives until its end.
    ///
    /// - [`Store`](crate::ErrorKind::Store): tokens may still be there, and the next start finds
    ///   them. Log out once more.
    /// - [`Configuration`](crate::ErrorKind::Configuration): the server refuses this client.
    /// - [`Unavailable`](crate::ErrorKind::Unavailable): it cannot be reached, is too slow, or asks
    ///   to come back later ([`retry_after`](Error::retry_after)).
    /// - [`Interrupted`](crate::ErrorKind::Interrupted): a store or
    ///   a [`Refresh`](crate::Refresh) panicked.
    pub async fn log_out(&self) -> Result<(), Error> {
        let by_hook = self.inner.is_inside();
        let (known, is_newest) = {
            let mut guarded = self.inner.guarded.lock();
            let known = guarded.state.credential().map(|credential| credential.tokens.clone());
            let is_newest = known.is_some() && guarded.state.is_unsaved();
            guarded.logged_out = guarded.clear(by_hook);
            (known, is_newest)
        };
        let forget = |inner: Arc<Inner>| async move { inner.forget(known, is_newest).await };
        self.apart("the store or the revocation", forget).await
    }

    /// Waits until no refresh is running and everything is saved.
    ///
    /// A program that ends takes its background tasks with it, and with them a rotated refresh
    /// token that was on its way: call this last.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store) if the tokens still cannot be saved;
    /// [`Reentrant`](crate::ErrorKind::Reentrant) from within a refresh or the login hook.
    pub async fn settle(&self) -> Result<(), Error> {
        self.inner.refuse_reentry()?;
        loop {
            let (flight, is_unsaved) = {
                let guarded = self.inner.guarded.lock();
                (guarded.subscribe(), guarded.state.is_unsaved())
            };
            match flight {
                // It has landed when nobody can tell its progress any more.
                Some(mut progress) => while progress.changed().await.is_ok() {},
                None if is_unsaved => self.keep_in_store().await?,
                None => return Ok(()),
            }
        }
    }

    /// How the session stands, without asking anybody.
    pub fn status(&self) -> Status {
        let now = self.inner.settings.clock.now();
        let state = &self.inner.guarded.lock().state;
        match state.current_age(&now) {
            _ if state.is_dead() => Status::LoginRequired,
            None => Status::LoggedOut,
            Some(Age::Expired) => Status::Expired,
            Some(Age::Fresh) => Status::Fresh,
            Some(Age::Stale) => Status::Stale,
        }
    }

    /// What happens from now on, as it happens.
    pub fn events(&self) -> Events {
        let events = &mut self.inner.guarded.lock().events;
        Events::new(events.get_or_insert_with(|| broadcast::Sender::new(64)).subscribe())
    }

    /// Whether there is nothing to [settle](Self::settle).
    pub(crate) fn is_settled(&self) -> bool {
        let Guarded { state, flight, .. } = &*self.inner.guarded.lock();
        flight.is_none() && !state.is_unsaved()
    }

    /// Whether nothing is lost without this handle: it is the last, nothing runs, and what there is
    /// can be had again. That it is dead may be forgotten only if it `was_idle` for long.
    pub(crate) fn is_expendable(&self, was_idle: bool) -> bool {
        let inner = &self.inner;
        let is_last = Arc::strong_count(inner) == 1;
        let now = inner.settings.clock.now();
        let Guarded { state, events, .. } = &*inner.guarded.lock();
        let is_watched = events.as_ref().is_some_and(|events| events.receiver_count() > 0);
        let is_elsewhere = inner.store.is_some() || state.can_be_had_again(&inner.policy);
        let is_in_peace = !state.is_cooling_down(&now) && (was_idle || !state.is_dead());
        is_last && !is_watched && is_elsewhere && is_in_peace && !state.is_unsaved()
    }

    async fn tokens_for(&self, need: Need) -> Result<TokenSet, Error> {
        match self.credential(need, &mut Patience::unlimited()).await? {
            Some(credential) => Ok(credential.tokens.clone()),
            None => Err(Error::login_required(LoginReason::NeverLoggedIn)),
        }
    }

    /// A credential for `need`, or none if that is optional; waits for the flight if there is no
    /// other way, as long as `patience` lasts.
    pub(crate) async fn credential(
        &self,
        need: Need,
        patience: &mut Patience,
    ) -> Result<Option<Arc<Credential>>, Error> {
        match self.ask(need) {
            Answer::Credential(credential) => Ok(credential),
            Answer::Fail(error) => Err(error),
            Answer::Wait(flight) => Box::pin(self.wait(flight, need, patience)).await,
        }
    }

    /// Waits for a flight, and asks again where its end is not the answer.
    pub(crate) async fn wait(
        &self,
        mut flight: watch::Receiver<Progress>,
        mut need: Need,
        patience: &mut Patience,
    ) -> Result<Option<Arc<Credential>>, Error> {
        let inner = &self.inner;
        let asked = inner.guarded.lock().state.generation();
        loop {
            match inner.wait(&mut flight, patience).await? {
                Arrival::Failed(error) => {
                    let now = inner.settings.clock.now();
                    let verdict = inner.guarded.lock().state.after_failure(error, &need, now);
                    return match verdict {
                        BeforeRequest::Send(credential) => Ok(Some(credential)),
                        BeforeRequest::Fail(error) => Err(error),
                        _ => Ok(None),
                    };
                }
                // What came before the question is not new, even if it ends a flight only now.
                Arrival::Moved => need.new &= inner.guarded.lock().state.generation() == asked,
                Arrival::Read => {}
                // Good for everybody who waited, however short it lives.
                Arrival::Refreshed(credential) => return Ok(Some(credential)),
            }
            flight = match self.ask(need) {
                Answer::Credential(credential) => return Ok(credential),
                Answer::Fail(error) => return Err(error),
                Answer::Wait(flight) => flight,
            };
        }
    }

    /// Starts a flight behind a caller who does not wait for it.
    pub(crate) fn refresh_behind(&self) {
        drop(self.ask(Need::ANY));
    }

    /// Asks the state, and starts the flight that it wants.
    #[inline]
    pub(crate) fn ask(&self, need: Need) -> Answer {
        match self.fresh(&need) {
            Some(credential) => Answer::Credential(Some(credential)),
            None => self.ask_at_length(&need),
        }
    }

    /// The credential, if it is good for `need` because it is fresh.
    #[inline]
    fn fresh(&self, need: &Need) -> Option<Arc<Credential>> {
        // What is fresh then is fresh now.
        let soon = self.inner.settings.clock.soon();
        self.inner.guarded.lock().state.fresh(need, &soon).cloned()
    }

    fn ask_at_length(&self, need: &Need) -> Answer {
        let inner = &self.inner;
        let now = inner.settings.clock.now();
        let mut guarded = inner.guarded.lock();
        let (answer, flight) = match guarded.state.before_request(need, &inner.policy, now) {
            BeforeRequest::Send(credential) => return Answer::Credential(Some(credential)),
            BeforeRequest::SendBare => return Answer::Credential(None),
            BeforeRequest::Fail(error) => return Answer::Fail(error),
            BeforeRequest::Join => {
                // unwrap safety: the state says Join only while a flight is registered.
                return Answer::Wait(guarded.subscribe().expect("a flight to join"));
            }
            BeforeRequest::Launch(cause) => {
                let flight = Flight::register(inner, &mut guarded, cause);
                (Answer::Wait(flight.subscribe()), flight)
            }
            BeforeRequest::SendAndLaunch(credential, cause) => {
                let flight = Flight::register(inner, &mut guarded, cause);
                (Answer::Credential(Some(credential)), flight)
            }
        };
        drop(guarded);
        flight.start();
        answer
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Marks what the user gives, to tell it and its successors from what else there is in a store.
fn as_login(tokens: TokenSet) -> TokenSet {
    let id = NonZeroU32::MIN.saturating_add(fastrand::u32(..u32::MAX));
    tokens.of_login(id)
}

/// What a request is told.
pub(crate) enum Answer {
    Credential(Option<Arc<Credential>>),
    Fail(Error),
    Wait(watch::Receiver<Progress>),
}

/// What all clones of a session share.
pub(crate) struct Inner {
    pub(crate) settings: Arc<Settings>,
    pub(crate) policy: Policy,
    /// NOTE: other locks are not quicker. A request that takes one, and is otherwise the bench's
    /// floor, costs so much of the floor at 1, 2, 8 and 64 threads on two cores: this one 1.01, 1.01,
    /// 1.01, 1.03; parking_lot's RwLock 1.01, 1.01, 1.01, 1.02; std's Mutex 1.01, 1.01, 1.01, 1.03; std's
    /// RwLock 1.01, 1.02, 1.01, 1.03; arc_swap 1.02, 1.02, 1.02, 1.04. All of that is within the noise.
    pub(crate) guarded: Mutex<Guarded>,
    store: Option<Arc<dyn TokenStore>>,
    hook: Option<Hook>,
    /// Whether an origin that gets no token was named in a warning.
    pub(crate) has_warned: AtomicBool,
}

/// What sessions share that were built from one builder.
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) provider: Provider,
    pub(crate) reach: Reach,
    pub(crate) replay: bool,
    refresh: Arc<dyn Refresh>,
    /// Whether to refresh although the store fails.
    refresh_without_store: bool,
    deadlines: Deadlines,
}

impl Settings {
    /// How long one access to a store may take.
    pub(crate) fn store_timeout(&self) -> Duration {
        self.deadlines.store
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    pub(crate) refresh: Duration,
    pub(crate) store: Duration,
    pub(crate) login: Duration,
}

impl Inner {
    fn announce(&self, event: Event) {
        let events = self.guarded.lock().events.clone();
        if let Some(events) = events {
            // No subscriber is no error.
            let _ = events.send(event);
        }
    }
}

/// What is behind the lock. Nobody awaits or calls user code while holding it.
pub(crate) struct Guarded {
    pub(crate) state: State,
    flight: Option<watch::Sender<Progress>>,
    /// Closed when the turn ends of who writes to the store.
    writing: Option<watch::Sender<()>>,
    events: Option<broadcast::Sender<Event>>,
    /// Where the last logout was: what a flight from before it still brings is to be revoked.
    logged_out: Generation,
}

impl Guarded {
    fn subscribe(&self) -> Option<watch::Receiver<Progress>> {
        self.flight.as_ref().map(|flight| flight.subscribe())
    }

    /// Makes everybody who waits look again.
    fn wake(&self) {
        if let Some(flight) = &self.flight {
            flight.send_modify(|_| {});
        }
    }

    /// The user has spoken. A flight that waits for a person is let go, however long that takes.
    fn let_go(&mut self) {
        self.wake();
        if let Some(_flight) = self.flight.take_if(|flight| flight.borrow().is_logging_in()) {
            self.state.land();
        }
    }

    fn clear(&mut self, by_hook: bool) -> Generation {
        let generation = self.state.clear(by_hook);
        if !by_hook {
            self.let_go();
        }
        generation
    }
}

/// How long a request still waits. Waiting for a person to log in does not count (K-46).
#[derive(Debug)]
pub(crate) struct Patience {
    pub(crate) left: Option<Duration>,
}

impl Patience {
    pub(crate) const fn unlimited() -> Self {
        Self { left: None }
    }

    /// The output of `work`, if it comes before the request's time is over.
    pub(crate) async fn within<F: Future>(
        &mut self,
        clock: &Clock,
        work: F,
    ) -> Result<F::Output, Error> {
        let Some(left) = self.left else { return Ok(work.await) };
        let start = clock.now();
        let output = clock.timeout(left, work).await;
        self.spend(clock.now().monotonic - start.monotonic);
        let message = "the request's time was over before the refresh was";
        output.ok_or_else(|| Error::new(ErrorKind::TimedOut, message))
    }

    /// Gives a request what is left.
    pub(crate) fn limit(&self, request: &mut Request) {
        if self.left.is_some() {
            *request.timeout_mut() = self.left;
        }
    }

    pub(crate) fn spend(&mut self, duration: Duration) {
        self.left = self.left.map(|left| left.saturating_sub(duration));
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Bytes, at most. A process may have a million sessions: think twice before you raise these.
    const SESSION: usize = 152;
    const CREDENTIAL: usize = 120;
    const FIRST_FLIGHT: usize = 120;

    #[test]
    fn a_session_stays_small() {
        for (what, size, most) in [
            ("a session", size_of::<Inner>(), SESSION),
            ("its credential", size_of::<Credential>(), CREDENTIAL),
            ("what the first flight adds", State::PAST, FIRST_FLIGHT),
        ] {
            assert!(size <= most, "{what}: {size} bytes, {most} are enough");
        }
    }
}
