use std::collections::BTreeMap;

use fastrand::Rng;

/// Everything that goes wrong, or that people do at bad moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    // At the token endpoint.
    AnswerHangs,
    AnswerLost,
    BadGateway,
    BadGatewayAfterwards,
    Busy,
    ClientRefused,
    EchoedToken,
    ErrorInSuccess,
    Garbage,
    Html,
    NoLifetime,
    OddLifetime,
    RequestLost,
    RetryAfter,
    RetryAfterDate,
    Revoked,
    ServerError,
    ServerRestart,
    SlowServer,
    Unreachable,
    UnusableWithToken,
    // At the API.
    ApiDown,
    ApiHangs,
    ApiUnreachable,
    Forbidden,
    OtherChallenge,
    Redirected,
    RejectionStorm,
    SlowApi,
    SpuriousRejection,
    // In the store.
    StoreFails,
    StoreFailsAfterwards,
    StoreHangs,
    StoreOutage,
    StorePanics,
    StoreSlow,
    // Whoever is asked to log in.
    HookClears,
    HookDeclines,
    HookHangs,
    HookPanics,
    HookSets,
    HookSlow,
    // What happens to a process.
    ClockBack,
    ClockForward,
    Crash,
    Paused,
    Suspended,
    // What callers do.
    Cancelled,
    Cleared,
    Forced,
    LoggedIn,
    LoggedOut,
    Settled,
    TimedOut,
}

impl Fault {
    pub const ALL: [Self; 54] = {
        use Fault::*;
        [
            AnswerHangs,
            AnswerLost,
            BadGateway,
            BadGatewayAfterwards,
            Busy,
            ClientRefused,
            EchoedToken,
            ErrorInSuccess,
            Garbage,
            Html,
            NoLifetime,
            OddLifetime,
            RequestLost,
            RetryAfter,
            RetryAfterDate,
            Revoked,
            ServerError,
            ServerRestart,
            SlowServer,
            Unreachable,
            UnusableWithToken,
            ApiDown,
            ApiHangs,
            ApiUnreachable,
            Forbidden,
            OtherChallenge,
            Redirected,
            RejectionStorm,
            SlowApi,
            SpuriousRejection,
            StoreFails,
            StoreFailsAfterwards,
            StoreHangs,
            StoreOutage,
            StorePanics,
            StoreSlow,
            HookClears,
            HookDeclines,
            HookHangs,
            HookPanics,
            HookSets,
            HookSlow,
            ClockBack,
            ClockForward,
            Crash,
            Paused,
            Suspended,
            Cancelled,
            Cleared,
            Forced,
            LoggedIn,
            LoggedOut,
            Settled,
            TimedOut,
        ]
    };

    /// How often it strikes where it can, of a thousand times.
    fn usual_rate(self) -> usize {
        match self {
            Self::RetryAfter | Self::RetryAfterDate | Self::EchoedToken => 400,
            Self::HookDeclines | Self::HookSlow => 250,
            Self::HookClears | Self::HookHangs | Self::HookPanics | Self::HookSets => 120,
            Self::Cancelled | Self::TimedOut | Self::Busy | Self::AnswerLost => 100,
            Self::NoLifetime | Self::OddLifetime => 100,
            Self::ClientRefused | Self::StorePanics | Self::Revoked => 20,
            Self::OtherChallenge | Self::Redirected | Self::Forbidden => 20,
            _ => 50,
        }
    }
}

/// How often each fault strikes in one run: some not at all, and all the oftener the others.
#[derive(Clone, Debug)]
pub struct Rates(BTreeMap<Fault, usize>);

impl Rates {
    pub fn draw(rng: &mut Rng) -> Self {
        // Some runs are peaceful, and some have almost nothing that works.
        let share = [0, 5, 15, 30, 30, 50, 80][rng.usize(..7)];
        let strength = [1, 1, 2, 4][rng.usize(..4)];
        let mut rate = |fault: Fault| match rng.usize(..100) < share {
            true => (fault.usual_rate() * strength).min(700),
            false => 0,
        };
        Self(Fault::ALL.into_iter().map(|fault| (fault, rate(fault))).collect())
    }

    pub fn of(&self, fault: Fault) -> usize {
        self.0[&fault]
    }
}

/// How often each fault has struck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Fault, u64>);

impl Counts {
    pub fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.0 {
            *self.0.entry(*fault).or_default() += count;
        }
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or_default()
    }
}
