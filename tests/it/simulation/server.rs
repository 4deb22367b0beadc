use std::time::Duration;

use crate::simulation::plan::AccountPlan;

/// An access token, a refresh token, the tokens of one login: numbers, in the order of their making.
pub type At = usize;
pub type Rt = usize;
pub type Family = usize;

/// What no output may have in it.
pub const CANARY: &str = "cnry-";

/// An access token as it is sent.
pub fn access_token(number: At) -> String {
    format!("{CANARY}at-{number}")
}

pub fn refresh_token(number: Rt) -> String {
    format!("{CANARY}rt-{number}")
}

/// The number of a token.
pub fn number(token: &str) -> usize {
    token.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a token of ours")
}

/// The books of an authorization server that rotates, and of the API behind it.
#[derive(Default)]
pub struct Server {
    families: Vec<Login>,
    access_tokens: Vec<Access>,
    refresh_tokens: Vec<Renewal>,
    pub is_down: bool,
    /// How often it has started again: what was under way is lost.
    pub starts: u64,
    /// Whether the API rejects everything.
    pub is_storm: bool,
    /// How often a refresh token was traded.
    pub trades: usize,
}

struct Login {
    is_alive: bool,
    /// What may be used once.
    live: Vec<Rt>,
    /// What was used last, and until when it may be used again.
    previous: Option<(Rt, Duration)>,
}

struct Access {
    family: Family,
    end: Duration,
    is_alive: bool,
}

struct Renewal {
    family: Family,
    parent: Option<Rt>,
}

/// What became of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// The family is dead, or this token never was in it.
    Refused,
    /// Used before: the family is dead from now on.
    Reused,
    /// Traded for these.
    Traded(At, Rt),
}

impl Server {
    pub fn log_in(&mut self, plan: &AccountPlan, now: Duration) -> (At, Rt) {
        let family = self.families.len();
        self.families.push(Login { is_alive: true, live: Vec::new(), previous: None });
        let refresh = self.issue_refresh_token(family, None);
        self.families[family].live.push(refresh);
        (self.issue_access_token(family, plan, now), refresh)
    }

    pub fn redeem(&mut self, sent: Rt, plan: &AccountPlan, now: Duration) -> Redeemed {
        let family = self.refresh_tokens[sent].family;
        let login = &mut self.families[family];
        if !login.is_alive {
            return Redeemed::Refused;
        }
        let is_live = login.live.contains(&sent);
        let has_grace = login.previous.is_some_and(|(rt, end)| rt == sent && now < end);
        if !is_live && !has_grace {
            self.kill(family, plan.death_ends_access);
            return Redeemed::Reused;
        }
        if plan.revokes_access {
            self.end_access(family);
        }
        self.trades += 1;
        let access = self.issue_access_token(family, plan, now);
        if !plan.rotates {
            return Redeemed::Traded(access, sent);
        }
        let next = self.issue_refresh_token(family, Some(sent));
        let login = &mut self.families[family];
        if is_live {
            login.live = vec![next];
            login.previous = Some((sent, now + plan.grace));
        } else {
            login.live.push(next);
        }
        Redeemed::Traded(access, next)
    }

    /// Whether the API takes this token.
    pub fn accepts(&self, access: At, now: Duration) -> bool {
        self.access_tokens.get(access).is_some_and(|it| it.is_alive && now < it.end)
    }

    /// Whether a refresh token would be traded.
    pub fn would_trade(&self, refresh: Rt, now: Duration) -> bool {
        let login = &self.families[self.refresh_tokens[refresh].family];
        let has_grace = login.previous.is_some_and(|(rt, end)| rt == refresh && now < end);
        login.is_alive && (login.live.contains(&refresh) || has_grace)
    }

    pub fn revoke(&mut self, refresh: Rt) {
        self.kill(self.refresh_tokens[refresh].family, true);
    }

    /// Somebody ends all sessions.
    pub fn revoke_everything(&mut self, ends_access: bool) {
        for family in 0..self.families.len() {
            self.kill(family, ends_access);
        }
    }

    pub fn family_of(&self, refresh: Rt) -> Family {
        self.refresh_tokens[refresh].family
    }

    pub fn family_of_access(&self, access: At) -> Family {
        self.access_tokens[access].family
    }

    /// Whether `late` is what `early` was traded for, directly or not.
    pub fn follows(&self, late: Rt, early: Rt) -> bool {
        let mut next = self.refresh_tokens[late].parent;
        while let Some(rt) = next {
            if rt == early {
                return true;
            }
            next = self.refresh_tokens[rt].parent;
        }
        false
    }

    fn kill(&mut self, family: Family, ends_access: bool) {
        self.families[family].is_alive = false;
        if ends_access {
            self.end_access(family);
        }
    }

    fn end_access(&mut self, family: Family) {
        for access in self.access_tokens.iter_mut().filter(|access| access.family == family) {
            access.is_alive = false;
        }
    }

    fn issue_access_token(&mut self, family: Family, plan: &AccountPlan, now: Duration) -> At {
        self.access_tokens.push(Access { family, end: now + plan.lifetime, is_alive: true });
        self.access_tokens.len() - 1
    }

    fn issue_refresh_token(&mut self, family: Family, parent: Option<Rt>) -> Rt {
        self.refresh_tokens.push(Renewal { family, parent });
        self.refresh_tokens.len() - 1
    }
}
