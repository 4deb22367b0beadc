use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest_refresh::{LoginReason, Session, TokenSet};

use crate::simulation::faults::Fault;
use crate::simulation::oracle::SessionId;
use crate::simulation::server::{access_token, refresh_token};
use crate::simulation::world::World;

/// A session, once it is built; emptied when its process dies.
pub type Handle = Arc<Mutex<Option<Session>>>;

impl World {
    /// A login, at the server.
    pub fn log_in(&self, account: usize) -> TokenSet {
        let plan = &self.plan.accounts[account];
        let (at, rt) = self.server().log_in(plan, self.now());
        self.note(format_args!("login for account {account}: at-{at}, rt-{rt}"));
        TokenSet::new(access_token(at))
            .with_refresh_token(refresh_token(rt))
            .with_expires_in(plan.lifetime)
    }

    /// Whoever a session asks to log in.
    pub async fn is_asked(
        self: Arc<Self>,
        session: SessionId,
        handle: Handle,
        reason: LoginReason,
    ) -> Option<TokenSet> {
        self.note(format_args!("s{session} asks for a login: {reason:?}"));
        self.oracle().asks_for_login(session, &reason);
        self.stumble().await;
        if self.strikes(Fault::HookPanics) {
            std::panic::resume_unwind(Box::new("the hook panics"));
        }
        if self.strikes(Fault::HookHangs) {
            self.sleep(Duration::from_secs(3600)).await;
        }
        let is_slow = self.strikes(Fault::HookSlow);
        self.sleep(if is_slow { self.millis(1_000, 200_000) } else { self.millis(0, 300) }).await;
        if self.is_calm() || self.strikes(Fault::HookDeclines) {
            return None;
        }
        let account = self.oracle().facts(session).account;
        let own = handle.lock().clone();
        if let Some(own) = own {
            if self.strikes(Fault::HookSets) {
                self.sets_tokens(session, &own).await;
                return None;
            }
            if self.strikes(Fault::HookClears) {
                let _ = own.clear().await;
            }
        }
        let tokens = self.log_in(account);
        let mut oracle = self.oracle();
        let now = oracle.facts(session).machine.now();
        oracle.learns(session, &tokens, now);
        oracle.facts(session).has_hooked = true;
        Some(tokens)
    }
}
