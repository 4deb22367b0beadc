//! The way of a request: attach, send, judge, refresh, replay once.

use std::borrow::Borrow;
use std::future::ready;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

use crate::accounts::{Account, Accounts, Found};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::middleware::held::Held;
use crate::proto::credential::Credential;
use crate::proto::origin::{Within, insecure, is_same, printed};
use crate::proto::provider::Judgement;
use crate::proto::state::{AfterRejection, Need};
use crate::session::{Answer, Patience, Session, Settings};

mod held;

/// How one request is to be authenticated, where the default is not right.
///
/// ```no_run
/// use reqwest_refresh::Authenticate;
///
/// # async fn f(client: reqwest_middleware::ClientWithMiddleware) -> reqwest_middleware::Result<()> {
/// client.get("https://gateway.example.com/health").with_extension(Authenticate::Never).send().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authenticate {
    /// With a token that is newer than the current one. Taken out of the request's extensions when
    /// it is honoured, so an outer retry does not refresh again.
    AfterRefresh,
    /// With a token if somebody is logged in, without one otherwise.
    IfLoggedIn,
    /// Not at all: no token, and a 401 is the caller's.
    Never,
    /// With a token that lasts at least so long, for a request that takes long. Half of a token's
    /// lifetime is the most that can be had.
    ValidFor(Duration),
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>;

impl Middleware for Session {
    // NOTE: the signature that `#[async_trait]` would write. By hand, because what comes before the
    // first await is then done outside of the future, which holds the request once instead of
    // twice and stays within the sizes that allocators are quick at: a quarter of the cost of
    // a request with a fresh token.
    fn handle<'session, 'extensions, 'next, 'answer>(
        &'session self,
        request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Answering<'answer>
    where
        'session: 'answer,
        'extensions: 'answer,
        'next: 'answer,
        Self: 'answer,
    {
        authenticate(self, request, extensions, next)
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Middleware for Accounts<K> {
    fn handle<'accounts, 'extensions, 'next, 'answer>(
        &'accounts self,
        mut request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Answering<'answer>
    where
        'accounts: 'answer,
        'extensions: 'answer,
        'next: 'answer,
        Self: 'answer,
    {
        let Some(Account(account)) = extensions.get::<Account<K>>() else {
            return match self.settings().way_of(&request, extensions) {
                Way::Guarded(_) => {
                    let message = "the request names no account: it needs the extension Account";
                    Box::pin(ready(Err(Error::configuration(message).into())))
                }
                Way::Refused(error) => Box::pin(ready(Err(error.into()))),
                Way::Outside | Way::Untouched => next.run(request, extensions),
            };
        };
        match self.find(account) {
            Found::Session(session) => authenticate(session, request, extensions, next),
            Found::Opening(opened) => Box::pin(async move {
                let mut patience = Patience { left: request.timeout().copied() };
                let session = self.opened(opened, &mut patience).await?;
                patience.limit(&mut request);
                authenticate(session, request, extensions, next).await
            }),
        }
    }
}

/// The way of a request through a session.
#[inline]
fn authenticate<'a, S: Borrow<Session> + Send + 'a>(
    session: S,
    request: Request,
    extensions: &'a mut Extensions,
    next: Next<'a>,
) -> Answering<'a> {
    let settings = &session.borrow().inner.settings;
    let need = match settings.way_of(&request, extensions) {
        Way::Guarded(need) => need,
        Way::Outside => {
            let outside =
                async move { session.borrow().send_outside(request, extensions, next).await };
            return Box::pin(outside);
        }
        Way::Refused(error) => return Box::pin(ready(Err(error.into()))),
        Way::Untouched => return next.run(request, extensions),
    };
    let answer = session.borrow().ask(need);
    let exchange = Exchange::new(session, &request, need);
    match answer {
        Answer::Credential(sent) => exchange.send(request, sent, extensions, next),
        Answer::Fail(error) => Box::pin(ready(Err(error.into()))),
        Answer::Wait(flight) => Box::pin(async move {
            let (mut exchange, mut request) = (exchange, request);
            let session = exchange.session.borrow();
            let sent = session.wait(flight, need, &mut exchange.patience).await?;
            exchange.patience.limit(&mut request);
            exchange.send(request, sent, extensions, next).await
        }),
    }
}

/// What a session has to do with a request.
enum Way {
    Guarded(Need),
    Outside,
    Refused(Error),
    Untouched,
}

/// One request on its way: attach, send, judge, refresh, replay once.
struct Exchange<S> {
    session: S,
    need: Need,
    /// A copy to send again; made before the token goes in, and only where it may be needed.
    spare: Option<Request>,
    /// The origin that was asked, where there is no copy that knows it.
    asked: Option<u64>,
    patience: Patience,
}

impl<S: Borrow<Session> + Send> Exchange<S> {
    #[inline]
    fn new(session: S, request: &Request, need: Need) -> Self {
        let settings = &session.borrow().inner.settings;
        let spare = if settings.replay { request.try_clone() } else { None };
        let asked = match spare {
            Some(_) => None,
            None => Some(settings.reach.fingerprint(request.url())),
        };
        let patience = Patience { left: request.timeout().copied() };
        Self { session, need, spare, asked, patience }
    }

    #[inline]
    fn send<'a>(
        self,
        mut request: Request,
        sent: Option<Arc<Credential>>,
        extensions: &'a mut Extensions,
        next: Next<'a>,
    ) -> Answering<'a>
    where
        S: 'a,
    {
        attach(&mut request, sent.as_deref());
        if self.need.new {
            extensions.remove::<Authenticate>();
        }
        let start = self.patience.left.map(|_| self.session.borrow().inner.settings.clock.now());
        Box::pin(async move {
            let response = next.clone().run(request, &mut *extensions).await?;
            let provider = &self.session.borrow().inner.settings.provider;
            match provider.judge(response.status(), response.headers()) {
                Judgement::Accepted => Ok(response),
                judgement => {
                    let recovery = self.recover(response, judgement, sent, start, extensions, next);
                    Box::pin(recovery).await
                }
            }
        })
    }

    /// What follows an answer that may have rejected the token.
    async fn recover(
        mut self,
        response: Response,
        judgement: Judgement,
        sent: Option<Arc<Credential>>,
        start: Option<Moment>,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let clock = &self.session.borrow().inner.settings.clock;
        if let Some(start) = start {
            self.patience.spend(clock.now().monotonic - start.monotonic);
        }
        if self.was_redirected(&response) {
            return Ok(response);
        }
        let mut answer = Held::new(response);
        if let Judgement::RejectedIf(is_rejection) = judgement {
            let body = answer.json(clock).await;
            if !body.is_some_and(|body| is_rejection(&body)) {
                return Ok(answer.into_response());
            }
        }
        let verdict = self.session.borrow().after_rejection(sent.as_deref(), self.spare.is_some());
        let mut request = match (verdict, self.spare.take()) {
            (AfterRejection::Refresh | AfterRejection::Replay, Some(spare)) => spare,
            (AfterRejection::RefreshBehind, _) => {
                self.session.borrow().refresh_behind();
                return Ok(answer.into_response());
            }
            _ => return Ok(answer.into_response()),
        };
        answer.read(clock, self.patience.left).await;
        self.patience.spend(answer.taken);
        let need = Need { new: false, ..self.need };
        match self.session.borrow().credential(need, &mut self.patience).await {
            Ok(Some(credential)) => {
                attach(&mut request, Some(&credential));
                self.patience.limit(&mut request);
                next.run(request, extensions).await
            }
            Ok(None) => Ok(answer.into_response()),
            Err(error) if matches!(error.kind(), ErrorKind::ExcessiveRefresh) => {
                Ok(answer.into_response())
            }
            Err(error) => Err(error.behind(answer.into_rejection()).into()),
        }
    }

    /// Whether the answer is another origin's than was asked: then it says nothing about the
    /// token, which reqwest has dropped on the way (RFC 9110 §15.4). To send it there after all
    /// would give it to strangers.
    fn was_redirected(&self, response: &Response) -> bool {
        match (&self.spare, self.asked) {
            (Some(spare), _) => !is_same(spare.url(), response.url()),
            (None, asked) => {
                let reach = &self.session.borrow().inner.settings.reach;
                asked != Some(reach.fingerprint(response.url()))
            }
        }
    }
}

impl Settings {
    #[inline]
    fn way_of(&self, request: &Request, extensions: &Extensions) -> Way {
        let wish = extensions.get::<Authenticate>();
        if wish == Some(&Authenticate::Never) || has_own(request) {
            return Way::Untouched;
        }
        match self.reach.of(request.url()) {
            Within::Allowed => {}
            Within::Insecure => return Way::Refused(insecure(request.url())),
            Within::Outside => return Way::Outside,
            Within::TokenEndpoint => return Way::Untouched,
        }
        let need = Need { replayable: !is_one_shot(request), ..Need::ANY };
        match wish {
            None => Way::Guarded(need),
            Some(Authenticate::AfterRefresh) => Way::Guarded(Need { new: true, ..need }),
            Some(Authenticate::IfLoggedIn) => Way::Guarded(Need { optional: true, ..need }),
            Some(Authenticate::Never) => Way::Untouched,
            Some(Authenticate::ValidFor(time)) => Way::Guarded(Need { valid_for: *time, ..need }),
        }
    }
}

impl Session {
    fn after_rejection(&self, sent: Option<&Credential>, replayable: bool) -> AfterRejection {
        let now = self.inner.settings.clock.now();
        let generation = sent.map(|credential| credential.generation);
        let state = &mut self.inner.guarded.lock().state;
        state.after_rejection(generation, replayable, &self.inner.policy, now)
    }

    async fn send_outside(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let response = next.run(request, extensions).await?;
        let is_rejected = response.status() == StatusCode::UNAUTHORIZED
            && self.inner.settings.reach.of(response.url()) == Within::Outside;
        if is_rejected && !self.inner.has_warned.swap(true, Ordering::Relaxed) {
            let origin = printed(response.url());
            tracing::warn!(
                "401 from {origin}, which gets no token; if it should: allow_origin(\"{origin}\")"
            );
        }
        Ok(response)
    }
}

/// Puts the header in.
#[inline]
fn attach(request: &mut Request, credential: Option<&Credential>) {
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential.header.clone());
    }
}

/// Whether the caller has put a header in. To look at a handful of names is quicker than to hash one.
#[inline]
fn has_own(request: &Request) -> bool {
    request.headers().keys().any(|name| name == AUTHORIZATION)
}

/// Whether the body can be sent only once: a stream, or a multipart form.
fn is_one_shot(request: &Request) -> bool {
    request.body().is_some_and(|body| body.as_bytes().is_none())
}
