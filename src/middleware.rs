//! The way of a request: attach, send, judge, refresh, replay once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

use crate::error::ErrorKind;
use crate::middleware::held::Held;
use crate::proto::credential::Credential;
use crate::proto::origin::{Within, fingerprint, insecure};
use crate::proto::provider::Judgement;
use crate::proto::state::{AfterRejection, Need};
use crate::session::{Patience, Session};

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

#[async_trait]
impl Middleware for Session {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let need = match self.way_of(&request, extensions)? {
            Way::Guarded(need) => need,
            Way::Outside => return self.send_outside(request, extensions, next).await,
            Way::Untouched => return next.run(request, extensions).await,
        };
        let spare = self.spare(&request);
        let asked = fingerprint(request.url());
        let mut patience = Patience {
            left: request.timeout().copied(),
        };

        let sent = self.attach(&mut request, need, &mut patience).await?;
        if need.new {
            extensions.remove::<Authenticate>();
        }
        let response = self
            .send(request, extensions, next.clone(), &mut patience)
            .await?;

        let mut answer = match self.judge(response, asked).await {
            Judged::Accepted(response) => return Ok(response),
            Judged::Rejected(answer) => answer,
        };
        let verdict = self.after_rejection(sent.as_deref(), spare.is_some());
        let mut request = match (verdict, spare) {
            (AfterRejection::Refresh | AfterRejection::Replay, Some(spare)) => spare,
            (AfterRejection::RefreshBehind, _) => {
                self.refresh_behind();
                return Ok(answer.into_response());
            }
            _ => return Ok(answer.into_response()),
        };
        answer.read(&self.inner.clock).await;
        patience.spend(answer.taken);
        let need = Need { new: false, ..need };
        match self.attach(&mut request, need, &mut patience).await {
            Ok(Some(_)) => self.send(request, extensions, next, &mut patience).await,
            Ok(None) => Ok(answer.into_response()),
            Err(error) if matches!(error.kind(), ErrorKind::ExcessiveRefresh) => {
                Ok(answer.into_response())
            }
            Err(error) => Err(error.behind(answer.into_rejection()).into()),
        }
    }
}

/// What a session has to do with a request.
enum Way {
    Guarded(Need),
    Outside,
    Untouched,
}

/// What an answer says about the token.
enum Judged {
    Accepted(Response),
    Rejected(Box<Held>),
}

impl Session {
    #[inline]
    fn way_of(&self, request: &Request, extensions: &Extensions) -> Result<Way> {
        let wish = extensions.get::<Authenticate>();
        if wish == Some(&Authenticate::Never) || request.headers().contains_key(AUTHORIZATION) {
            return Ok(Way::Untouched);
        }
        match self.inner.reach.of(request.url()) {
            Within::Allowed => {}
            Within::Insecure => return Err(insecure(request.url()).into()),
            Within::Outside => return Ok(Way::Outside),
            Within::TokenEndpoint => return Ok(Way::Untouched),
        }
        let need = Need {
            replayable: !is_one_shot(request),
            ..Need::ANY
        };
        Ok(Way::Guarded(match wish {
            None => need,
            Some(Authenticate::AfterRefresh) => Need { new: true, ..need },
            Some(Authenticate::ValidFor(duration)) => Need {
                valid_for: *duration,
                ..need
            },
            Some(Authenticate::IfLoggedIn) => Need {
                optional: true,
                ..need
            },
            Some(Authenticate::Never) => return Ok(Way::Untouched),
        }))
    }

    /// A copy to send again; made before the token goes in, and only where it may be needed.
    #[inline]
    fn spare(&self, request: &Request) -> Option<Request> {
        if self.inner.replay {
            request.try_clone()
        } else {
            None
        }
    }

    /// Puts the header in, once there is a token that may be sent.
    #[inline]
    async fn attach(
        &self,
        request: &mut Request,
        need: Need,
        patience: &mut Patience,
    ) -> std::result::Result<Option<Arc<Credential>>, crate::Error> {
        let credential = self.credential(need, patience).await?;
        if let Some(credential) = &credential {
            request
                .headers_mut()
                .insert(AUTHORIZATION, credential.header.clone());
        }
        Ok(credential)
    }

    /// Sends an attempt, within what is left of the request's own time.
    #[inline]
    async fn send(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
        patience: &mut Patience,
    ) -> Result<Response> {
        let Some(left) = patience.left else {
            return next.run(request, extensions).await;
        };
        *request.timeout_mut() = Some(left);
        let start = self.inner.clock.now();
        let response = next.run(request, extensions).await;
        patience.spend(self.inner.clock.now().monotonic - start.monotonic);
        response
    }

    #[inline]
    async fn judge(&self, response: Response, asked: u64) -> Judged {
        match self
            .inner
            .provider
            .judge(response.status(), response.headers())
        {
            Judgement::Accepted => Judged::Accepted(response),
            // From another origin than was asked: the answer says nothing about the token, which
            // reqwest has dropped on the way (RFC 9110 §15.4). To send it there after all would
            // give it to strangers.
            _ if fingerprint(response.url()) != asked => Judged::Accepted(response),
            Judgement::Rejected => Judged::Rejected(Box::new(Held::new(response))),
            Judgement::RejectedIf(is_rejection) => {
                let mut answer = Box::new(Held::new(response));
                match answer
                    .json(&self.inner.clock)
                    .await
                    .is_some_and(|body| is_rejection(&body))
                {
                    true => Judged::Rejected(answer),
                    false => Judged::Accepted(answer.into_response()),
                }
            }
        }
    }

    fn after_rejection(&self, sent: Option<&Credential>, replayable: bool) -> AfterRejection {
        let now = self.inner.clock.now();
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
            && self.inner.reach.of(response.url()) == Within::Outside;
        if is_rejected && !self.inner.has_warned.swap(true, Ordering::Relaxed) {
            let origin = response.url().origin().ascii_serialization();
            tracing::warn!(
                "401 from {origin}, which gets no token; if it should: allow_origin(\"{origin}\")"
            );
        }
        Ok(response)
    }
}

/// Whether the body can be sent only once: a stream, or a multipart form.
fn is_one_shot(request: &Request) -> bool {
    request.body().is_some_and(|body| body.as_bytes().is_none())
}
