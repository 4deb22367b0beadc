//! Peers that mean us harm, on real sockets: bounded time and memory, a typed error, the old pair kept.
//!
//! Where which of them is shown (a name in backticks is that of another module, or of the binary
//! `tests/hostile_memory.rs`, which counts bytes):
//!
//! | what a peer does | token endpoint | revocation | discovery | API |
//! |---|---|---|---|---|
//! | drips | [`time`] | [`time`] | [`time`] | `looked_into` k_42, k_45 |
//! | never closes | `token_request` k_30 | `revocation` k_73 | `discovery` k_30 | `looked_into` k_42, k_45 |
//! | stalls in the TLS handshake | [`time`] | the same client | the same client | the caller's client |
//! | floods us with 1xx, with zeros | [`time`], `hostile_memory` | the same client | the same client | the caller's client |
//! | says a gigabyte, lies about it | [`answers`], `hostile_memory` | [`answers`] | [`answers`], `discovery` | [`answers`], `hostile_memory` |
//! | packs a bomb | [`answers`], `hostile_memory` | [`answers`] | [`answers`] | `hostile_memory` |
//! | floods us with headers, 1 MB in one | [`answers`], `hostile_memory` | [`answers`] | [`answers`] | [`answers`], `hostile_memory` |
//! | speaks no HTTP, or almost | [`answers`], `token_request` k_33 | [`answers`] | [`answers`] | [`answers`] |
//! | closes at every byte | [`answers`] | `revocation` k_73 | `discovery` | `looked_into` k_42 |
//! | names another content type | [`answers`], `unreadable`, `token_request` k_33 | [`answers`] | [`answers`] | `judged` k_42 |
//! | deep, wide, doubled, huge JSON | [`json`], `hostile_memory` | the same reader | [`json`] | `hostile_memory` |
//! | no UTF-8, UTF-16, marks | [`json`] | the same reader | the same reader | `judged` k_42 |
//! | tokens that cannot be sent | [`json`], `bad_input` k_01, k_07 | | | |
//! | an error that does not end | [`json`] k_50, `hostile_memory` | the same reader | [`redirects`] k_04 | |
//! | redirects | [`redirects`], `token_request` k_30, `mtls` | [`redirects`] | `discovery` | [`redirects`], `wire_api` k_05 |
//! | a 401 from where a redirect led | | | | [`redirects`], `wire_api` k_05 |
//! | names that look like another's | `bad_input` k_30 | `bad_input` k_30 | [`redirects`] k_04 | [`redirects`] k_03, `attaching` k_03 |
//! | a 401 for ever | | | | `rejected` k_26, `budget` |
//!
//! What a store gives: `bad_input` k_61, `bad_parts`, `file_store`, `store_review`.

use std::error::Error as StdError;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest_refresh::{ClientAuth, Error, ManualClock, Session, TokenEndpoint, TokenSet};

use crate::bad_input::{check, pair};
use crate::support::{Hook, SECOND, Then, Wire, http};
use crate::token_request::FINE;

mod answers;
mod json;
mod redirects;
mod time;

pub(crate) const UNAVAILABLE: &str = "authorization server unavailable";
pub(crate) const NONSENSE: &str = "is not a JSON object";
pub(crate) const LOST: &str = "the answer of the token endpoint was lost";

/// The pair that must not be lost, nor be printed.
const OLD: [&str; 2] = ["CANARY-a0", "CANARY-r0"];

/// A server whose token endpoint is at `/token` and whose revocation endpoint is at `/revoke`, and who
/// is under the control of somebody else.
pub(crate) struct Villain {
    pub(crate) wire: Wire,
    endpoint: TokenEndpoint,
    /// What it says; nothing that harms, once it is over.
    evil: Arc<Mutex<Option<Then>>>,
}

/// A session of that server.
pub(crate) struct Victim {
    pub(crate) session: Session,
    pub(crate) clock: ManualClock,
    hook: Hook,
}

impl Villain {
    pub(crate) async fn start() -> Self {
        let evil = Arc::<Mutex<Option<Then>>>::default();
        let script = Arc::clone(&evil);
        let fine = Then::Say(http(200, "", FINE));
        let wire =
            Wire::start(move |_| script.lock().clone().unwrap_or_else(|| fine.clone())).await;
        let auth = ClientAuth::body("app", "CANARY-secret");
        let endpoint = TokenEndpoint::new(&wire.url("/token"), auth).unwrap();
        let endpoint = endpoint.with_revocation_url(&wire.url("/revoke")).unwrap();
        Self { wire, endpoint, evil }
    }

    /// From now on it says this.
    pub(crate) fn says(&self, then: Then) {
        *self.evil.lock() = Some(then);
    }

    /// From now on it does what a server does.
    pub(crate) fn repents(&self) {
        *self.evil.lock() = None;
    }

    pub(crate) fn victim(&self) -> Victim {
        Victim::of(self.endpoint.clone())
    }

    /// K-33, K-54, K-63: this answer is an error of this kind with these words, in which nothing secret
    /// stands. It costs nobody the old pair, and asks nobody to log in.
    pub(crate) async fn harms_nobody(&self, case: &str, then: Then, kind: &str, words: &str) {
        self.says(then);
        let victim = self.victim();
        let error = victim.refresh().await.expect_err(case);
        check(case, &error, kind, words);
        self.has_harmed_nobody(case, &victim, &error).await;
    }

    /// The same of a refresh that has failed with this error.
    pub(crate) async fn has_harmed_nobody(&self, case: &str, victim: &Victim, error: &Error) {
        says_no_secret(case, error);
        assert_eq!(pair(&victim.session), OLD, "{case}");
        self.repents();
        victim.clock.advance(error.retry_after().expect("a cool-down"));
        assert_eq!(victim.refresh().await.expect(case).access_token(), "a1", "{case}");
        let request = self.wire.requests().pop().unwrap();
        assert!(request.contains("&refresh_token=CANARY-r0&"), "{case}: {request}");
        assert_eq!(victim.hook.calls(), 0, "{case}");
    }
}

impl Victim {
    pub(crate) fn of(endpoint: TokenEndpoint) -> Self {
        let (clock, hook) = (ManualClock::new(), Hook::declining());
        let builder = Session::builder(endpoint).clock(clock.clone());
        let builder = builder.tokens(TokenSet::new(OLD[0]).with_refresh_token(OLD[1]));
        Self { session: hook.on(builder).build().unwrap(), clock, hook }
    }

    /// A refresh, over the pauses between its attempts.
    pub(crate) async fn refresh(&self) -> Result<TokenSet, Error> {
        self.passing_time(self.session.refresh()).await
    }

    /// `work`, for which the time between two attempts passes at once. A deadline is longer.
    pub(crate) async fn passing_time<T>(&self, work: impl Future<Output = T>) -> T {
        let time = async {
            loop {
                tokio::task::yield_now().await;
                let pause = self.clock.sleepers().first().copied();
                if let Some(pause) = pause.filter(|pause| *pause < 20 * SECOND) {
                    self.clock.advance(pause);
                }
            }
        };
        tokio::select! {
            output = work => output,
            () = time => unreachable!("time passes for ever"),
        }
    }
}

/// K-63: neither an error nor what it came from.
#[track_caller]
pub(crate) fn says_no_secret(case: &str, error: &(dyn StdError + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("CANARY"), "{case}: {printed}");
        assert!(printed.len() < 4096, "{case}: {} bytes", printed.len());
        next = error.source();
    }
}
