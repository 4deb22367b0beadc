//! What happens in a tree of executions: who acts, what is held, what may go wrong.

/// A small world. Every order of what happens in it is one execution.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub start: Start,
    pub actors: Vec<Actor>,
    /// Where the session has to wait for an answer. Elsewhere it gets one at once.
    pub held: Vec<Door>,
    /// What may go otherwise than well.
    pub deviations: Vec<Deviation>,
    /// How much of it may happen in one execution.
    pub most_deviations: usize,
    pub has_store: bool,
    pub has_hook: bool,
    /// Whether those who are woken together go on in every order, or in that of their names.
    pub every_order: bool,
}

/// How the session stands at the beginning. The pair `a0`/`r0` is in the store, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Over, and the server says that the refresh token is dead.
    Dead,
    /// The store was never read; what is in it is good.
    FirstUse,
    /// The access token is over.
    Over,
    /// The access token is not over, but the API rejects it.
    Rejected,
    /// The access token is about to be over.
    Stale,
}

/// Somebody who does one thing, once, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Clear,
    Get,
    /// A request that wants a new token.
    GetAnew,
    LogOut,
    Refresh,
    Set,
    Settle,
    /// Another process that shares the store: takes the lock, refreshes, saves, in one step.
    Sibling,
}

impl Actor {
    pub fn is_request(self) -> bool {
        matches!(self, Self::Get | Self::GetAnew | Self::Refresh)
    }

    /// Whether the user has the last word by it.
    pub fn is_word(self) -> bool {
        matches!(self, Self::Clear | Self::LogOut | Self::Set)
    }
}

/// Where a session waits for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Api,
    GiveBack,
    Hook,
    Load,
    Lock,
    Refresh,
    Revoke,
    /// `save`, `replace` and `clear`.
    Write,
}

/// How somebody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The store fails from now on.
    Breaks,
    /// The server has not looked at it, and may be asked again.
    Busy,
    Fails,
    /// It was done all the same.
    FailsAfterwards,
    /// The server has made a pair; nobody gets it.
    Lost,
    /// Nobody logs in.
    None,
    Panics,
    /// There is a new refresh token, but no access token.
    RefreshTokenOnly,
    /// The API takes this token no longer.
    Rejects,
    Terminal,
    Unusable,
    Well,
}

/// What may go otherwise than well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    At(Door, Answer),
    /// A request is dropped.
    Cancel,
    /// The lock ends by itself while its holder works.
    LeaseEnds,
    /// Whoever would wait for the shortest time has waited for so long.
    TimePasses,
}

impl Deviation {
    /// Whether requests may fail for it. The others are ridden out.
    pub fn excuses_a_request(self) -> bool {
        use Answer::{Breaks, Busy, Fails, FailsAfterwards, Panics};
        match self {
            // The API's answer leads to a refresh.
            Self::At(Door::Api, _)
            | Self::At(Door::Write, Breaks | Fails | FailsAfterwards | Panics)
            | Self::At(Door::Refresh, Busy)
            | Self::At(Door::Revoke | Door::GiveBack, _)
            | Self::Cancel
            | Self::LeaseEnds => false,
            Self::At(..) | Self::TimePasses => true,
        }
    }

    /// Whether a word of the user may fail for it.
    pub fn excuses_a_word(self) -> bool {
        use Answer::{Fails, FailsAfterwards};
        match self {
            Self::At(Door::Write, Fails | FailsAfterwards) => false,
            Self::At(Door::Load | Door::Lock | Door::Write | Door::Revoke, _) => true,
            Self::TimePasses => true,
            Self::At(..) | Self::Cancel | Self::LeaseEnds => false,
        }
    }
}

impl Scenario {
    /// Everything goes well, and nothing is held but the refresh.
    pub fn new(name: &'static str, start: Start, actors: &[Actor]) -> Self {
        Self {
            name,
            start,
            actors: actors.to_vec(),
            held: vec![Door::Refresh],
            deviations: Vec::new(),
            most_deviations: 0,
            has_store: true,
            has_hook: start == Start::Dead,
            every_order: false,
        }
    }

    pub fn holding(mut self, held: &[Door]) -> Self {
        self.held = held.to_vec();
        self
    }

    pub fn deviating(mut self, most: usize, deviations: &[Deviation]) -> Self {
        self.deviations = deviations.to_vec();
        self.most_deviations = most;
        self
    }

    pub fn without_store(mut self) -> Self {
        self.has_store = false;
        self
    }

    pub fn in_every_order(mut self) -> Self {
        self.every_order = true;
        self
    }
}
