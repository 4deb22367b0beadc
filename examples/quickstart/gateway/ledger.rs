//! Which tokens there are, which of them are dead, and how often what has happened.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::Config;
use super::signer::Claims;

/// How often what has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Sessions that began with a user name and a password.
    pub(crate) logins: usize,
    /// For each access token, in the order of their issue: how many refreshes succeeded with a
    /// refresh token that names it as its `ati`.
    pub(crate) lives: Vec<usize>,
    /// Token requests that were answered with an error, outages apart.
    pub(crate) token_requests_refused: usize,
    /// Token requests that met an outage.
    pub(crate) token_requests_turned_away: usize,
    /// API calls that were served.
    pub(crate) served: usize,
    /// API calls with an access token that was over (401).
    pub(crate) rejected_as_expired: usize,
    /// API calls with an access token that was revoked, or is unknown (403).
    pub(crate) rejected_as_revoked: usize,
    /// API calls without a token, or with one that is not ours (401, 400).
    pub(crate) rejected_otherwise: usize,
    /// Live access tokens that died because their session was refreshed.
    pub(crate) revoked_by_refresh: usize,
    /// Live tokens that an administrator revoked.
    pub(crate) revoked_by_administrator: usize,
    /// Live tokens that the client revoked.
    pub(crate) revoked_by_client: usize,
}

impl Counters {
    /// Successful refreshes, of all lives together.
    pub(crate) fn refreshes(&self) -> usize {
        self.lives.iter().sum()
    }

    /// The most refreshes that any one access token saw. More than one is a waste.
    pub(crate) fn most_refreshes_of_one_life(&self) -> usize {
        self.lives.iter().copied().max().unwrap_or_default()
    }
}

/// The gateway's memory.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) counters: Counters,
    pub(super) access_validity: u64,
    refresh_validity: u64,
    pub(super) outage: bool,
    /// A digiRunner client is locked after some wrong passwords in a row.
    pub(super) wrong_passwords: usize,
    access_tokens: HashMap<String, AccessToken>,
    refresh_tokens: HashMap<String, RefreshToken>,
}

#[derive(Debug)]
struct AccessToken {
    /// Its place in [`Counters::lives`].
    life: usize,
    is_revoked: bool,
}

/// All refresh tokens of a login share a `jti`, and so this.
#[derive(Debug)]
struct RefreshToken {
    end: u64,
    is_revoked: bool,
}

/// What the ledger says about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Expired,
    Good,
    Revoked,
}

/// The claims of a new pair, still to be signed.
#[derive(Debug)]
pub(super) struct Issue {
    pub(super) access: Claims,
    pub(super) refresh: Claims,
    /// Seconds; one less than the access token's validity, as digiRunner does.
    pub(super) expires_in: u64,
}

impl Ledger {
    pub(super) fn new(access_validity: Duration, refresh_validity: Duration) -> Self {
        Self {
            counters: Counters::default(),
            access_validity: access_validity.as_secs(),
            refresh_validity: refresh_validity.as_secs(),
            outage: false,
            wrong_passwords: 0,
            access_tokens: HashMap::new(),
            refresh_tokens: HashMap::new(),
        }
    }

    /// Begins a session.
    pub(super) fn log_in(&mut self, config: &Config) -> Issue {
        self.counters.logins += 1;
        let (jti, end) = (new_id(), now_in_seconds() + self.refresh_validity);
        let is_revoked = false;
        self.refresh_tokens.insert(jti.clone(), RefreshToken { end, is_revoked });
        let claims = json!({
            "node": "executor1",
            "aud": ["YWRtaW5BUEk"],
            "user_name": config.user_name,
            "org_id": "100000",
            "scope": ["2000000081", "2000000082"],
            "stime": since_1970().as_millis() as u64,
            "authorities": ["2000000081"],
            "jti": jti,
            "client_id": config.client_id,
            "exp": end,
        });
        self.issue(&Claims(claims))
    }

    /// Trades a refresh token that was found good. The access token that was issued with it dies at
    /// once; the refresh token does not.
    pub(super) fn refresh(&mut self, presented: &Claims) -> Issue {
        if let Some(old) = self.access_tokens.get_mut(presented.ati()) {
            self.counters.lives[old.life] += 1;
            if !std::mem::replace(&mut old.is_revoked, true) {
                self.counters.revoked_by_refresh += 1;
            }
        }
        self.issue(presented)
    }

    /// A pair for the session that `session` is a refresh token of: the new one has its `jti`, its
    /// `stime` and its `exp`.
    fn issue(&mut self, session: &Claims) -> Issue {
        let (now, jti) = (now_in_seconds(), new_id());
        let token = AccessToken { life: self.counters.lives.len(), is_revoked: false };
        self.access_tokens.insert(jti.clone(), token);
        self.counters.lives.push(0);

        let mut access = session.clone();
        access.0["jti"] = json!(jti);
        access.0["iat"] = json!(now);
        access.0["exp"] = json!(now + self.access_validity);
        if let Some(claims) = access.0.as_object_mut() {
            claims.remove("ati");
        }
        let mut refresh = session.clone();
        refresh.0["ati"] = json!(jti);
        refresh.0["iat"] = json!(now);
        refresh.0["exp"] = json!(self.end_of(session));
        Issue { access, refresh, expires_in: self.access_validity.saturating_sub(1) }
    }

    /// Judges the access token of an API call, and counts the call.
    pub(super) fn call(&mut self, access_token: &Claims) -> Verdict {
        let known = self.access_tokens.get(access_token.jti());
        if access_token.exp() < now_in_seconds() {
            self.counters.rejected_as_expired += 1;
            Verdict::Expired
        } else if known.is_none_or(|token| token.is_revoked) {
            self.counters.rejected_as_revoked += 1;
            Verdict::Revoked
        } else {
            self.counters.served += 1;
            Verdict::Good
        }
    }

    /// Judges a refresh token. It is still good in the second that its `exp` names.
    pub(super) fn judge_refresh_token(&self, refresh_token: &Claims) -> Verdict {
        let known = self.refresh_tokens.get(refresh_token.jti());
        if self.end_of(refresh_token) < now_in_seconds() {
            Verdict::Expired
        } else if known.is_none_or(|token| token.is_revoked) {
            Verdict::Revoked
        } else {
            Verdict::Good
        }
    }

    fn end_of(&self, refresh_token: &Claims) -> u64 {
        match self.refresh_tokens.get(refresh_token.jti()) {
            Some(token) => token.end.min(refresh_token.exp()),
            None => refresh_token.exp(),
        }
    }

    /// Revokes one access token for the client. Whether it was alive.
    pub(super) fn revoke_access_token(&mut self, jti: &str) -> bool {
        let token = self.access_tokens.get_mut(jti);
        let was_alive = token.is_some_and(|token| !std::mem::replace(&mut token.is_revoked, true));
        self.counters.revoked_by_client += usize::from(was_alive);
        was_alive
    }

    /// Revokes one refresh token for the client. Whether it was alive.
    pub(super) fn revoke_refresh_token(&mut self, jti: &str) -> bool {
        let token = self.refresh_tokens.get_mut(jti);
        let was_alive = token.is_some_and(|token| !std::mem::replace(&mut token.is_revoked, true));
        self.counters.revoked_by_client += usize::from(was_alive);
        was_alive
    }

    pub(super) fn revoke_access_tokens(&mut self) {
        for token in self.access_tokens.values_mut() {
            let was_alive = !std::mem::replace(&mut token.is_revoked, true);
            self.counters.revoked_by_administrator += usize::from(was_alive);
        }
    }

    pub(super) fn revoke_refresh_tokens(&mut self) {
        for token in self.refresh_tokens.values_mut() {
            let was_alive = !std::mem::replace(&mut token.is_revoked, true);
            self.counters.revoked_by_administrator += usize::from(was_alive);
        }
    }

    pub(super) fn end_refresh_tokens_at(&mut self, end: u64) {
        for token in self.refresh_tokens.values_mut() {
            token.end = token.end.min(end);
        }
    }
}

/// The gateway compares ends in whole seconds.
pub(super) fn now_in_seconds() -> u64 {
    since_1970().as_secs()
}

fn since_1970() -> Duration {
    // A clock before 1970 only makes every token of this gateway live from 1970 on.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
