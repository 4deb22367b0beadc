use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::Session;
use tokio::runtime::{Builder, Runtime};

use crate::simulation::api::{API, Api};
use crate::simulation::machine::Machine;
use crate::simulation::oracle::SessionId;
use crate::simulation::person::Handle;
use crate::simulation::store::Store;
use crate::simulation::token_endpoint::TokenEndpoint;
use crate::simulation::world::{Actor, World};
use crate::support::unused_client;

/// A program: its sessions and what they do, until it dies.
pub struct Process {
    world: Arc<World>,
    runtime: Option<Runtime>,
    rest: Rest,
    is_alive: Arc<AtomicBool>,
    /// Whether tasks of the runtime may have something to do.
    may_work: bool,
    pub sessions: Vec<Member>,
    callers: BTreeMap<u64, Caller>,
    spawned: u64,
}

/// One session of a process.
#[derive(Clone)]
pub struct Member {
    pub id: SessionId,
    pub account: usize,
    pub session: Session,
    pub client: ClientWithMiddleware,
    handle: Handle,
}

/// Somebody who calls a session: scheduled by the simulation, one poll at a time.
struct Caller {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    flag: Arc<Flag>,
    /// After how many polls it is dropped.
    polls_left: Option<usize>,
}

/// Whether a caller wants to be polled.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When all tasks of a runtime wait.
#[derive(Clone, Default)]
struct Rest(Arc<Mutex<Option<Waker>>>);

impl Rest {
    fn begin(&self) {
        if let Some(waker) = self.0.lock().take() {
            waker.wake();
        }
    }

    async fn comes(&self) {
        *self.0.lock() = None;
        let mut is_first = true;
        poll_fn(|context| {
            if !is_first {
                return Poll::Ready(());
            }
            is_first = false;
            *self.0.lock() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Process {
    /// Starts a program. Its sessions find what is in their stores; without one, somebody has
    /// logged in.
    pub fn start(
        world: &Arc<World>,
        number: usize,
        machine: &Arc<Machine>,
        next: &mut SessionId,
    ) -> Self {
        let rest = Rest::default();
        let begins = rest.clone();
        let runtime = Builder::new_current_thread()
            .event_interval(1)
            .on_thread_park(move || begins.begin())
            .build()
            .unwrap();
        let mut process = Self {
            world: Arc::clone(world),
            runtime: Some(runtime),
            rest,
            is_alive: Arc::new(AtomicBool::new(true)),
            may_work: false,
            sessions: Vec::new(),
            callers: BTreeMap::new(),
            spawned: 0,
        };
        for (account, plan) in world.plan.accounts.iter().enumerate() {
            let count = if plan.store.is_some() { world.plan.sessions } else { 1 };
            for _ in 0..count {
                let member = process.member(number, machine, account, *next);
                *next += 1;
                let (id, session) = (member.id, member.session.clone());
                process.sessions.push(member);
                process.spawn(Arc::clone(world).watches(id, session), None);
            }
        }
        process
    }

    fn member(
        &self,
        number: usize,
        machine: &Arc<Machine>,
        account: usize,
        id: SessionId,
    ) -> Member {
        let world = &self.world;
        let plan = &world.plan.accounts[account];
        world.oracle().begins(id, number, account, plan, machine);
        let handle = Handle::default();
        let endpoint = TokenEndpoint { world: Arc::clone(world), session: id, account };
        let (asked, own) = (Arc::clone(world), Arc::clone(&handle));
        let mut builder = Session::builder(endpoint)
            .allow_origin(API)
            .clock(machine.clock.clone())
            .refresh_without_store(plan.is_risky)
            .on_login_required(move |reason| Arc::clone(&asked).is_asked(id, own.clone(), reason));
        if plan.store.is_some() {
            builder = builder.store(Store {
                world: Arc::clone(world),
                session: id,
                account,
                machine: Arc::clone(machine),
                is_alive: Arc::clone(&self.is_alive),
            });
        } else {
            let tokens = world.log_in(account);
            world.oracle().learns(id, &tokens, machine.now());
            builder = builder.tokens(tokens);
        }
        let session = builder.build().unwrap();
        *handle.lock() = Some(session.clone());
        let api = Api { world: Arc::clone(world), account };
        let client = ClientBuilder::new(unused_client()).with(session.clone()).with(api).build();
        Member { id, account, session, client, handle }
    }

    /// Lets somebody call; drops him after so many polls.
    pub fn spawn(
        &mut self,
        future: impl Future<Output = ()> + Send + 'static,
        polls_left: Option<usize>,
    ) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.spawned += 1;
        self.callers.insert(self.spawned, Caller { future: Box::pin(future), flag, polls_left });
    }

    /// How many callers there are, beside those who watch.
    pub fn callers(&self) -> usize {
        self.callers.len() - self.sessions.len()
    }

    /// Who can go on: callers by their numbers, and 0 for the tasks of the sessions.
    pub fn ready(&self) -> Vec<u64> {
        let callers = self.callers.iter();
        let callers = callers.filter(|(_, caller)| caller.flag.0.load(Ordering::Relaxed));
        self.may_work.then_some(0).into_iter().chain(callers.map(|(number, _)| *number)).collect()
    }

    /// Something has happened that may concern its tasks.
    pub fn may_work(&mut self) {
        self.may_work = true;
    }

    /// Lets one of those who can go on do so.
    pub fn step(&mut self, number: u64) {
        match number {
            0 => self.run_tasks(),
            _ => self.poll(number),
        }
    }

    /// Runs the tasks that its sessions have started: some, or until all of them wait.
    fn run_tasks(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        let mut left = self.world.below(4);
        let rest = &self.rest;
        self.may_work = left > 0;
        self.world.as_actor(Actor::Task, || match left {
            0 => runtime.block_on(rest.comes()),
            _ => runtime.block_on(poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            })),
        });
    }

    fn poll(&mut self, number: u64) {
        let Some(mut caller) = self.callers.remove(&number) else { return };
        let Some(runtime) = &self.runtime else { return };
        let _context = runtime.enter();
        caller.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&caller.flag));
        let is_cancelled = caller.polls_left == Some(0);
        if is_cancelled {
            self.world.note("a caller is cancelled");
            self.world.as_actor(Actor::Cancellation, || drop(caller));
            return;
        }
        caller.polls_left = caller.polls_left.map(|left| left - 1);
        let poll = self.world.as_actor(Actor::Caller, || {
            let poll = || caller.future.as_mut().poll(&mut Context::from_waker(&waker));
            catch_unwind(AssertUnwindSafe(poll))
        });
        let Ok(poll) = poll else {
            return self.world.oracle().violated("K-24", "a panic has got to a caller");
        };
        if poll.is_pending() {
            // Who has no poll left goes now: it may never be woken again.
            if caller.polls_left == Some(0) {
                caller.flag.0.store(true, Ordering::Relaxed);
            }
            self.callers.insert(number, caller);
        }
    }

    /// Dies, at this instant.
    pub fn die(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        self.is_alive.store(false, Ordering::Relaxed);
        let world = Arc::clone(&self.world);
        world.as_actor(Actor::Crash, || {
            {
                let _context = runtime.enter();
                self.callers.clear();
            }
            for member in self.sessions.drain(..) {
                world.oracle().dies(member.id);
                drop(member.handle.lock().take());
            }
            drop(runtime);
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
