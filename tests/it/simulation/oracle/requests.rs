use std::error::Error as StdError;

use http::header::AUTHORIZATION;
use reqwest::Request as Sent;
use reqwest_refresh::Error;

use crate::simulation::oracle::{Oracle, SessionId, Tick};
use crate::simulation::server::{At, CANARY, Server, number};

pub type RequestId = usize;

/// One request of a caller, from its first step to its answer.
pub struct Request {
    session: SessionId,
    begun: Tick,
    /// What may be there of a token: nobody adds one.
    own_header: Option<&'static str>,
    is_foreign: bool,
    is_one_shot: bool,
    /// Whether a session may give it a token.
    is_guarded: bool,
    arrivals: Vec<Arrival>,
    told: Vec<Told>,
    outcome: Option<Outcome>,
}

/// What a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    LoginRequired,
    Other(String),
    Status(u16),
}

/// A request as it arrives at the API.
#[derive(Clone, PartialEq)]
struct Arrival {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

/// What the API has answered to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Rejected(u16),
    Status(u16),
}

impl Arrival {
    fn of(sent: &Sent) -> Self {
        let others = sent.headers().iter().filter(|(name, _)| *name != AUTHORIZATION);
        Self {
            method: sent.method().to_string(),
            url: sent.url().to_string(),
            headers: others.map(|(n, value)| (n.to_string(), value.as_bytes().to_vec())).collect(),
            body: sent.body().and_then(|body| body.as_bytes()).map(<[u8]>::to_vec),
        }
    }
}

impl Oracle {
    pub fn request_begins(
        &mut self,
        id: RequestId,
        session: SessionId,
        own_header: Option<&'static str>,
        is_foreign: bool,
        is_one_shot: bool,
        is_guarded: bool,
    ) {
        let begun = self.tick();
        let request = Request {
            session,
            begun,
            own_header,
            is_foreign,
            is_one_shot,
            is_guarded,
            arrivals: Vec::new(),
            told: Vec::new(),
            outcome: None,
        };
        self.requests.insert(id, request);
    }

    /// The API, or a stranger, sees a request. The token that it brings.
    pub fn arrives(&mut self, id: RequestId, sent: &Sent, server: &Server) -> Option<At> {
        let arrival = Arrival::of(sent);
        let mut headers = sent.headers().get_all(AUTHORIZATION).iter();
        let header = headers.next().map(|value| value.to_str().unwrap().to_owned());
        let is_single = headers.next().is_none();
        let request = self.requests.get_mut(&id).expect("a request that has begun");
        let (session, begun, own) = (request.session, request.begun, request.own_header);
        let is_foreign = request.is_foreign;
        let before = request.arrivals.len();
        let is_rejected = matches!(request.told.last(), Some(Told::Rejected(_)));
        let is_same = request.arrivals.last().is_none_or(|last| *last == arrival);
        let may_replay = is_rejected && !request.is_one_shot && own.is_none() && !is_foreign;
        request.arrivals.push(arrival);

        self.require(before < 2, "K-40", || format!("request {id} is replayed again"));
        self.require(before == 0 || may_replay, "K-40", || {
            format!("request {id} is replayed without a reason")
        });
        self.require(is_same, "K-43", || format!("request {id} is not the same again"));
        self.require(is_single, "K-01", || format!("request {id} has two tokens"));
        if is_foreign || own.is_some() {
            self.require(header.as_deref() == own, "K-03, K-02", || {
                format!("request {id} brings {header:?} where nothing was to be added")
            });
            return None;
        }
        let at = number(&header?);
        self.uses(id, session, begun, at, server);
        Some(at)
    }

    fn uses(&mut self, id: RequestId, session: SessionId, begun: Tick, at: At, server: &Server) {
        self.uses_what_is_saved(id, session, at);
        let tick = self.tick();
        let facts = self.facts(session);
        let now = facts.machine.now();
        let Some(access) = facts.access.get_mut(&at) else {
            return self.violated("K-01", format!("s{session} sends at-{at}: whose is it?"));
        };
        // K-11, K-12: whoever has waited for a token gets it, however short it lives.
        let since = *access.since.get_or_insert(tick);
        let is_over = since < begun && access.is_over(&now);
        let family = server.family_of_access(at);
        // K-25. A login that could not be saved gives way to one that nobody here knows.
        let is_forgotten = facts
            .spoken
            .as_ref()
            .filter(|spoken| spoken.is_written || !spoken.has_failed)
            .is_some_and(|spoken| spoken.at < begun && spoken.forgotten.contains(&family));
        self.require(!is_over, "K-12", || {
            format!("request {id} of s{session} brings at-{at}, which is over")
        });
        self.require(!is_forgotten, "K-25", || {
            format!("request {id} of s{session} brings at-{at}, which the user has replaced")
        });
    }

    /// K-60: a refreshed pair is saved before it is used, or three tries have failed, or the store
    /// has panicked.
    fn uses_what_is_saved(&mut self, id: RequestId, session: SessionId, at: At) {
        let is_saved = self.saved_access.contains_key(&at);
        let unsaved = self.unsaved.get(&(session, at));
        let may_use = unsaved.is_none_or(|it| it.is_given_up || it.failures >= 3);
        self.require(is_saved || may_use, "K-60", || {
            format!("request {id} of s{session} brings at-{at}, which is not saved")
        });
    }

    /// The API's answer is with the session. K-22: a request that went out without a token, because
    /// there was none, may be sent again with the one that is there by now.
    pub fn is_told(&mut self, id: RequestId, told: Told, brought: Option<At>) {
        let request = self.requests.get_mut(&id).expect("a request that has begun");
        let told = match told {
            Told::Status(401) if brought.is_none() && request.is_guarded => Told::Rejected(401),
            told => told,
        };
        request.told.push(told);
        let session = request.session;
        if let (Told::Rejected(_), Some(at)) = (told, brought) {
            self.facts(session).rejected.insert(at);
        }
    }

    /// K-40: the caller gets the answer to what was sent last.
    pub fn is_answered(&mut self, id: RequestId, status: u16) {
        let request = self.requests.get_mut(&id).expect("a request that has begun");
        request.outcome = Some(Outcome::Status(status));
        let last = request.told.last().copied();
        let is_last = matches!(
            last,
            Some(Told::Status(told) | Told::Rejected(told)) if told == status
        );
        self.require(is_last, "K-40", || {
            format!("request {id} is answered {status}; the API said {last:?}")
        });
    }

    /// K-70, K-44: an error that is ours has the rejection behind it, if there was one. K-63.
    pub fn fails(&mut self, id: RequestId, error: &reqwest_middleware::Error) {
        self.reads(&format!("{error} {error:?} {error:#?}"));
        let mut next = error.source();
        while let Some(source) = next {
            self.reads(&format!("{source} {source:?}"));
            next = source.source();
        }
        let request = self.requests.get_mut(&id).expect("a request that has begun");
        request.outcome = Some(Outcome::Other(error.to_string()));
        let Some(ours) = Error::find(error) else { return };
        request.outcome = Some(match ours.is_login_required() {
            true => Outcome::LoginRequired,
            false => Outcome::Other(ours.to_string()),
        });
        let told = request.told.last().copied();
        let is_kept = match told {
            Some(Told::Rejected(status)) => {
                ours.rejection().is_some_and(|rejection| rejection.status().as_u16() == status)
            }
            _ => true,
        };
        self.require(is_kept, "K-44", || format!("request {id} hides its rejection: {ours}"));
    }

    /// What a request has come to so far.
    pub fn outcome(&self, id: RequestId) -> Option<&Outcome> {
        self.requests.get(&id)?.outcome.as_ref()
    }

    /// K-63: somebody could read this.
    pub fn reads(&mut self, text: &str) {
        self.require(!text.contains(CANARY), "K-63", || format!("a token is printed: {text}"));
    }
}
