use reqwest_refresh::{LoginReason, TokenSet};

use crate::simulation::machine::Stamp;
use crate::simulation::oracle::{LeaseFacts, Oracle, SessionId, Tick};
use crate::simulation::server::{Server, number};
use crate::simulation::store::Writer;

impl Oracle {
    /// K-50, K-53, K-54: somebody is asked to log in: once for each dead session, after the server
    /// has really refused, and after another look into the store.
    pub fn asks_for_login(&mut self, session: SessionId, reason: &LoginReason) {
        let facts = self.facts(session);
        let was_asked = std::mem::replace(&mut facts.was_asked, true);
        let (refused, looked, has_store) = (facts.refused, facts.looked, facts.has_store);
        self.reads(&format!("{reason:?} {}", reason.explain()));
        self.require(!was_asked, "K-50", || format!("s{session} asks again: {reason:?}"));
        if let LoginReason::Refused { .. } = reason {
            self.require(refused.is_some(), "K-54", || {
                format!("s{session} asks for a login, and nobody has refused: {reason:?}")
            });
            let has_looked = !has_store || refused.is_none_or(|refused| looked > refused);
            self.require(has_looked, "K-53", || {
                format!("s{session} asks for a login without a look into the store")
            });
        }
    }

    /// A session has got the lock; where it ends by itself, the session knows when.
    pub fn has_lease(&mut self, session: SessionId, number: u64, end: Option<Stamp>) {
        let lease = LeaseFacts { number, end, loaded: None, has_failed: false };
        self.facts(session).lease = Some(lease);
    }

    pub fn gives_lease_back(&mut self, session: SessionId, number: u64) {
        self.facts(session).lease.take_if(|lease| lease.number == number);
    }

    /// The store has been read: this is what was `seen`.
    pub fn has_looked(
        &mut self,
        session: SessionId,
        found: Option<&TokenSet>,
        writer: Option<Writer>,
        seen: Tick,
        server: &Server,
    ) {
        let tick = self.tick();
        let start = self.facts(session).machine.now();
        let refused = self.facts(session).refused;
        if let Some(tokens) = found {
            self.learns(session, tokens, start);
        }
        let facts = self.facts(session);
        facts.looked = tick;
        // A login counts more than what is found before it could be written.
        if facts.has_unsaved_login() {
            facts.refused = facts.refused.or(refused);
        }
        if let Some(lease) = &mut facts.lease {
            lease.loaded = Some(seen);
        }
        // Somebody else has said something since.
        if let (Some(tokens), Some(writer), Some(spoken)) = (found, writer, &mut facts.spoken)
            && writer.session != session
            && writer.at > spoken.at
            && spoken.is_written
        {
            spoken.forgotten.remove(&server.family_of_access(number(tokens.access_token())));
        }
    }

    /// The store could not be locked or read. A flight that dies of it forgets what it was told, and
    /// saves nothing more.
    pub fn cannot_look(&mut self, session: SessionId, panicked: bool) {
        let tick = self.tick();
        // A look before a write is a part of the try.
        for (_, unsaved) in self.unsaved.iter_mut().filter(|((of, _), _)| *of == session) {
            unsaved.failures += 1;
            unsaved.is_given_up |= panicked;
        }
        let facts = self.facts(session);
        if panicked {
            facts.dead.clear();
        }
        facts.looked = tick;
        if let Some(lease) = &mut facts.lease {
            lease.has_failed = true;
        }
    }

    /// The store holds something else from now on.
    pub fn is_written(
        &mut self,
        account: usize,
        writer: SessionId,
        tokens: Option<&TokenSet>,
        server: &Server,
    ) -> Writer {
        let tick = self.tick();
        let family = |tokens: &TokenSet| server.family_of_access(number(tokens.access_token()));
        let family = tokens.map(family);
        if let Some(tokens) = tokens {
            let rt = tokens.refresh_token().map(number);
            self.brought_back.extend(rt.filter(|rt| self.insists_on(writer, *rt, server)));
            if let Some(rt) = tokens.refresh_token() {
                self.saved.entry(number(rt)).or_insert(tick);
            }
            self.saved_access.entry(number(tokens.access_token())).or_insert(tick);
        }
        self.stored.insert(account, family);
        if let Some(facts) = self.sessions.get_mut(&writer)
            && let Some(spoken) = &mut facts.spoken
        {
            spoken.is_written = true;
        }
        Writer { session: writer, at: tick }
    }

    /// A session has got to know that its tokens are in the store.
    pub fn is_saved(&mut self, session: SessionId) {
        let facts = self.facts(session);
        facts.has_hooked = false;
        if let Some(spoken) = &mut facts.spoken {
            spoken.is_saved = true;
        }
    }

    /// A write has failed, or nobody waited for its end; or the store has panicked.
    pub fn is_not_written(&mut self, session: SessionId, tokens: &TokenSet, panicked: bool) {
        let at = number(tokens.access_token());
        if let Some(spoken) = &mut self.facts(session).spoken {
            spoken.has_failed = true;
        }
        if let Some(unsaved) = self.unsaved.get_mut(&(session, at)) {
            unsaved.failures += 1;
            unsaved.is_given_up |= panicked;
        }
    }
}
