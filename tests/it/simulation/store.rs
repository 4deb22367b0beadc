use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest_refresh::{Lease, StoreError, TokenSet, TokenStore};
use tokio::sync::oneshot;

use crate::simulation::faults::Fault;
use crate::simulation::machine::{Machine, Stamp};
use crate::simulation::oracle::{SessionId, Tick};
use crate::simulation::plan::StoreKind;
use crate::simulation::world::World;

/// What the sessions of one account share: tokens, and a lock.
#[derive(Default)]
pub struct Shelf {
    pub tokens: Option<TokenSet>,
    pub writer: Option<Writer>,
    pub is_down: bool,
    holder: Option<u64>,
    queue: VecDeque<Waiting>,
    holders: u64,
    /// What a session asks for is done in the order in which it asks.
    last: BTreeMap<SessionId, Duration>,
}

impl Shelf {
    /// Forgets who waits: they hold the world.
    pub fn end(&mut self) {
        self.queue.clear();
    }
}

/// Who has written last, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    pub session: SessionId,
    pub at: Tick,
}

/// Whoever waits for the lock.
struct Waiting {
    handle: Store,
    start: Stamp,
    grant: oneshot::Sender<Result<Claim>>,
}

/// The store as one session sees it.
#[derive(Clone)]
pub struct Store {
    pub world: Arc<World>,
    pub session: SessionId,
    pub account: usize,
    pub machine: Arc<Machine>,
    pub is_alive: Arc<AtomicBool>,
}

type Result<T> = std::result::Result<T, StoreError>;

#[async_trait]
impl TokenStore for Store {
    async fn load(&self) -> Result<Option<TokenSet>> {
        let look = Look { handle: self, is_over: false };
        let (tokens, writer, seen) = self
            .ask("load", |world, account| {
                let seen = world.oracle().tick();
                let shelf = world.shelf(account);
                (shelf.tokens.clone(), shelf.writer, seen)
            })
            .await?;
        look.finds(tokens.as_ref(), writer, seen);
        Ok(tokens)
    }

    async fn save(&self, tokens: &TokenSet) -> Result<()> {
        let writing = Writing::new(self, tokens);
        let (session, set) = (self.session, tokens.clone());
        self.ask("save", move |world, account| world.write(account, session, Some(set))).await?;
        writing.succeeds();
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        let session = self.session;
        self.ask("clear", move |world, account| world.write(account, session, None)).await
    }

    async fn replace(&self, before: Option<&TokenSet>, tokens: &TokenSet) -> Result<bool> {
        let writing = Writing::new(self, tokens);
        let (session, before, set) = (self.session, before.cloned(), tokens.clone());
        let is_replaced = self.ask("replace", move |world, account| {
            let found = world.shelf(account).tokens.clone();
            let is = |other: Option<&TokenSet>| match (&found, other) {
                (None, None) => true,
                (Some(found), Some(other)) => found.same_tokens(other),
                _ => false,
            };
            let is_free = is(before.as_ref()) || is(Some(&set));
            if is_free {
                world.write(account, session, Some(set));
            }
            is_free
        });
        let is_replaced = is_replaced.await?;
        writing.succeeds();
        Ok(is_replaced)
    }

    async fn lock(&self) -> Result<Lease> {
        let world = &self.world;
        world.stumble().await;
        let look = Look { handle: self, is_over: false };
        let (sender, grant) = oneshot::channel();
        let waiting = Waiting { handle: self.clone(), start: self.machine.now(), grant: sender };
        let does_hang = world.strikes(Fault::StoreHangs);
        let does_fail = world.strikes(Fault::StoreFails);
        let (arrived, account) = (Arc::clone(world), self.account);
        if !does_hang {
            world.later(self.latency(), move || {
                if does_fail || arrived.shelf(account).is_down {
                    let _ = waiting.grant.send(Err("the lock fails".into()));
                } else {
                    arrived.shelf(account).queue.push_back(waiting);
                    arrived.serve(account);
                }
            });
        } else {
            world.later(3600 * SECOND, move || drop(waiting));
        }
        let claim = grant.await.unwrap_or_else(|_| Err("the lock is gone".into()))?;
        look.ends();
        Ok(claim.into_lease())
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl Store {
    /// Has something done in the store, if nothing goes wrong.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&World, usize) -> T + Send + 'static,
    ) -> Result<T> {
        let (world, session, account) = (&self.world, self.session, self.account);
        world.stumble().await;
        let fault = world.first_of(&[
            Fault::StorePanics,
            Fault::StoreFails,
            Fault::StoreFailsAfterwards,
            Fault::StoreHangs,
        ]);
        if fault == Some(Fault::StorePanics) {
            // Not `panic!`: nobody wants to read thousands of them.
            std::panic::resume_unwind(Box::new("the store panics"));
        }
        let (sender, answer) = oneshot::channel();
        let due = {
            let now = world.now();
            let latency = self.latency();
            let last = &mut world.shelf(account).last;
            let due = last.get(&session).copied().unwrap_or_default().max(now + latency);
            last.insert(session, due);
            due - now
        };
        let (arrived, back) = (Arc::clone(world), self.latency());
        world.later(due, move || {
            // Nobody waits any more: perhaps it was never sent.
            let is_withdrawn = sender.is_closed() && arrived.chance(50);
            let fails = fault == Some(Fault::StoreFails) || arrived.shelf(account).is_down;
            if is_withdrawn || fails {
                let _ = sender.send(Err(format!("{what} fails").into()));
                return;
            }
            let result = effect(&arrived, account);
            arrived.note(format_args!("store: {what} by s{session}"));
            let (result, back) = match fault {
                Some(Fault::StoreFailsAfterwards) => (Err("no answer".into()), back),
                Some(Fault::StoreHangs) => (Err("no answer".into()), 3600 * SECOND),
                _ => (Ok(result), back),
            };
            arrived.later(back, move || drop(sender.send(result)));
        });
        answer.await.unwrap_or_else(|_| Err("the store is gone".into()))
    }

    fn latency(&self) -> Duration {
        match self.world.strikes(Fault::StoreSlow) {
            true => self.world.millis(500, 14_000),
            false => self.world.millis(0, 20),
        }
    }
}

impl World {
    /// What the store holds from now on.
    pub fn write(&self, account: usize, by: SessionId, tokens: Option<TokenSet>) {
        let writer = self.oracle().is_written(account, by, tokens.as_ref(), &self.server());
        let shelf = &mut *self.shelf(account);
        (shelf.tokens, shelf.writer) = (tokens, Some(writer));
    }

    /// Gives the lock to the next who still waits.
    fn serve(self: &Arc<Self>, account: usize) {
        let shelf = &mut *self.shelf(account);
        while shelf.holder.is_none()
            && let Some(waiting) = shelf.queue.pop_front()
        {
            if waiting.grant.is_closed() {
                continue;
            }
            shelf.holders += 1;
            let number = shelf.holders;
            shelf.holder = Some(number);
            let end = match self.plan.accounts[account].store {
                Some(StoreKind::Leased(ttl)) => {
                    let world = Arc::clone(self);
                    self.later(ttl, move || world.release(account, number));
                    Some(waiting.start.after(ttl - ttl / 10))
                }
                _ => None,
            };
            let claim = Claim { handle: waiting.handle, number, end, is_free: None };
            let back = self.millis(0, 20);
            self.later(back, move || drop(waiting.grant.send(Ok(claim))));
        }
    }

    fn release(self: &Arc<Self>, account: usize, number: u64) {
        let was_held = self.shelf(account).holder.take_if(|holder| *holder == number).is_some();
        if was_held {
            self.serve(account);
        }
    }
}

/// The lock, until it is dropped; or, where it ends by itself, as long as it lasts.
struct Claim {
    handle: Store,
    number: u64,
    end: Option<Stamp>,
    is_free: Option<oneshot::Sender<()>>,
}

impl Claim {
    fn into_lease(mut self) -> Lease {
        let (end, machine) = (self.end, Arc::clone(&self.handle.machine));
        let Store { world, session, .. } = &self.handle;
        world.oracle().has_lease(*session, self.number, end);
        let (sender, is_free) = oneshot::channel();
        self.is_free = Some(sender);
        Lease::new(self)
            .held_while(move || end.is_none_or(|end| !machine.now().reached(&end)))
            .free_after(async move { drop(is_free.await) })
    }
}

impl Drop for Claim {
    /// A process that dies gives back what its operating system knows, and nothing else.
    fn drop(&mut self) {
        let Store { world, session, account, is_alive, .. } = &self.handle;
        world.oracle().gives_lease_back(*session, self.number);
        let (number, account, is_leased) = (self.number, *account, self.end.is_some());
        let (freed, is_free) = (Arc::clone(world), self.is_free.take());
        match is_alive.load(Ordering::Relaxed) {
            false if is_leased => {}
            // In its turn: whoever drops this may be the store itself.
            _ => world.later(world.millis(0, if is_leased { 30 } else { 0 }), move || {
                freed.release(account, number);
                drop(is_free);
            }),
        }
    }
}

/// A look into the store, or a wait for its lock, that has not succeeded yet.
struct Look<'a> {
    handle: &'a Store,
    is_over: bool,
}

impl Look<'_> {
    fn finds(self, tokens: Option<&TokenSet>, writer: Option<Writer>, seen: Tick) {
        let Store { world, session, .. } = self.handle;
        {
            let server = world.server();
            world.oracle().has_looked(*session, tokens, writer, seen, &server);
        }
        self.ends();
    }

    fn ends(mut self) {
        self.is_over = true;
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let Store { world, session, .. } = self.handle;
            world.oracle().cannot_look(*session, std::thread::panicking());
        }
    }
}

/// A write that has not succeeded yet.
struct Writing<'a> {
    handle: &'a Store,
    tokens: TokenSet,
    is_done: bool,
}

impl<'a> Writing<'a> {
    fn new(handle: &'a Store, tokens: &TokenSet) -> Self {
        Self { handle, tokens: tokens.clone(), is_done: false }
    }

    fn succeeds(mut self) {
        self.is_done = true;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Store { world, session, .. } = self.handle;
        if self.is_done {
            world.oracle().is_saved(*session);
        } else {
            world.oracle().is_not_written(*session, &self.tokens, std::thread::panicking());
        }
    }
}
