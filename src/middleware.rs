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

use crate::accounts::{Account, Accounts};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::middleware::held::Held;
use crate::proto::credential::Credential;
use crate::proto::origin::{Within, insecure, is_same, printed};
use crate::proto::provider::Judgement;
use crate::proto::state::{AfterRejection, Need};
use crate::session::{Patience, Session, Settings};

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
    // NOTE: the signature that `#[async_trait]` would write. By hand, because the future then holds
    // the request once instead of twice and stays within the sizes that allocators are quick at:
    // a quarter of the cost of a request with a fresh token.
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
                Way::Guarded(..) => {
                    let message = "the request names no account: it needs the extension Account";
                    Box::pin(ready(Err(Error::configuration(message).into())))
                }
                Way::Refused(error) => Box::pin(ready(Err(error.into()))),
                Way::Outside | Way::Untouched => next.run(request, extensions),
            };
        };
        if let Some(session) = self.find(account) {
            return authenticate(session, request, extensions, next);
        }
        // Who needs no token waits for no session, and does not fail with it.
        if let Way::Untouched = self.settings().way_of(&request, extensions) {
            return next.run(request, extensions);
        }
        let found = self.find_or_open(account);
        Box::pin(async move {
            let mut patience = Patience { left: request.timeout().copied() };
            let session = self.opened(found, &mut patience).await?;
            patience.limit(&mut request);
            authenticate(session, request, extensions, next).await
        })
    }
}

/// The way of a request through a session.
#[inline]
fn authenticate<'a, S: Borrow<Session> + Send + 'a>(
    session: S,
    mut request: Request,
    extensions: &'a mut Extensions,
    next: Next<'a>,
) -> Answering<'a> {
    let (need, origin) = match session.borrow().inner.settings.way_of(&request, extensions) {
        Way::Guarded(need, origin) => (need, origin),
        Way::Outside => {
            let outside =
                async move { session.borrow().send_outside(request, extensions, next).await };
            return Box::pin(outside);
        }
        Way::Refused(error) => return Box::pin(ready(Err(error.into()))),
        Way::Untouched => return next.run(request, extensions),
    };
    // NOTE: a block takes the request where it is; an `async fn` would make room for it twice.
    Box::pin(async move {
        let mut patience = Patience { left: request.timeout().copied() };
        let sent = session.borrow().credential(need, &mut patience).await?;
        patience.limit(&mut request);
        let settings = &session.borrow().inner.settings;
        let spare = Spare::of(&request, origin, settings);
        attach(&mut request, sent.as_deref());
        if need.new {
            extensions.remove::<Authenticate>();
        }
        let start = patience.left.map(|_| settings.clock.now());
        let response = next.clone().run(request, &mut *extensions).await?;
        match settings.provider.judge(response.status(), response.headers()) {
            Judgement::Accepted => Ok(response),
            judgement => {
                let exchange = Exchange { session: session.borrow(), need, spare, patience };
                let recovery = exchange.recover(response, judgement, sent, start, extensions, next);
                Box::pin(recovery).await
            }
        }
    })
}

/// What a session has to do with a request.
enum Way {
    /// Also the number of the request's origin, where that costs nothing.
    Guarded(Need, Option<u64>),
    Outside,
    Refused(Error),
    Untouched,
}

/// What is kept of a request that was sent.
#[allow(clippy::large_enum_variant)] // a box would be an allocation for every request
enum Spare {
    /// A copy to send again; made before the token goes in.
    Copy(Request),
    /// The origin that was asked, where there is no copy that knows it.
    Origin(u64),
}

impl Spare {
    #[inline]
    fn of(request: &Request, origin: Option<u64>, settings: &Settings) -> Self {
        match settings.replay.then(|| request.try_clone()).flatten() {
            Some(copy) => Self::Copy(copy),
            None => Self::Origin(origin.unwrap_or_else(|| settings.reach.origin(request.url()))),
        }
    }
}

/// A request that was sent, and whose answer may have rejected the token.
struct Exchange<'a> {
    session: &'a Session,
    need: Need,
    spare: Spare,
    patience: Patience,
}

impl Exchange<'_> {
    /// Refresh, replay once.
    async fn recover(
        mut self,
        response: Response,
        judgement: Judgement,
        sent: Option<Arc<Credential>>,
        start: Option<Moment>,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let clock = &self.session.inner.settings.clock;
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
        let is_replayable = matches!(self.spare, Spare::Copy(_));
        let verdict = self.session.after_rejection(sent.as_deref(), is_replayable);
        let mut request = match (verdict, self.spare) {
            (AfterRejection::Refresh | AfterRejection::Replay, Spare::Copy(copy)) => copy,
            (AfterRejection::RefreshBehind, _) => {
                self.session.refresh_behind();
                return Ok(answer.into_response());
            }
            _ => return Ok(answer.into_response()),
        };
        answer.read(clock, self.patience.left).await;
        self.patience.spend(answer.taken);
        let need = Need { new: false, ..self.need };
        match self.session.credential(need, &mut self.patience).await {
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
        match &self.spare {
            Spare::Copy(copy) => !is_same(copy.url(), response.url()),
            Spare::Origin(origin) => {
                *origin != self.session.inner.settings.reach.origin(response.url())
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
        let origin = match self.reach.of(request.url()) {
            Within::Allowed(origin) => origin,
            Within::Insecure => return Way::Refused(insecure(request.url())),
            Within::Outside => return Way::Outside,
            Within::TokenEndpoint => return Way::Untouched,
        };
        let need = Need { replayable: !is_one_shot(request), ..Need::ANY };
        let need = match wish {
            None | Some(Authenticate::Never) => need,
            Some(Authenticate::AfterRefresh) => Need { new: true, ..need },
            Some(Authenticate::IfLoggedIn) => Need { optional: true, ..need },
            Some(Authenticate::ValidFor(time)) => Need { valid_for: *time, ..need },
        };
        Way::Guarded(need, origin)
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
