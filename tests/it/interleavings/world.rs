//! Everybody whom a session waits for: the store, the server, the API, the person who logs in.
//! Each stands behind a door, and answers when a step opens it.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::Extensions;
use http::header::AUTHORIZATION;
use parking_lot::{Mutex, MutexGuard};
use reqwest::{Request, Response, ResponseBuilderExt as _, Url};
use reqwest_middleware::{Middleware, Next};
use reqwest_refresh::{
    Lease, LoginReason, ManualClock, MemoryStore, Refresh, RefreshError, RefreshFailure,
    StoreError, TokenSet, TokenStore,
};
use tokio::sync::oneshot;

use crate::interleavings::ledger::{Ledger, number_in, number_of, tokens_of};
use crate::interleavings::scenario::{Answer, Door, Scenario};

/// What the session asks of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    GiveBack,
    Hook,
    Load,
    Lock,
    Refresh(usize),
    Revoke(usize),
    Send { actor: usize, pair: Option<usize> },
    Write(Option<usize>),
}

impl Operation {
    pub fn door(self) -> Door {
        match self {
            Self::GiveBack => Door::GiveBack,
            Self::Hook => Door::Hook,
            Self::Load => Door::Load,
            Self::Lock => Door::Lock,
            Self::Refresh(_) => Door::Refresh,
            Self::Revoke(_) => Door::Revoke,
            Self::Send { .. } => Door::Api,
            Self::Write(_) => Door::Write,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GiveBack => f.write_str("giving back the lock"),
            Self::Hook => f.write_str("the login hook"),
            Self::Load => f.write_str("load"),
            Self::Lock => f.write_str("lock"),
            Self::Refresh(pair) => write!(f, "refresh with r{pair}"),
            Self::Revoke(pair) => write!(f, "revoke r{pair}"),
            Self::Send { actor, pair } => {
                let name = name_of(*actor);
                match pair {
                    Some(pair) => write!(f, "{name}'s request with a{pair}"),
                    None => write!(f, "{name}'s request without a token"),
                }
            }
            Self::Write(Some(pair)) => write!(f, "save r{pair}"),
            Self::Write(None) => f.write_str("clear"),
        }
    }
}

/// Actors are called A, B, C.
pub fn name_of(actor: usize) -> char {
    char::from(b'A' + u8::try_from(actor).expect("few actors"))
}

/// Somebody who waits behind a door.
struct Waiting {
    id: usize,
    operation: Operation,
    /// The step of its coming.
    since: usize,
    answer: oneshot::Sender<Answer>,
}

/// Its clones are the same world.
#[derive(Clone)]
pub struct World {
    pub clock: ManualClock,
    pub memory: MemoryStore,
    /// Whether the lease that is held now, if any, is over before it is given back.
    has_ended: Arc<AtomicBool>,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    ledger: Ledger,
    scenario: Arc<Scenario>,
    waiting: Vec<Waiting>,
    next_id: usize,
    /// Whether nobody waits any more.
    is_open: bool,
    store_is_broken: bool,
}

impl World {
    pub fn new(scenario: &Arc<Scenario>) -> Self {
        Self {
            clock: ManualClock::new(),
            memory: MemoryStore::new(),
            has_ended: Arc::default(),
            shared: Arc::new(Mutex::new(Shared {
                ledger: Ledger::new(scenario.has_store),
                scenario: Arc::clone(scenario),
                waiting: Vec::new(),
                next_id: 0,
                is_open: true,
                store_is_broken: false,
            })),
        }
    }

    pub fn ledger(&self) -> parking_lot::MappedMutexGuard<'_, Ledger> {
        MutexGuard::map(self.shared.lock(), |shared| &mut shared.ledger)
    }

    /// From now on everybody waits behind the doors that the scenario holds.
    pub fn close_doors(&self) {
        self.shared.lock().is_open = false;
    }

    /// From now on everything goes well, at once.
    pub fn open_doors(&self) {
        let mut shared = self.shared.lock();
        shared.is_open = true;
        shared.store_is_broken = false;
    }

    /// Who waits behind a door, in the order of their coming.
    pub fn waiting(&self) -> Vec<Operation> {
        self.shared.lock().waiting.iter().map(|waiting| waiting.operation).collect()
    }

    /// Whether a refresh or a write has not ended that was there before this step.
    pub fn is_at_work(&self) -> bool {
        let shared = self.shared.lock();
        let is_work = |door| matches!(door, Door::Refresh | Door::Write);
        let mut waiting = shared.waiting.iter();
        waiting.any(|it| it.since < shared.ledger.step && is_work(it.operation.door()))
    }

    /// Answers who stands there in this place.
    pub fn answer(&self, place: usize, answer: Answer) {
        let waiting = self.shared.lock().waiting.remove(place);
        waiting.answer.send(answer).expect("whoever goes away leaves the door");
    }

    /// Ends the lease that is held now.
    pub fn end_lease(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.ledger().lease_has_ended = true;
    }

    pub async fn is_locked(&self) -> bool {
        if self.has_ended.load(Ordering::Relaxed) {
            return false;
        }
        let mut lock = std::pin::pin!(self.memory.lock());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        lock.as_mut().poll(&mut context).is_pending()
    }

    /// Waits behind the door.
    async fn pass(&self, operation: Operation) -> Answer {
        let (answer, place) = {
            let mut shared = self.shared.lock();
            let is_refreshing = |other: &Waiting| other.operation.door() == Door::Refresh;
            let is_refreshing = shared.waiting.iter().any(is_refreshing);
            shared.ledger.arrives(&operation, is_refreshing, self.clock.wall());
            let is_broken = shared.store_is_broken && operation.door() == Door::Write;
            if is_broken {
                return Answer::Fails;
            }
            if shared.is_open || !shared.scenario.held.contains(&operation.door()) {
                return Answer::Well;
            }
            let (sender, answer) = oneshot::channel();
            let id = shared.next_id;
            shared.next_id += 1;
            let since = shared.ledger.step;
            shared.waiting.push(Waiting { id, operation, since, answer: sender });
            (answer, Place { world: self.clone(), id })
        };
        let answer = answer.await.unwrap_or(Answer::Well);
        drop(place);
        match answer {
            Answer::Breaks => {
                self.shared.lock().store_is_broken = true;
                Answer::Fails
            }
            answer => answer,
        }
    }

    /// Somebody who logs in.
    pub async fn log_in(&self, _: LoginReason) -> Option<TokenSet> {
        let word = self.ledger().words;
        match self.pass(Operation::Hook).await {
            Answer::Panics => resume_unwind(Box::new("scripted")),
            Answer::None => None,
            _ => {
                let mut ledger = self.ledger();
                let number = ledger.root(self.clock.wall());
                ledger.pairs[number].word = word;
                ledger.note(format!("the hook gives r{number}"));
                Some(tokens_of(number))
            }
        }
    }

    async fn write(
        &self,
        number: Option<usize>,
        work: impl Future<Output = Result<bool, StoreError>>,
    ) -> Result<bool, StoreError> {
        let mut written = Written { world: self, number, answer: None };
        let answer = self.pass(Operation::Write(number)).await;
        written.answer = Some(answer);
        let result = match answer {
            Answer::Well | Answer::FailsAfterwards => work.await,
            Answer::Panics => resume_unwind(Box::new("scripted")),
            _ => failure(),
        };
        if answer == Answer::FailsAfterwards { failure() } else { result }
    }
}

fn failure<T>() -> Result<T, StoreError> {
    Err("scripted".into())
}

/// A place behind a door; whoever goes away leaves it.
struct Place {
    world: World,
    id: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.world.shared.lock().waiting.retain(|waiting| waiting.id != self.id);
    }
}

/// An attempt to write, ended by an answer or by nobody's waiting for it any more.
struct Written<'a> {
    world: &'a World,
    number: Option<usize>,
    answer: Option<Answer>,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.world.ledger().write_ended(self.number, self.answer);
    }
}

#[async_trait]
impl TokenStore for World {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        match self.pass(Operation::Load).await {
            Answer::Well => self.memory.load().await,
            Answer::Panics => resume_unwind(Box::new("scripted")),
            _ => failure(),
        }
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        let work = async { self.memory.save(tokens).await.map(|()| true) };
        self.write(Some(number_of(tokens)), work).await.map(drop)
    }

    async fn clear(&self) -> Result<(), StoreError> {
        let work = async { self.memory.clear().await.map(|()| true) };
        self.write(None, work).await.map(drop)
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        self.write(Some(number_of(tokens)), self.memory.replace(before, tokens)).await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        match self.pass(Operation::Lock).await {
            Answer::Well => {}
            Answer::Panics => resume_unwind(Box::new("scripted")),
            _ => return failure(),
        }
        let lease = self.memory.lock().await?;
        self.has_ended.store(false, Ordering::Relaxed);
        let (has_ended, world) = (Arc::clone(&self.has_ended), self.clone());
        let is_free = async move {
            world.pass(Operation::GiveBack).await;
            drop(lease);
        };
        let is_held = move || !has_ended.load(Ordering::Relaxed);
        Ok(Lease::new(()).held_while(is_held).free_after(is_free))
    }
}

#[async_trait]
impl Refresh for World {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        let sent = number_of(tokens);
        let answer = self.pass(Operation::Refresh(sent)).await;
        let fails = |failure| Err(RefreshError::new(failure, "scripted"));
        let now = self.clock.wall();
        let mut ledger = self.ledger();
        match answer {
            Answer::Panics => {
                drop(ledger);
                resume_unwind(Box::new("scripted"))
            }
            Answer::Busy => fails(RefreshFailure::Busy),
            Answer::Lost => {
                ledger.successor(sent, now);
                fails(RefreshFailure::Lost)
            }
            Answer::Unusable => fails(RefreshFailure::Unusable),
            Answer::RefreshTokenOnly => {
                let number = ledger.successor(sent, now);
                ledger.received(number);
                ledger.pairs[number].is_partial = true;
                ledger.note(format!("the server gives r{number} alone"));
                let error = RefreshError::new(RefreshFailure::Unusable, "scripted");
                Err(error.with_refresh_token(format!("r{number}")))
            }
            _ => {
                let pair = &mut ledger.pairs[sent];
                pair.is_dead |= answer == Answer::Terminal || pair.is_replaced || pair.is_revoked;
                if pair.is_dead {
                    pair.is_refused = true;
                    return fails(RefreshFailure::Terminal);
                }
                let number = ledger.successor(sent, now);
                ledger.received(number);
                ledger.note(format!("the server gives r{number}"));
                Ok(tokens_of(number))
            }
        }
    }

    async fn revoke(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        let number = number_of(tokens);
        match self.pass(Operation::Revoke(number)).await {
            Answer::Well => {
                self.ledger().pairs[number].is_revoked = true;
                Ok(())
            }
            Answer::Panics => resume_unwind(Box::new("scripted")),
            _ => Err(RefreshError::new(RefreshFailure::NotSent, "scripted")),
        }
    }

    fn endpoints(&self) -> Vec<Url> {
        vec![Url::parse("https://api.test/oauth/token").unwrap()]
    }
}

#[async_trait]
impl Middleware for World {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let actor = request.url().path()[1..].parse().unwrap();
        let header = request.headers().get(AUTHORIZATION).map(|header| header.to_str().unwrap());
        let pair = header.and_then(|header| number_in(header.strip_prefix("Bearer ")?));
        let answer = self.pass(Operation::Send { actor, pair }).await;
        let is_good = match pair {
            Some(pair) => self.ledger().accepts(actor, pair, answer),
            None => false,
        };
        let response = http::Response::builder().status(if is_good { 200 } else { 401 });
        let url = request.url().clone();
        Ok(response.url(url).body(reqwest::Body::default()).unwrap().into())
    }
}
