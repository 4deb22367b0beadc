//! The lock in Redis: a key that names its owner and ends by itself.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, cmd};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::clock::{Clock, Moment};
use crate::store::Lease;
use crate::store::pauses::Pauses;
use crate::store::redis::error::RedisStoreError;
use crate::store::redis::link::Link;

/// A lock that is ours, or may be: whoever goes away while Redis is asked does not know. Gives back
/// what is ours when it is dropped.
pub(super) struct Claim {
    link: Link,
    key: String,
    owner: String,
    ttl: Duration,
    /// Whether it was given back, or lost.
    is_over: bool,
}

/// When a lease ends, unless it is renewed; `None` if somebody else holds the lock.
type End = Option<Moment>;

impl Claim {
    pub(super) fn new(link: Link, key: String, ttl: Duration) -> Self {
        Self { link, key, owner: new_owner(), ttl, is_over: false }
    }

    /// Waits until nobody else holds the lock.
    pub(super) async fn wait(mut self) -> Result<Lease, RedisStoreError> {
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            if let Some(end) = self.take().await? {
                return Ok(self.into_lease(end));
            }
            sleep(pauses.next(fastrand::f64())).await;
        }
    }

    async fn take(&mut self) -> Result<End, RedisStoreError> {
        let start = Clock::System.now();
        let mut take = cmd("SET");
        take.arg(&self.key).arg(&self.owner).arg("NX").arg("PX").arg(milliseconds(self.ttl));
        let is_taken: bool = self.link.ask(&take).await?;
        Ok(is_taken.then(|| self.end(&start)))
    }

    async fn renew(&mut self) -> Result<End, RedisStoreError> {
        let start = Clock::System.now();
        let mut renew = self.if_ours("redis.call('PEXPIRE', KEYS[1], ARGV[2])");
        let is_ours: bool = self.link.ask(renew.arg(milliseconds(self.ttl))).await?;
        Ok(is_ours.then(|| self.end(&start)))
    }

    /// A little before Redis forgets a lock that was asked for at `start`.
    fn end(&self, start: &Moment) -> Moment {
        start.after(self.ttl - self.ttl / 10)
    }

    /// A command that does this, and answers 1, if the lock is ours; else 0.
    fn if_ours(&self, call: &str) -> Cmd {
        let script = format!(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then return {call} else return 0 end"
        );
        let mut command = cmd("EVAL");
        command.arg(script).arg(1).arg(&self.key).arg(&self.owner);
        command
    }

    /// The lock as a lease, renewed by a task until it is dropped.
    fn into_lease(self, end: Moment) -> Lease {
        let owner = self.owner.clone();
        let end = Arc::new(Mutex::new(Some(end)));
        let (guard, is_dropped) = oneshot::channel::<()>();
        let keeping = tokio::spawn(self.keep(Arc::clone(&end), is_dropped));
        let is_held = move || end.lock().is_some_and(|end| !Clock::System.now().reached(&end));
        let is_free = async move { keeping.await.unwrap_or_default() };
        Lease::new(guard).with_owner(owner).held_while(is_held).free_after(is_free)
    }

    async fn keep(mut self, end: Arc<Mutex<End>>, mut is_dropped: oneshot::Receiver<()>) {
        while timeout(self.ttl / 3, &mut is_dropped).await.is_err() {
            match self.renew().await {
                Ok(renewed) => {
                    *end.lock() = renewed;
                    if renewed.is_none() {
                        self.is_over = true;
                        tracing::warn!(owner = self.owner, "a lease is over before its time");
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "a lease could not be renewed"),
            }
        }
        release(self.link.clone(), self.if_ours(DELETE)).await;
        self.is_over = true;
    }
}

impl Drop for Claim {
    /// Without a runtime the lock ends by itself.
    fn drop(&mut self) {
        if !self.is_over
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(release(self.link.clone(), self.if_ours(DELETE)));
        }
    }
}

/// On the same connection, if there is one: then it cannot overtake what was sent before.
async fn release(mut link: Link, release: Cmd) {
    if let Err(error) = link.ask::<bool>(&release).await {
        tracing::debug!(%error, "a lock was not given back: it ends by itself");
    }
}

/// A name for a log that nobody else has: the host if it says who it is, the process, a number.
fn new_owner() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let process = std::process::id();
    // std seeds its hash maps from the system, differently each time.
    let number = RandomState::new().hash_one(process);
    format!("{host}/{process}/{number:016x}")
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

const DELETE: &str = "redis.call('DEL', KEYS[1])";
/// How long to wait before a lock is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
