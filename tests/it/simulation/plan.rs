use std::time::Duration;

use fastrand::Rng;

use crate::simulation::faults::{Fault, Rates};

const SECOND: Duration = Duration::from_secs(1);

/// What a seed makes of the world: who there is, what they have, and how much goes wrong.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rates: Rates,
    pub accounts: Vec<AccountPlan>,
    pub processes: usize,
    /// How many sessions each process has for each account with a store.
    pub sessions: usize,
    /// How long things go wrong.
    pub length: Duration,
    pub bursts: usize,
    pub fates: usize,
}

/// One user at one server.
#[derive(Clone, Debug)]
pub struct AccountPlan {
    pub store: Option<StoreKind>,
    pub is_digirunner: bool,
    pub is_risky: bool,
    pub lifetime: Duration,
    /// Whether a refresh token can be used only once, and for how long the last one still can.
    pub rotates: bool,
    pub grace: Duration,
    /// Whether a refresh ends the old access token.
    pub revokes_access: bool,
    /// Whether reuse and revocation end it.
    pub death_ends_access: bool,
}

/// How a store's lock ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// By itself, too.
    Leased(Duration),
    /// With its process.
    Locked,
}

/// What happens beside what is answered to somebody.
#[derive(Clone, Debug)]
pub enum Act {
    /// So many requests of one process.
    Burst(usize, usize),
    /// Something befalls this process.
    Fate(usize, Fault),
    /// Perhaps something befalls somebody.
    Fates,
    ApiRecovers,
    ProcessResumes(usize),
    ProcessStarts(usize),
    ServerStarts,
    StoreRecovers(usize),
}

impl AccountPlan {
    /// Whether nobody refreshes while somebody else does, whatever happens.
    pub fn excludes(&self) -> bool {
        self.store == Some(StoreKind::Locked) && !self.is_risky
    }

    fn draw(rng: &mut Rng) -> Self {
        let seconds = [2, 20, 90, 300, 900, 3600];
        let store = match rng.usize(..6) {
            0 => None,
            1 | 2 => Some(StoreKind::Leased([3, 10, 30][rng.usize(..3)] * SECOND)),
            _ => Some(StoreKind::Locked),
        };
        Self {
            store,
            is_digirunner: rng.usize(..3) == 0,
            is_risky: rng.usize(..6) == 0,
            lifetime: seconds[rng.usize(..seconds.len())] * SECOND,
            rotates: rng.usize(..6) > 0,
            grace: [0, 0, 30][rng.usize(..3)] * SECOND,
            revokes_access: rng.bool(),
            death_ends_access: rng.bool(),
        }
    }
}

impl Plan {
    pub fn draw(rng: &mut Rng) -> Self {
        let rates = Rates::draw(rng);
        let accounts: Vec<_> =
            (0..[1, 1, 2][rng.usize(..3)]).map(|_| AccountPlan::draw(rng)).collect();
        let longest = accounts.iter().map(|account| account.lifetime).max().unwrap_or_default();
        Self {
            rates,
            processes: [1, 2, 2, 3][rng.usize(..4)],
            sessions: [1, 1, 2][rng.usize(..3)],
            length: longest * [1, 2, 4][rng.usize(..3)] + 30 * SECOND,
            bursts: rng.usize(4..14),
            fates: rng.usize(0..20),
            accounts,
        }
    }
}
