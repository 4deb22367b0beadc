//! What a request is told: before it is sent, and after its token was rejected.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::proto::credential::{Age, Credential};
use crate::proto::policy::Policy;
use crate::proto::state::flight::hindrance;
use crate::proto::state::{Cause, Standing, State};
use crate::token::Generation;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Need {
    /// A token that is newer than the current one.
    pub(crate) new: bool,
    /// None, if nobody is logged in.
    pub(crate) optional: bool,
    /// A token that lasts at least so long.
    pub(crate) valid_for: Duration,
    /// Whether the request can be sent again if the token turns out to be over.
    pub(crate) replayable: bool,
}

impl Need {
    /// Any token that is not over.
    pub(crate) const ANY: Self =
        Self { new: false, optional: false, valid_for: Duration::ZERO, replayable: true };
}

/// What to do before a request.
#[derive(Debug)]
pub(crate) enum BeforeRequest {
    Fail(Error),
    Join,
    Launch(Cause),
    Send(Arc<Credential>),
    SendAndLaunch(Arc<Credential>, Cause),
    SendBare,
}

/// What to do after an answer that rejects the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRejection {
    /// Refresh, then send the request again.
    Refresh,
    /// Give the answer to the caller, and refresh for the next request.
    RefreshBehind,
    /// Send the request again, with the token that is current now.
    Replay,
    /// Give the answer to the caller.
    Return,
}

impl State {
    /// The credential, if it is fresh at `now` and so good for a request that needs `need`: what
    /// [`before_request`](Self::before_request) says then, too, and most often.
    #[inline]
    pub(crate) fn fresh(&self, need: &Need, now: &Moment) -> Option<&Arc<Credential>> {
        let is_plain = *need == Need::ANY && !self.rejected && !self.store.is_unread;
        self.credential.as_ref().filter(|credential| is_plain && credential.age(now) == Age::Fresh)
    }

    /// What to do for a request that needs `need`, at `now`.
    pub(crate) fn before_request(
        &self,
        need: &Need,
        policy: &Policy,
        now: Moment,
    ) -> BeforeRequest {
        if self.is_first_read_due(now) {
            return self.join_or_launch(Cause::FirstUse);
        }
        let Some(credential) = &self.credential else {
            return match need.optional && policy.needs_refresh_token {
                true => BeforeRequest::SendBare,
                false => self.refresh_first(Cause::NoToken, policy, now),
            };
        };
        // One that cannot be sent again does not go out with a token that may die on its way.
        let is_at_risk =
            !need.replayable && policy.refresh_revokes_access_token && self.flight.is_some();
        let cause = match self.age(credential, &now) {
            Age::Expired if self.rejected => Cause::Rejected,
            Age::Expired => Cause::Expired,
            _ if need.new => Cause::Forced,
            _ if !credential.lasts(need.valid_for, &now) => Cause::Stale,
            Age::Fresh if !is_at_risk => return BeforeRequest::Send(Arc::clone(credential)),
            Age::Stale if need.replayable => return self.refresh_behind(credential, policy, now),
            Age::Fresh | Age::Stale => Cause::Stale,
        };
        match self.refresh_first(cause, policy, now) {
            BeforeRequest::Fail(error) => self.after_failure(error, need, now),
            // The flight may be waiting for a person.
            BeforeRequest::Join if cause == Cause::Stale && self.is_dead() => {
                BeforeRequest::Send(Arc::clone(credential))
            }
            BeforeRequest::Launch(Cause::Stale) if !self.can_refresh(policy, &now) => {
                BeforeRequest::Send(Arc::clone(credential))
            }
            verdict => verdict,
        }
    }

    /// What a request does that could not get a refresh, or waited for one that failed.
    pub(crate) fn after_failure(&self, error: Error, need: &Need, now: Moment) -> BeforeRequest {
        match &self.credential {
            Some(credential) if self.age(credential, &now) != Age::Expired && !need.new => {
                BeforeRequest::Send(Arc::clone(credential))
            }
            _ if need.optional && error.is_login_required() => BeforeRequest::SendBare,
            _ => BeforeRequest::Fail(error),
        }
    }

    /// What to do after the API rejected the credential of generation `sent`, or a request without
    /// one.
    pub(crate) fn after_rejection(
        &mut self,
        sent: Option<Generation>,
        replayable: bool,
        policy: &Policy,
        now: Moment,
    ) -> AfterRejection {
        let replay = if replayable { AfterRejection::Replay } else { AfterRejection::Return };
        let Some(current) = &self.credential else {
            return match (sent, replayable) {
                (Some(_), true) => AfterRejection::Refresh,
                _ => AfterRejection::Return,
            };
        };
        if sent != Some(current.generation) {
            return replay;
        }
        // A token that is seconds old may simply not have arrived at every replica.
        if current.existed_for(&now) < policy.minimum_age {
            return replay;
        }
        let budget = &self.past().rejection_budget;
        if budget.exhausted_for(policy.rejection_budget, now).is_some() {
            return AfterRejection::Return;
        }
        self.rejected = true;
        match replayable {
            true => AfterRejection::Refresh,
            false => AfterRejection::RefreshBehind,
        }
    }

    fn refresh_behind(
        &self,
        credential: &Arc<Credential>,
        policy: &Policy,
        now: Moment,
    ) -> BeforeRequest {
        let credential = Arc::clone(credential);
        match self.refresh_first(Cause::Stale, policy, now) {
            BeforeRequest::Launch(Cause::Stale) if self.can_refresh(policy, &now) => {
                BeforeRequest::SendAndLaunch(credential, Cause::Stale)
            }
            _ => BeforeRequest::Send(credential),
        }
    }

    fn refresh_first(&self, cause: Cause, policy: &Policy, now: Moment) -> BeforeRequest {
        if self.flight.is_some() {
            return BeforeRequest::Join;
        }
        match self.standing() {
            Some(Standing::CoolingDown { until, error }) if !now.reached(until) => {
                BeforeRequest::Fail(error.clone().retry_in(Some(now.until(until))))
            }
            Some(Standing::Dead { error, next_look }) => {
                match self.store.exists && now.reached(next_look) {
                    true => BeforeRequest::Launch(Cause::Revival),
                    false => BeforeRequest::Fail(error.clone()),
                }
            }
            _ => match self.exhausted(cause, policy, now) {
                Some(error) => BeforeRequest::Fail(error),
                None => BeforeRequest::Launch(cause),
            },
        }
    }

    fn join_or_launch(&self, cause: Cause) -> BeforeRequest {
        match self.flight {
            Some(_) => BeforeRequest::Join,
            None => BeforeRequest::Launch(cause),
        }
    }

    fn can_refresh(&self, policy: &Policy, now: &Moment) -> bool {
        let credential = self.credential.as_ref();
        credential.is_some_and(|credential| hindrance(&credential.tokens, policy, now).is_none())
    }

    /// The error for a `cause` whose budget is spent.
    pub(super) fn exhausted(&self, cause: Cause, policy: &Policy, now: Moment) -> Option<Error> {
        let past = self.past();
        let wait = match cause {
            Cause::FirstUse | Cause::NoToken | Cause::Revival => None,
            Cause::Rejected => past.rejection_budget.exhausted_for(policy.rejection_budget, now),
            Cause::Expired | Cause::Forced | Cause::Stale => {
                past.budget.exhausted_for(policy.budget, now)
            }
        };
        let message = "more refreshes than the budget allows; are the tokens over on arrival?";
        wait.map(|wait| Error::new(ErrorKind::ExcessiveRefresh, message).retry_in(Some(wait)))
    }
}
