//! Who acts, and what they do. They are no tasks: the play says who of them goes on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{Authenticate, Session};

use crate::interleavings::ledger::tokens_of;
use crate::interleavings::scenario::Actor;
use crate::support::outcome;

/// What an actor is about; it comes to `200`, `ok`, or the kind of error.
pub type Work = Pin<Box<dyn Future<Output = String>>>;

/// Whether somebody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody on the stage.
pub struct Acting {
    pub actor: Actor,
    pub has_begun: bool,
    work: Option<Work>,
    woken: Arc<Woken>,
    pub outcome: Option<String>,
}

impl Acting {
    pub fn new(actor: Actor) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        Self { actor, has_begun: false, work: None, woken, outcome: None }
    }

    pub fn is_woken(&self) -> bool {
        self.work.is_some() && self.woken.0.load(Ordering::Relaxed)
    }

    pub fn is_at_work(&self) -> bool {
        self.work.is_some()
    }

    pub fn begin(&mut self, work: Work) {
        self.work = Some(work);
        self.woken.0.store(true, Ordering::Relaxed);
    }

    /// Is dropped, as a request whose caller goes away.
    pub fn go_away(&mut self) {
        self.work = None;
        self.outcome = Some("cancelled".into());
    }

    /// Goes on until it has to wait. Whether it has ended by that.
    pub fn go_on(&mut self) -> bool {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        let Some(work) = &mut self.work else { return false };
        let Poll::Ready(outcome) = work.as_mut().poll(&mut Context::from_waker(&waker)) else {
            return false;
        };
        self.work = None;
        self.outcome = Some(outcome);
        true
    }
}

/// What an actor does.
pub fn work_of(
    actor: Actor,
    index: usize,
    said: Option<usize>,
    session: &Session,
    client: &ClientWithMiddleware,
) -> Work {
    let (session, client) = (session.clone(), client.clone());
    let get = move || client.get(format!("https://api.test/{index}"));
    let ended = |result: Result<(), reqwest_refresh::Error>| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.kind().to_string(),
    };
    Box::pin(async move {
        match actor {
            Actor::Clear => ended(session.clear().await),
            Actor::Get => outcome(get().send().await),
            Actor::GetAnew => {
                outcome(get().with_extension(Authenticate::AfterRefresh).send().await)
            }
            Actor::LogOut => ended(session.log_out().await),
            Actor::Refresh => ended(session.refresh().await.map(drop)),
            Actor::Set => {
                let said = said.expect("a pair to set");
                ended(session.set_tokens(tokens_of(said)).await)
            }
            Actor::Settle => ended(session.settle().await),
            Actor::Sibling => unreachable!("it has a session of its own"),
        }
    })
}
