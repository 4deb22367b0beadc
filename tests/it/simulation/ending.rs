//! What must be true when nothing goes wrong any more.

use std::sync::Arc;
use std::time::Duration;

use crate::simulation::oracle::{Outcome, RequestId};
use crate::simulation::plan::StoreKind;
use crate::simulation::process::Member;
use crate::simulation::run::Simulation;
use crate::simulation::server::number;

const SECOND: Duration = Duration::from_secs(1);

/// The longest cool-down is that of a refused client, 10 minutes; a person is waited for 5 minutes.
const PATIENCE: Duration = Duration::from_secs(1000);

impl Simulation {
    /// K-24, K-51: after the faults everything is served within a bounded time, or somebody must
    /// really log in; after one login per account everything is served.
    pub fn comes_right(&mut self) {
        self.calm();
        let settling = self.everybody();
        for (process, member) in settling {
            let world = Arc::clone(&self.world);
            self.call(process, world.settles(member.id, member.session), None);
        }
        if !self.all_are_served(PATIENCE, true) {
            return;
        }
        // A refused client is left alone for 10 minutes.
        self.run_until(self.world.now() + 600 * SECOND);
        for account in 0..self.world.plan.accounts.len() {
            self.logs_in(account);
        }
        if self.all_are_served(60 * SECOND, false) {
            self.live_once_more();
        }
    }

    fn calm(&mut self) {
        let world = Arc::clone(&self.world);
        world.note("calm");
        world.calm();
        {
            let mut server = world.server();
            (server.is_down, server.is_storm) = (false, false);
        }
        for account in 0..world.plan.accounts.len() {
            world.shelf(account).is_down = false;
        }
        for process in 0..self.processes.len() {
            self.resumes(process);
            self.machines[process].correct();
            self.starts(process);
        }
    }

    fn everybody(&self) -> Vec<(usize, Member)> {
        let processes = self.processes.iter().enumerate();
        let members = processes.filter_map(|(number, process)| {
            let members = process.as_ref()?.sessions.iter().cloned();
            Some(members.map(move |member| (number, member)))
        });
        members.flatten().collect()
    }

    /// Everybody asks every few seconds until all are served, and no earlier caller waits.
    fn all_are_served(&mut self, patience: Duration, may_be_dead: bool) -> bool {
        let end = self.world.now() + patience;
        let mut left = self.everybody();
        while self.goes_on() {
            let asked: Vec<(usize, Member, RequestId)> = left
                .into_iter()
                .map(|(process, member)| {
                    let id = self.request_by(process, &member, None);
                    (process, member, id)
                })
                .collect();
            self.run_until(self.world.now() + 2 * SECOND);
            let unserved = asked
                .into_iter()
                .filter(|(_, member, id)| !self.is_served(member, *id, may_be_dead));
            left = unserved.map(|(process, member, _)| (process, member)).collect();
            let callers: usize = self.processes.iter().flatten().map(|it| it.callers()).sum();
            if left.is_empty() && callers == 0 {
                return self.goes_on();
            }
            if self.world.now() >= end {
                let who: Vec<_> = left.iter().map(|(_, member)| member.id).collect();
                let how = format!("after the faults {who:?} are not served, {callers} wait");
                self.world.oracle().violated("K-24, K-51", how);
            }
        }
        false
    }

    fn is_served(&self, member: &Member, id: RequestId, may_be_dead: bool) -> bool {
        let outcome = self.world.oracle().outcome(id).cloned();
        match outcome {
            Some(Outcome::Status(200)) => true,
            Some(Outcome::LoginRequired) => may_be_dead && self.is_dead(member),
            _ => false,
        }
    }

    /// Whether nobody could refresh what this session has, or shares.
    fn is_dead(&self, member: &Member) -> bool {
        let tokens = match self.world.plan.accounts[member.account].store {
            Some(_) => self.world.shelf(member.account).tokens.clone(),
            None => member.session.current_tokens(),
        };
        let refresh_token = tokens.as_ref().and_then(|tokens| tokens.refresh_token());
        let now = self.world.now();
        refresh_token.is_none_or(|token| !self.world.server().would_trade(number(token), now))
    }

    /// A login in one session for all that share the store, where it is needed.
    fn logs_in(&mut self, account: usize) {
        let has_store = self.world.plan.accounts[account].store.is_some();
        let members = self.everybody().into_iter().filter(|(_, member)| member.account == account);
        let dead: Vec<_> = members.filter(|(_, member)| self.is_dead(member)).collect();
        let how_many = if has_store { 1 } else { dead.len() };
        for (process, member) in dead.into_iter().take(how_many) {
            let world = Arc::clone(&self.world);
            let login = async move { world.sets_tokens(member.id, &member.session).await };
            self.call(process, login, None);
        }
        self.run_until(self.world.now() + SECOND);
    }

    /// K-20, K-61: where nothing goes wrong, all sessions of all processes share one refresh.
    fn live_once_more(&mut self) {
        for account in 0..self.world.plan.accounts.len() {
            let plan = self.world.plan.accounts[account].clone();
            let long = Duration::from_secs(90);
            let shares = match plan.store {
                Some(StoreKind::Leased(ttl)) => ttl >= 10 * SECOND,
                Some(StoreKind::Locked) => true,
                None => false,
            };
            if !shares || plan.lifetime < long {
                continue;
            }
            self.run_until(self.world.now() + plan.lifetime + SECOND);
            let before = self.world.server().trades;
            for (process, member) in self.everybody() {
                if member.account == account {
                    self.request_by(process, &member, None);
                    self.request_by(process, &member, None);
                }
            }
            self.run_until(self.world.now() + 20 * SECOND);
            let trades = self.world.server().trades - before;
            if trades != 1 && self.goes_on() {
                let how = format!("account {account} was refreshed {trades} times at once");
                self.world.oracle().violated("K-20, K-61", how);
            }
        }
    }
}
