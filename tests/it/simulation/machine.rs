use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest_refresh::ManualClock;

/// What all machines show at first.
pub const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// The two clocks of a machine, which go wrong in ways of their own.
#[derive(Debug)]
pub struct Machine {
    pub clock: ManualClock,
    mono: Mutex<Duration>,
    /// By how much the wall clock is ahead of the true time, in milliseconds.
    ahead: Mutex<i64>,
    set_back: Mutex<u64>,
}

/// What both clocks of a machine show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamp {
    pub wall: SystemTime,
    pub mono: Duration,
}

impl Stamp {
    pub fn after(self, duration: Duration) -> Self {
        Self { wall: self.wall + duration, mono: self.mono + duration }
    }

    /// Whether one of the clocks has got there.
    pub fn reached(&self, end: &Self) -> bool {
        self.wall >= end.wall || self.mono >= end.mono
    }

    /// How long ago `start` was, on the clock that has gone farther.
    pub fn since(&self, start: &Self) -> Duration {
        let wall = self.wall.duration_since(start.wall).unwrap_or_default();
        wall.max(self.mono.saturating_sub(start.mono))
    }
}

impl Machine {
    pub fn new() -> Arc<Self> {
        let clock = ManualClock::new();
        let real = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        match real.checked_sub(EPOCH) {
            Some(surplus) => clock.set_back(surplus),
            None => clock.suspend(EPOCH - real),
        }
        Arc::new(Self {
            clock,
            mono: Mutex::default(),
            ahead: Mutex::default(),
            set_back: Mutex::default(),
        })
    }

    pub fn now(&self) -> Stamp {
        Stamp { wall: self.clock.wall(), mono: *self.mono.lock() }
    }

    /// How often the wall clock was set back so far: who compares with an earlier time knows less
    /// than it seems.
    pub fn times_set_back(&self) -> u64 {
        *self.set_back.lock()
    }

    pub fn advance(&self, duration: Duration) {
        *self.mono.lock() += duration;
        self.clock.advance(duration);
    }

    /// The machine was asleep for so long.
    pub fn slept(&self, duration: Duration) {
        self.clock.suspend(duration);
    }

    /// Somebody sets the wall clock forward.
    pub fn set_forward(&self, duration: Duration) {
        *self.ahead.lock() += duration.as_millis() as i64;
        self.clock.suspend(duration);
    }

    pub fn set_back(&self, duration: Duration) {
        *self.ahead.lock() -= duration.as_millis() as i64;
        *self.set_back.lock() += 1;
        self.clock.set_back(duration);
    }

    /// Sets the wall clock right.
    pub fn correct(&self) {
        let ahead = *self.ahead.lock();
        let duration = Duration::from_millis(ahead.unsigned_abs());
        match ahead {
            0 => {}
            1.. => self.set_back(duration),
            _ => self.set_forward(duration),
        }
    }
}
