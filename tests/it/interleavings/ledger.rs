//! What is known about every pair of tokens, and which promises that keeps.

use std::time::SystemTime;

use reqwest_refresh::TokenSet;

use crate::interleavings::scenario::{Answer, Deviation, Door};
use crate::interleavings::world::Operation;
use crate::support::SECOND;

/// For how long an access token lives.
pub const LIFE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The pair `a3`/`r3` is number 3, whoever gave it.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    pub parent: Option<usize>,
    /// After how many words of the user its session began.
    pub word: usize,
    /// When its access token ends.
    pub end: Option<SystemTime>,
    /// In which step the session got it.
    pub received: Option<usize>,
    /// Whether it is as good as saved: saved, or given up.
    pub is_written: bool,
    failed_writes: usize,
    /// Whether the server says that its refresh token is dead, and whether the session was told.
    pub is_dead: bool,
    pub is_refused: bool,
    /// Whether the session got, or a sibling has stored, a successor.
    pub is_replaced: bool,
    pub is_revoked: bool,
    /// Whether the API rejects its access token, and whether the session was told.
    pub is_rejected: bool,
    pub was_rejected: bool,
    /// Whether it is nothing but a refresh token.
    pub is_partial: bool,
}

/// Everything that was seen in one execution.
#[derive(Debug, Default)]
pub struct Ledger {
    pub pairs: Vec<Pair>,
    /// How often the user has set or cleared tokens.
    pub words: usize,
    pub step: usize,
    pub trace: Vec<String>,
    pub broken_promises: Vec<String>,
    /// What has gone otherwise than well, and when.
    pub deviations: Vec<(usize, Deviation)>,
    /// When everybody who needs a token had to fail: nobody is logged in.
    pub logged_out: Vec<usize>,
    has_store: bool,
    pub lease_has_ended: bool,
    /// How often each actor's request has arrived at the API.
    sent: Vec<usize>,
    /// What there was when the login hook was called last.
    hook_called_at: Option<(usize, usize)>,
}

impl Ledger {
    pub fn new(has_store: bool) -> Self {
        Self { has_store, ..Self::default() }
    }

    pub fn note(&mut self, line: impl Into<String>) {
        self.trace.push(format!("        {}", line.into()));
    }

    pub fn breaks(&mut self, promise: impl Into<String>) {
        self.broken_promises.push(promise.into());
    }

    /// A pair that begins a session.
    pub fn root(&mut self, now: SystemTime) -> usize {
        let (word, received) = (self.words, Some(self.step));
        self.pairs.push(Pair { word, received, end: Some(now + LIFE), ..Pair::default() });
        self.pairs.len() - 1
    }

    /// The pair that the server makes for another one.
    pub fn successor(&mut self, parent: usize, now: SystemTime) -> usize {
        let (word, parent) = (self.pairs[parent].word, Some(parent));
        self.pairs.push(Pair { parent, word, end: Some(now + LIFE), ..Pair::default() });
        self.pairs.len() - 1
    }

    pub fn received(&mut self, number: usize) {
        self.pairs[number].received = Some(self.step);
        if let Some(parent) = self.pairs[number].parent {
            self.pairs[parent].is_replaced = true;
        }
    }

    /// Something arrives where it is answered.
    pub fn arrives(&mut self, operation: &Operation, is_refreshing: bool, now: SystemTime) {
        self.note(operation.to_string());
        match *operation {
            Operation::Refresh(number) => self.refresh_arrives(number, is_refreshing),
            Operation::Send { actor, pair } => self.request_arrives(actor, pair, now),
            Operation::Hook => self.hook_is_called(),
            _ => {}
        }
    }

    fn refresh_arrives(&mut self, number: usize, is_refreshing: bool) {
        let pair = &self.pairs[number];
        let again = match pair {
            _ if is_refreshing => Some("K-20: two refreshes at a time"),
            Pair { is_replaced: true, .. } => Some("K-35, K-60: sent after its successor came"),
            Pair { is_refused: true, .. } if !self.lease_has_ended => Some("K-50: sent when dead"),
            Pair { is_revoked: true, .. } => Some("K-25: sent after it was revoked"),
            _ => None,
        };
        self.broken_promises.extend(again.map(|again| format!("r{number}: {again}")));
    }

    fn request_arrives(&mut self, actor: usize, number: Option<usize>, now: SystemTime) {
        self.sent.resize(self.sent.len().max(actor + 1), 0);
        self.sent[actor] += 1;
        if self.sent[actor] > 2 {
            self.breaks("K-40: a request is sent for the third time");
        }
        let Some(number) = number else { return };
        let pair = &self.pairs[number];
        let wrong = [
            (pair.word != self.words, "K-25: sent after the user has set or cleared tokens"),
            (pair.end.is_none_or(|end| now >= end), "K-11: sent when over"),
            (pair.was_rejected, "K-36: sent again after it was rejected"),
            (!self.is_as_good_as_saved(number), "K-60: sent before it was saved"),
        ];
        let wrong = wrong.iter().filter(|(is_wrong, _)| *is_wrong);
        let wrong = wrong.map(|(_, promise)| format!("a{number}: {promise}")).collect::<Vec<_>>();
        self.broken_promises.extend(wrong);
    }

    /// Whether the API takes the token of a request. Nobody looks at what a replay is told.
    pub fn accepts(&mut self, actor: usize, number: usize, answer: Answer) -> bool {
        let pair = &mut self.pairs[number];
        pair.is_rejected |= answer == Answer::Rejects;
        pair.was_rejected |= pair.is_rejected && self.sent[actor] == 1;
        !pair.is_rejected
    }

    fn hook_is_called(&mut self) {
        let known = (self.words, self.pairs.iter().filter(|pair| pair.received.is_some()).count());
        if self.hook_called_at.replace(known) == Some(known) {
            self.breaks("K-50: the hook is called twice for a dead session");
        }
    }

    /// The store has done what it was asked, or has not.
    pub fn write_ended(&mut self, number: Option<usize>, answer: Option<Answer>) {
        let Some(number) = number else { return };
        let pair = &mut self.pairs[number];
        pair.failed_writes += usize::from(answer != Some(Answer::Well));
        let is_given_up = pair.failed_writes == 3 || answer == Some(Answer::Panics);
        pair.is_written |= is_given_up || answer == Some(Answer::Well);
    }

    fn is_as_good_as_saved(&self, number: usize) -> bool {
        let pair = &self.pairs[number];
        // What the user gave is in use at once.
        pair.is_written || pair.parent.is_none() || pair.is_partial || !self.has_store
    }

    /// What has to be so between any two steps: `current` is what the session believes.
    pub fn check_memory(&mut self, current: Option<&TokenSet>) {
        let Some(number) = current.map(number_of) else { return };
        if self.pairs[number].word != self.words {
            self.breaks(format!("K-25: r{number} is current, and the user's word is lost"));
        }
        if !self.is_as_good_as_saved(number) {
            self.breaks(format!("K-60: r{number} is in use before it was saved"));
        }
        if self.pairs[number].is_revoked {
            self.breaks(format!("K-25: r{number} is current and revoked"));
        }
    }

    /// Whether this has gone otherwise than well.
    pub fn has_gone(&self, deviation: Deviation) -> bool {
        self.deviations.iter().any(|(_, it)| *it == deviation)
    }

    /// Whether a failure of somebody who ends now can be explained: by what has gone wrong since
    /// the user has logged in last.
    pub fn is_excused(&self, actor: Option<usize>, last_login: usize) -> bool {
        let excuses = |deviation: &Deviation| match actor {
            Some(_) => deviation.excuses_a_request(),
            None => deviation.excuses_a_word(),
        };
        let mut deviations = self.deviations.iter();
        let is_lost = |(_, it): &&(usize, Deviation)| {
            matches!(it, Deviation::At(Door::Refresh, Answer::Lost))
        };
        let lost = self.deviations.iter().filter(is_lost).count();
        let went_wrong = deviations.any(|(step, deviation)| match deviation {
            Deviation::At(Door::Refresh, Answer::Lost) if lost == 1 => false,
            deviation => *step >= last_login && excuses(deviation),
        });
        // Nothing is tried more than three times.
        let is_too_much = self.deviations.len() >= 3;
        went_wrong
            || is_too_much
            || actor.is_some() && self.logged_out.iter().any(|step| *step >= last_login)
    }

    /// Pairs that are alive although the user has logged out with the word of this number.
    pub fn left_alive(&self, word: usize, said_at: usize) -> Vec<usize> {
        let is_alive = |pair: &Pair| {
            pair.received.is_some() && !pair.is_replaced && !pair.is_dead && !pair.is_revoked
        };
        let is_meant = |pair: &Pair| {
            pair.word + 1 == word || pair.word < word && pair.received > Some(said_at)
        };
        let all = self.pairs.iter().enumerate();
        all.filter(|(_, pair)| is_alive(pair) && is_meant(pair)).map(|(number, _)| number).collect()
    }
}

/// The tokens of a pair.
pub fn tokens_of(number: usize) -> TokenSet {
    TokenSet::new(format!("a{number}"))
        .with_refresh_token(format!("r{number}"))
        .with_expires_in(LIFE - SECOND)
}

/// The same, as a store has it that was written `now`.
pub fn stored(number: usize, now: SystemTime) -> TokenSet {
    tokens_of(number).with_expires_at(now + LIFE - SECOND)
}

/// Which pair this is, by its refresh token.
pub fn number_of(tokens: &TokenSet) -> usize {
    tokens.refresh_token().and_then(number_in).expect("a refresh token of ours")
}

/// The number in `a3` or `r3`.
pub fn number_in(token: &str) -> Option<usize> {
    token.get(1..)?.parse().ok()
}
