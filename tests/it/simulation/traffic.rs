use std::sync::Arc;
use std::time::Duration;

use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{Authenticate, Error, Event, Session, TokenSet};

use crate::simulation::api::{API, STRANGER};
use crate::simulation::faults::Fault;
use crate::simulation::oracle::{RequestId, SessionId};
use crate::simulation::server::number;
use crate::simulation::world::World;
use crate::support::fed_body;

/// A header that a caller sets itself.
const OWN: &str = "Basic b3du";

/// Somebody who wants a newer token than there is, or a longer one.
struct Forcing<'a> {
    world: &'a World,
    session: SessionId,
}

impl<'a> Forcing<'a> {
    fn new(world: &'a World, session: SessionId) -> Self {
        world.oracle().forces(session, true);
        Self { world, session }
    }
}

impl Drop for Forcing<'_> {
    fn drop(&mut self) {
        self.world.oracle().forces(self.session, false);
    }
}

impl World {
    /// One request of any kind.
    pub async fn requests(
        self: Arc<Self>,
        id: RequestId,
        session: SessionId,
        client: ClientWithMiddleware,
    ) {
        let is_plain = self.is_calm();
        let is_foreign = !is_plain && self.chance(5);
        let is_own = !is_plain && self.chance(5);
        let is_one_shot = !is_plain && self.chance(10);
        let url = format!("{}{id}", if is_foreign { STRANGER } else { API });
        let mut request = match self.below(3) {
            0 => client.get(url),
            1 => client.post(url).body(format!("order {id}")),
            _ => client.put(url).header("x-order", "7").body(vec![7; 100]),
        };
        if is_one_shot {
            request = request.body(fed_body().1);
        }
        if is_own {
            request = request.header("authorization", OWN);
        }
        let mut forcing = None;
        let mut is_guarded = !is_foreign && !is_own;
        if !is_plain {
            let seconds = Duration::from_secs(self.below(400) as u64);
            let wish = match self.below(20) {
                0 => Some(Authenticate::AfterRefresh),
                1 => Some(Authenticate::IfLoggedIn),
                2 => Some(Authenticate::Never),
                3 => Some(Authenticate::ValidFor(seconds)),
                _ => None,
            };
            is_guarded &= wish != Some(Authenticate::Never);
            if let Some(wish) = wish {
                request = request.with_extension(wish);
            }
            if matches!(wish, Some(Authenticate::AfterRefresh | Authenticate::ValidFor(_))) {
                forcing = Some(Forcing::new(&self, session));
            }
            if self.strikes(Fault::TimedOut) {
                request = request.timeout(self.millis(10, 10_000));
            }
        }
        let own = is_own.then_some(OWN);
        self.oracle().request_begins(id, session, own, is_foreign, is_one_shot, is_guarded);
        let result = request.send().await;
        drop(forcing);
        match result {
            Ok(response) => {
                self.note(format_args!("request {id} of s{session}: {}", response.status()));
                self.oracle().is_answered(id, response.status().as_u16());
            }
            Err(error) => {
                let ours = Error::find(&error).map(ToString::to_string);
                self.note(format_args!("request {id} of s{session}: {ours:?}"));
                self.oracle().fails(id, &error);
            }
        }
    }

    /// A refresh that somebody demands.
    pub async fn demands_refresh(self: Arc<Self>, session: SessionId, own: Session) {
        let _forcing = Forcing::new(&self, session);
        let result = own.refresh().await;
        self.hears(session, "refresh", result.map(drop));
    }

    /// A login by the user.
    pub async fn sets_tokens(&self, session: SessionId, own: &Session) {
        let account = self.oracle().facts(session).account;
        let tokens = self.log_in(account);
        let word = self.speaks(session);
        let now = self.oracle().facts(session).machine.now();
        self.oracle().learns(session, &tokens, now);
        let result = own.set_tokens(tokens.clone()).await;
        if result.is_ok() {
            self.is_kept(session, word, Some(&tokens));
        }
        self.hears(session, "set_tokens", result);
    }

    /// A logout.
    pub async fn logs_out(self: Arc<Self>, session: SessionId, own: Session, tells_server: bool) {
        let word = self.speaks(session);
        let result = match tells_server {
            true => own.log_out().await,
            false => own.clear().await,
        };
        if result.is_ok() {
            self.is_kept(session, word, None);
        }
        self.hears(session, "logout", result);
    }

    /// K-21: when a session says that it is settled, nothing of it is under way.
    pub async fn settles(self: Arc<Self>, session: SessionId, own: Session) {
        let result = own.settle().await;
        if result.is_ok() {
            self.oracle().is_settled(session);
        }
        self.hears(session, "settle", result);
    }

    /// Reads what a session tells, for ever.
    pub async fn watches(self: Arc<Self>, session: SessionId, own: Session) {
        let mut events = own.events();
        drop(own);
        while let Some(event) = events.next().await {
            let text = format!("{event:?}");
            self.note(format_args!("s{session} tells {text:.60}"));
            self.oracle().reads(&text);
            if matches!(event, Event::Refreshed { .. }) {
                self.oracle().is_told_of_tokens(session);
            }
        }
    }

    fn speaks(&self, session: SessionId) -> u64 {
        let server = self.server();
        self.oracle().user_speaks(session, &server)
    }

    /// K-25: what the user has said is in the store, or what was said later.
    fn is_kept(&self, session: SessionId, word: u64, said: Option<&TokenSet>) {
        let (account, has_store) = {
            let mut oracle = self.oracle();
            let facts = oracle.facts(session);
            (facts.account, facts.has_store)
        };
        if !has_store {
            return;
        }
        let (stored, writer) = {
            let shelf = self.shelf(account);
            (shelf.tokens.clone(), shelf.writer)
        };
        let family = |set: &TokenSet| self.server().family_of_access(number(set.access_token()));
        let (stored, said) = (stored.as_ref().map(family), said.map(family));
        self.oracle().is_in_store(session, word, said, stored, writer);
    }

    fn hears(&self, session: SessionId, what: &str, result: Result<(), Error>) {
        if let Err(error) = &result {
            self.oracle().reads(&format!("{error} {error:?}"));
        }
        let result = result.map_err(|error| error.to_string());
        self.note(format_args!("s{session}: {what} {result:?}"));
    }
}
