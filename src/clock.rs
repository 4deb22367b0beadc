//! The only place that asks the time: the wall clock and the monotonic clock, together.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "test-util")]
pub use self::manual::ManualClock;

/// A moment on both clocks.
///
/// The wall clock goes on while a machine sleeps, but people and time servers set it; the monotonic clock is
/// never set, but may stand still while a machine sleeps. Whoever must not miss an end watches both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: SystemTime,
    pub(crate) monotonic: Instant,
}

impl Moment {
    /// Whether `end` is over on at least one of the two clocks.
    pub(crate) fn reached(&self, end: &Self) -> bool {
        self.monotonic >= end.monotonic || self.wall >= end.wall
    }

    /// What is left until `end`, on the clock that gets there first.
    pub(crate) fn until(&self, end: &Self) -> Duration {
        let wall = end.wall.duration_since(self.wall).unwrap_or_default();
        wall.min(end.monotonic.saturating_duration_since(self.monotonic))
    }

    /// What is left until this moment for somebody who sleeps until then: sleep knows only the
    /// monotonic clock, so a wall clock that jumps neither cuts a deadline short nor stretches it.
    pub(crate) fn left_at(&self, now: &Self) -> Duration {
        self.monotonic.saturating_duration_since(now.monotonic)
    }

    /// The moment `duration` later; saturates at [`FAR`] from here.
    pub(crate) fn after(&self, duration: Duration) -> Self {
        let duration = duration.min(FAR);
        Self { wall: self.wall + duration, monotonic: self.monotonic + duration }
    }

    /// The moment `duration` earlier, or as near to it as both clocks can go together.
    pub(crate) fn before(&self, duration: Duration) -> Self {
        match (self.wall.checked_sub(duration), self.monotonic.checked_sub(duration)) {
            (Some(wall), Some(monotonic)) => Self { wall, monotonic },
            _ => *self,
        }
    }
}

/// Longer than any token lives, short enough to be added to any clock: a hundred years.
pub(crate) const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Where a session gets the time from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "test-util")]
    Manual(ManualClock),
}

impl Clock {
    #[inline]
    #[allow(clippy::disallowed_methods)] // this is the place
    pub(crate) fn now(&self) -> Moment {
        match self {
            Self::System => Moment { wall: SystemTime::now(), monotonic: Instant::now() },
            #[cfg(feature = "test-util")]
            Self::Manual(clock) => clock.now(),
        }
    }

    /// A moment that is not before now on either clock, and at most a little later. Cheaper than
    /// [`now`](Self::now) where the system has clocks that are.
    #[inline]
    pub(crate) fn soon(&self) -> Moment {
        match self {
            Self::System => coarse::soon().unwrap_or_else(|| self.now()),
            #[cfg(feature = "test-util")]
            Self::Manual(clock) => clock.now(),
        }
    }

    /// Returns when `duration` is over on the monotonic clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        match self {
            Self::System => tokio::time::sleep(duration).await,
            #[cfg(feature = "test-util")]
            Self::Manual(clock) => clock.sleep(duration).await,
        }
    }

    /// The output of `future`, or `None` if it takes longer than `duration`.
    pub(crate) async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut sleep = pin!(self.sleep(duration));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

/// Linux keeps what its clocks showed at the last timer interrupt: to read that takes a quarter of
/// the time (7 ns instead of 24).
#[cfg(target_os = "linux")]
mod coarse {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant, SystemTime};

    use rustix::time::{ClockId, clock_gettime};

    use crate::clock::Moment;

    /// In seconds: more than a coarse clock is ever behind. Timer interrupts are 1 to 10
    /// milliseconds apart, and late where a hypervisor has other work.
    const BEHIND: u64 = 1;

    /// Where the monotonic clock, which is the clock of [`Instant`], was zero, or a little later.
    static ZERO: LazyLock<Option<Instant>> = LazyLock::new(|| {
        let passed = read(ClockId::MonotonicCoarse)?;
        #[allow(clippy::disallowed_methods)] // this is the place
        Instant::now().checked_sub(passed)
    });

    #[inline]
    pub(super) fn soon() -> Option<Moment> {
        let wall = ahead(read(ClockId::RealtimeCoarse)?);
        let monotonic = ahead(read(ClockId::MonotonicCoarse)?);
        Some(Moment { wall: SystemTime::UNIX_EPOCH + wall, monotonic: (*ZERO)? + monotonic })
    }

    /// What a clock shows, if that is not before 1970.
    #[inline]
    fn read(clock: ClockId) -> Option<Duration> {
        let time = clock_gettime(clock);
        Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec as u32))
    }

    #[inline]
    fn ahead(time: Duration) -> Duration {
        Duration::new(time.as_secs() + BEHIND, time.subsec_nanos())
    }
}

/// Other systems have no clocks that are worth it.
#[cfg(not(target_os = "linux"))]
mod coarse {
    pub(super) fn soon() -> Option<crate::clock::Moment> {
        None
    }
}

#[cfg(feature = "test-util")]
mod manual {
    use std::collections::BTreeMap;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant, SystemTime};

    use parking_lot::Mutex;

    use crate::clock::Moment;

    /// A clock that stands still until it is told to move; its clones are the same clock.
    ///
    /// Hand it to [`SessionBuilder::clock`](crate::SessionBuilder::clock) in tests of code that uses a session, and
    /// step over the life of a token without waiting for it. Everything that the session waits for (a backoff, a
    /// deadline, a cool-down) waits on this clock. The wall clock and the monotonic clock can be moved apart, as
    /// a suspended machine or a corrected clock does. Needs the feature `test-util`.
    #[derive(Clone, Debug)]
    pub struct ManualClock {
        inner: Arc<Inner>,
    }

    #[derive(Debug)]
    struct Inner {
        origin: Moment,
        wall: Mutex<SystemTime>,
        monotonic: Mutex<Monotonic>,
    }

    /// How far the monotonic clock is, and who waits for it: by the end of the sleep, then by its
    /// beginning.
    #[derive(Debug, Default)]
    struct Monotonic {
        now: Duration,
        sleepers: BTreeMap<Place, Option<Waker>>,
        sleeps: u64,
    }

    /// When a sleep ends, and its number.
    type Place = (Duration, u64);

    impl ManualClock {
        /// A clock that shows the time at which it was made.
        #[allow(clippy::disallowed_methods)] // this is the place
        pub fn new() -> Self {
            let origin = Moment { wall: SystemTime::now(), monotonic: Instant::now() };
            Self {
                inner: Arc::new(Inner {
                    origin,
                    wall: Mutex::new(origin.wall),
                    monotonic: Mutex::default(),
                }),
            }
        }

        /// Lets time pass: both clocks go forward by `duration`, and who slept until then wakes up,
        /// who wanted to sleep less first.
        pub fn advance(&self, duration: Duration) {
            *self.inner.wall.lock() += duration;
            let awake = {
                let monotonic = &mut *self.inner.monotonic.lock();
                monotonic.now += duration;
                let due = monotonic.sleepers.range_mut(..=(monotonic.now, u64::MAX));
                due.filter_map(|(_, waker)| waker.take()).collect::<Vec<_>>()
            };
            awake.into_iter().for_each(Waker::wake);
        }

        /// Lets the machine sleep: the wall clock goes forward by `duration`, the monotonic clock stands still.
        pub fn suspend(&self, duration: Duration) {
            *self.inner.wall.lock() += duration;
        }

        /// Sets the wall clock back by `duration`; the monotonic clock does not notice.
        pub fn set_back(&self, duration: Duration) {
            *self.inner.wall.lock() -= duration;
        }

        /// What the wall clock shows.
        pub fn wall(&self) -> SystemTime {
            *self.inner.wall.lock()
        }

        /// For how long each sleeping task will sleep from now on, the shortest first.
        pub fn sleepers(&self) -> Vec<Duration> {
            let monotonic = self.inner.monotonic.lock();
            let ends = monotonic.sleepers.keys().map(|(end, _)| *end);
            ends.map(|end| end.saturating_sub(monotonic.now)).collect()
        }

        pub(crate) fn now(&self) -> Moment {
            let monotonic = self.inner.origin.monotonic + self.inner.monotonic.lock().now;
            Moment { wall: self.wall(), monotonic }
        }

        pub(crate) async fn sleep(&self, duration: Duration) {
            let sleeper = Sleeper::new(&self.inner, duration);
            poll_fn(|context| sleeper.poll(context)).await;
        }
    }

    impl Default for ManualClock {
        fn default() -> Self {
            Self::new()
        }
    }

    /// An entry in the list of sleepers, for as long as the sleep lasts or until it is dropped.
    struct Sleeper<'a> {
        inner: &'a Inner,
        place: Place,
    }

    impl<'a> Sleeper<'a> {
        fn new(inner: &'a Inner, duration: Duration) -> Self {
            let monotonic = &mut *inner.monotonic.lock();
            monotonic.sleeps += 1;
            let place = (monotonic.now.saturating_add(duration), monotonic.sleeps);
            monotonic.sleepers.insert(place, None);
            Self { inner, place }
        }

        fn poll(&self, context: &Context<'_>) -> Poll<()> {
            let monotonic = &mut *self.inner.monotonic.lock();
            if monotonic.now >= self.place.0 {
                return Poll::Ready(());
            }
            monotonic.sleepers.insert(self.place, Some(context.waker().clone()));
            Poll::Pending
        }
    }

    impl Drop for Sleeper<'_> {
        fn drop(&mut self) {
            self.inner.monotonic.lock().sleepers.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_12_soon_is_not_before_now_on_either_clock_and_not_long_after() {
        let clock = Clock::default();
        for _ in 0..1000 {
            let (before, soon, after) = (clock.now(), clock.soon(), clock.now());
            assert!(before.wall <= soon.wall && before.monotonic <= soon.monotonic);
            let latest = after.after(Duration::from_secs(60));
            assert!(soon.wall < latest.wall && soon.monotonic < latest.monotonic);
        }
    }

    #[test]
    fn an_end_is_reached_when_either_clock_says_so() {
        let clock = ManualClock::new();
        let start = clock.now();
        let end = start.after(Duration::from_secs(60));
        assert!(!clock.now().reached(&end));
        clock.suspend(Duration::from_secs(60));
        assert!(clock.now().reached(&end), "the wall clock alone is enough");
        clock.set_back(Duration::from_secs(3600));
        assert!(!clock.now().reached(&end));
        clock.advance(Duration::from_secs(60));
        assert!(clock.now().reached(&end), "the monotonic clock alone is enough");
    }

    #[tokio::test]
    async fn sleepers_wake_when_the_clock_passes_their_end_and_not_before() {
        let clock = ManualClock::new();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(5)).await }
        });
        while clock.sleepers().is_empty() {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        assert_eq!(clock.sleepers(), [Duration::from_secs(1)]);
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert!(clock.sleepers().is_empty());
    }
}
