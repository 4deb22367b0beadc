use crate::simulation::oracle::{Oracle, SessionId, Tick};
use crate::simulation::server::Family;
use crate::simulation::store::Writer;

impl Oracle {
    /// Somebody begins, or ceases, to wait for a newer token.
    pub fn forces(&mut self, session: SessionId, begins: bool) {
        let facts = self.facts(session);
        facts.was_forced |= begins;
        match begins {
            true => facts.forcing += 1,
            false => facts.forcing -= 1,
        }
    }

    /// K-25: after a login or a logout the store holds what was said, or what another session or
    /// a later word has put there; what was forgotten is there only if somebody else has said so.
    pub fn is_in_store(
        &mut self,
        session: SessionId,
        word: Tick,
        said: Option<Family>,
        stored: Option<Family>,
        writer: Option<Writer>,
    ) {
        let facts = self.facts(session);
        let Some(spoken) = facts.spoken.as_ref().filter(|spoken| spoken.at == word) else { return };
        let is_later = writer.is_some_and(|writer| writer.at > word);
        let is_forgotten = stored.is_some_and(|family| spoken.forgotten.contains(&family));
        self.require(stored == said || (is_later && !is_forgotten), "K-25", || {
            format!("s{session} has said {said:?}, and in the store is {stored:?}")
        });
    }

    /// K-21.
    pub fn is_settled(&mut self, session: SessionId) {
        let in_flight = self.facts(session).in_flight;
        self.require(in_flight == 0, "K-21", || {
            format!("s{session} has settled, and a refresh is under way")
        });
    }
}
