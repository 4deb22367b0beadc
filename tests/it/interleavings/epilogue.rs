//! What has to be so at the end of an execution, and when everything goes well again.

use reqwest_refresh::TokenStore as _;

use crate::interleavings::cast::Acting;
use crate::interleavings::ledger::{LIFE, number_of};
use crate::interleavings::play::{Play, Step};
use crate::interleavings::scenario::{Actor, Answer, Deviation, Door, Start};
use crate::interleavings::world::name_of;

impl Play<'_> {
    /// Checks the end; then has everything saved, and asks for tokens once more.
    pub async fn epilogue(&mut self) {
        if !self.world.ledger().broken_promises.is_empty() {
            return;
        }
        for (index, acting) in self.cast.iter().enumerate() {
            if acting.is_at_work() {
                self.world.ledger().breaks(format!("K-24: {} waits for ever", name_of(index)));
            }
        }
        self.check_logout();
        if self.world.ledger().is_excused(None, 0) {
            self.world.ledger().note("(not everything could be written)");
        } else {
            self.check_store("at the end").await;
        }
        if !self.world.ledger().broken_promises.is_empty() {
            return;
        }
        self.world.open_doors();
        self.also(Actor::Settle).await;
        self.check_store("after settle()").await;
        self.world.clock.advance(LIFE);
        let (before, words) = (self.session.current_tokens(), self.world.ledger().words);
        let outcome = self.also(Actor::Get).await;
        let is_alive = before.is_some_and(|tokens| {
            let pair = &self.world.ledger().pairs[number_of(&tokens)];
            pair.word == words && !pair.is_dead
        });
        if is_alive && outcome != "200" {
            self.world.ledger().breaks("K-24: the next need is not served");
        }
        let current = self.session.current_tokens();
        self.world.ledger().check_memory(current.as_ref());
        self.check_store("after the next need").await;
    }

    /// One more actor, until it has ended.
    async fn also(&mut self, actor: Actor) -> String {
        self.cast.push(Acting::new(actor));
        let index = self.cast.len() - 1;
        self.take(Step::Begin(index)).await;
        loop {
            self.rest(false).await;
            if let Some(outcome) = self.cast[index].outcome.take() {
                self.cast.truncate(index);
                return outcome;
            }
            let Some(sleep) = self.world.clock.sleepers().first().copied() else {
                self.world.ledger().breaks(format!("K-24: {actor:?} waits for ever"));
                return String::new();
            };
            self.world.clock.advance(sleep);
        }
    }

    /// After a logout nothing that is alive stays unrevoked, unless that is reported.
    fn check_logout(&self) {
        let Some(word) = self.words.last() else { return };
        let acting = &self.cast[word.actor];
        if acting.actor == Actor::LogOut && acting.outcome.as_deref() == Some("ok") {
            let mut ledger = self.world.ledger();
            // What came after it, and could not be revoked, is in the log.
            let excuses = [
                Deviation::At(Door::Revoke, Answer::Fails),
                Deviation::At(Door::Revoke, Answer::Panics),
                Deviation::At(Door::Write, Answer::Panics),
                Deviation::TimePasses,
                // A sibling may then save between the look into the store and its clearing.
                Deviation::LeaseEnds,
            ];
            if excuses.into_iter().any(|deviation| ledger.has_gone(deviation)) {
                return;
            }
            for number in ledger.left_alive(word.number, word.step) {
                ledger.breaks(format!("log_out: r{number} is alive"));
            }
        }
    }

    /// K-25, K-60: the store holds what the session believes, or what a sibling has made of it.
    async fn check_store(&self, when: &str) {
        if !self.scenario.has_store {
            return;
        }
        let stored = self.world.memory.load().await.unwrap().map(|tokens| number_of(&tokens));
        let current = self.session.current_tokens().map(|tokens| number_of(&tokens));
        let has_sibling = self.scenario.actors.contains(&Actor::Sibling);
        let is_later = has_sibling && stored > current && current.is_some();
        let is_unread = self.scenario.start == Start::FirstUse && self.words.is_empty();
        if stored != current && !is_later && !is_unread {
            let line = format!("K-25, K-60: {when} the store has {stored:?}, memory {current:?}");
            self.world.ledger().breaks(line);
        }
    }
}
