use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::simulation::faults::{Counts, Fault};
use crate::simulation::oracle::{Oracle, SessionId};
use crate::simulation::plan::{Act, Plan};
use crate::simulation::server::Server;
use crate::simulation::store::Shelf;

/// What everybody in a simulation shares: the seed, the true time, what is to happen, and what has
/// happened. All that is drawn is drawn here, one after another, so one seed is one run.
pub struct World {
    pub plan: Plan,
    inner: Mutex<Inner>,
    oracle: Mutex<Oracle>,
    server: Mutex<Server>,
    /// One for each account that has a store.
    shelves: Vec<Mutex<Shelf>>,
}

struct Inner {
    rng: Rng,
    now: Duration,
    agenda: BTreeMap<(Duration, u64), Entry>,
    entries: u64,
    transcript: Vec<String>,
    counts: Counts,
    actor: Actor,
    is_calm: bool,
}

/// What is to happen at some time.
pub enum Entry {
    Act(Act),
    Deliver(Box<dyn FnOnce() + Send>),
}

/// Whose code is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A request, or another caller.
    Caller,
    /// One that is dropped.
    Cancellation,
    /// A process that dies.
    Crash,
    /// A task that a session has started.
    Task,
    World,
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let inner = Inner {
            rng,
            now: Duration::ZERO,
            agenda: BTreeMap::new(),
            entries: 0,
            transcript: Vec::new(),
            counts: Counts::default(),
            actor: Actor::World,
            is_calm: false,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            oracle: Mutex::new(Oracle::default()),
            server: Mutex::new(Server::default()),
            shelves: plan.accounts.iter().map(|_| Mutex::default()).collect(),
            plan,
        })
    }

    pub fn now(&self) -> Duration {
        self.inner.lock().now
    }

    /// Lets true time pass.
    pub fn pass(&self, duration: Duration) {
        self.inner.lock().now += duration;
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock()
    }

    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock()
    }

    pub fn shelf(&self, account: usize) -> MutexGuard<'_, Shelf> {
        self.shelves[account].lock()
    }

    pub fn actor(&self) -> Actor {
        self.inner.lock().actor
    }

    /// Does something on somebody's behalf.
    pub fn as_actor<T>(&self, actor: Actor, work: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.inner.lock().actor, actor);
        let result = work();
        self.inner.lock().actor = before;
        result
    }

    /// A number below `limit`.
    pub fn below(&self, limit: usize) -> usize {
        self.inner.lock().rng.usize(..limit)
    }

    pub fn chance(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn choose<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.inner.lock().rng.u64(from..=to))
    }

    /// Whether this fault happens here and now.
    pub fn strikes(&self, fault: Fault) -> bool {
        let rate = self.plan.rates.of(fault);
        let inner = &mut *self.inner.lock();
        let strikes = rate > 0 && !inner.is_calm && inner.rng.usize(..1000) < rate;
        if strikes {
            inner.counts.count(fault);
            inner.note(format_args!("! {fault:?}"));
        }
        strikes
    }

    /// One of these faults, if any.
    pub fn first_of(&self, faults: &[Fault]) -> Option<Fault> {
        faults.iter().copied().find(|fault| self.strikes(*fault))
    }

    /// From now on there are no faults.
    pub fn calm(&self) {
        self.inner.lock().is_calm = true;
    }

    pub fn is_calm(&self) -> bool {
        self.inner.lock().is_calm
    }

    /// Does something after a while.
    pub fn later(&self, delay: Duration, work: impl FnOnce() + Send + 'static) {
        self.enter(delay, Entry::Deliver(Box::new(work)));
    }

    /// Has something done by the simulation after a while.
    pub fn act_later(&self, delay: Duration, act: Act) {
        self.enter(delay, Entry::Act(act));
    }

    fn enter(&self, delay: Duration, entry: Entry) {
        let inner = &mut *self.inner.lock();
        inner.entries += 1;
        inner.agenda.insert((inner.now + delay, inner.entries), entry);
    }

    /// When the next thing is to happen.
    pub fn next_entry(&self) -> Option<Duration> {
        self.inner.lock().agenda.keys().next().map(|(time, _)| *time)
    }

    /// The next thing, if its time has come.
    pub fn take_entry(&self) -> Option<Entry> {
        let inner = &mut *self.inner.lock();
        let first = inner.agenda.first_entry()?;
        (first.key().0 <= inner.now).then(|| first.remove())
    }

    /// Forgets what would still happen: it holds this world.
    pub fn end(&self) {
        loop {
            let entry = self.inner.lock().agenda.pop_first();
            if entry.is_none() {
                break;
            }
        }
        for shelf in &self.shelves {
            shelf.lock().end();
        }
    }

    /// While a session refreshes, something may befall its process.
    pub fn disturb(&self, session: SessionId) {
        if !self.is_calm() && self.chance(30) {
            let process = self.oracle().facts(session).process;
            if let Some(fault) = self.fate() {
                self.act_later(self.millis(0, 400), Act::Fate(process, fault));
            }
        }
    }

    /// Something that may befall a process at any time.
    pub fn fate(&self) -> Option<Fault> {
        let mut fates = FATES.to_vec();
        fates.rotate_left(self.below(FATES.len()));
        self.first_of(&fates)
    }

    /// Waits in true time.
    pub async fn sleep(&self, duration: Duration) {
        let (wake, woken) = oneshot::channel::<()>();
        self.later(duration, move || drop(wake));
        let _ = woken.await;
    }

    /// Gives way to others, as often as the seed says: never, mostly.
    pub async fn stumble(&self) {
        let mut left = self.below(6).saturating_sub(2);
        poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Writes down what happens.
    pub fn note(&self, line: impl Display) {
        self.inner.lock().note(line);
    }

    pub fn take_transcript(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().transcript)
    }

    pub fn counts(&self) -> Counts {
        self.inner.lock().counts.clone()
    }
}

/// What befalls processes, servers and stores, and what users do.
const FATES: &[Fault] = &[
    Fault::ClockBack,
    Fault::ClockForward,
    Fault::Cleared,
    Fault::Crash,
    Fault::Forced,
    Fault::LoggedIn,
    Fault::LoggedOut,
    Fault::Paused,
    Fault::RejectionStorm,
    Fault::Revoked,
    Fault::ServerRestart,
    Fault::Settled,
    Fault::StoreOutage,
    Fault::Suspended,
];

impl Inner {
    fn note(&mut self, line: impl Display) {
        let now = self.now.as_secs_f64();
        self.transcript.push(format!("{now:>10.3} {line}"));
    }
}
