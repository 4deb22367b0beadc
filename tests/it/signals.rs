//! What a session tells, and what its handle can do.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use reqwest_refresh::{
    ErrorKind, Event, Refresh, RefreshError, RefreshFailure, Session, Status, TokenSet, TokenStore,
};

use crate::support::{Api, Hook, Issuer, Log, Rig, SECOND, ScriptedStore, everybody_waits, told};

const HOUR: Duration = Duration::from_secs(3600);

// ---- K-71 ----

/// K-71: a life of a session, as it is told. G07, D10.
#[tokio::test]
async fn k_71_everything_that_happens_is_told_in_its_order() {
    let store = ScriptedStore::new();
    let hook = Hook::declining();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
    let (mut events, mut second) = (rig.session.events(), rig.session.events());
    let mut all = Vec::new();
    let mut expect = async |events: &mut reqwest_refresh::Events, case: &str, expected: &[&str]| {
        let lines = told(events).await;
        assert_eq!(lines, expected, "{case}");
        all.extend(lines);
    };

    rig.get().await.unwrap();
    expect(&mut events, "a request with a fresh token", &[]).await;

    rig.clock.advance(HOUR - SECOND);
    rig.get().await.unwrap();
    everybody_waits().await;
    expect(&mut events, "behind a request", &["saved", "refreshed 2"]).await;

    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Unusable);
    rig.outcome().await;
    rig.outcome().await;
    let failed = ["refresh failed: authorization server unavailable"];
    expect(&mut events, "a failure, told once", &failed).await;

    rig.clock.advance(2 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    rig.outcome().await;
    rig.outcome().await;
    let lines = told(&mut events).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("login required: Refused"), "{lines:?}");

    rig.session.set_tokens(Rig::tokens(60)).await.unwrap();
    expect(&mut events, "tokens are set", &["saved"]).await;
    rig.session.clear().await.unwrap();
    expect(&mut events, "and cleared", &["saved"]).await;

    assert_eq!(told(&mut second).await.len(), all.len() + 1, "everybody is told everything");
}

/// K-71: a failure says when the next try is.
#[tokio::test]
async fn k_71_a_failed_refresh_is_told_with_its_next_try() {
    let rig = Rig::new(Api::friendly());
    let mut events = rig.session.events();
    let busy = RefreshError::new(RefreshFailure::Unusable, "busy");
    rig.issuer.then(Err(busy.with_retry_after(100 * SECOND)));
    rig.clock.advance(HOUR);
    rig.outcome().await;
    let Some(Event::RefreshFailed { error, .. }) = events.next().await else { panic!("not told") };
    assert_eq!(error.retry_after(), Some(100 * SECOND));
}

/// K-71: that a login is required is told before the hook has an answer.
#[tokio::test]
async fn k_71_login_required_is_told_while_the_hook_runs() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(|_| std::future::pending())
    });
    let mut events = rig.session.events();
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let waiting = rig.spawn_get();
    everybody_waits().await;
    assert!(!waiting.is_finished());
    assert_eq!(told(&mut events).await.len(), 1);
}

/// K-71: a new pair tells its generation and its end, and those who wait go first.
#[tokio::test]
async fn k_71_a_refresh_is_told_with_its_end() {
    let rig = Rig::new(Api::friendly());
    let mut events = rig.session.events();
    rig.session.refresh().await.unwrap();
    let Some(Event::Refreshed { expires_at, generation, .. }) = events.next().await else {
        panic!("not told")
    };
    assert_eq!((expires_at, generation.to_string()), (Some(rig.clock.wall() + HOUR), "2".into()));
    drop(rig);
    assert!(events.next().await.is_none(), "the session is gone");
}

/// K-71: who does not listen for a while misses the oldest, and nobody waits for it.
#[tokio::test]
async fn k_71_a_listener_that_sleeps_misses_the_oldest_and_holds_nobody_up() {
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store));
    let mut events = rig.session.events();
    for _ in 0..100 {
        rig.session.set_tokens(Rig::tokens(60)).await.unwrap();
    }
    rig.session.refresh().await.unwrap();
    let lines = told(&mut events).await;
    assert_eq!((lines.len(), lines.last().unwrap().as_str()), (64, "refreshed 102"));
}

// ---- K-72 ----

/// K-72: a span around each refresh, and not a word on the hot path.
#[tokio::test]
async fn k_72_a_refresh_has_a_span_and_the_hot_path_says_nothing() {
    let (log, _guard) = Log::start();
    let rig = Rig::new(Api::friendly());
    rig.get().await.unwrap();
    let ours = || log.lines("reqwest_refresh");
    assert!(ours().is_empty(), "{:?}", ours());
    rig.clock.advance(HOUR);
    rig.get().await.unwrap();
    let lines = ours();
    assert!(!lines.is_empty());
    for line in &lines {
        assert!(line.contains("token_refresh{cause=Expired}"), "{line}");
    }
    let spoken = ours().len();
    rig.get().await.unwrap();
    assert_eq!(ours().len(), spoken);
}

// ---- K-73 ----

/// K-73: the handle's state, without asking anybody.
#[tokio::test]
async fn k_73_the_state_is_told_without_asking_anybody() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    let status = |session: &Session| session.status();
    assert_eq!(status(&rig.session), Status::Fresh);
    rig.clock.advance(HOUR - SECOND);
    assert_eq!(status(&rig.session), Status::Stale);
    rig.clock.advance(SECOND);
    assert_eq!(status(&rig.session), Status::Expired);
    assert_eq!(rig.issuer.calls(), 0, "without asking");
    rig.issuer.then_fails(RefreshFailure::Terminal);
    rig.outcome().await;
    assert_eq!(status(&rig.session), Status::LoginRequired);
    rig.session.set_tokens(Rig::tokens(60)).await.unwrap();
    assert_eq!(status(&rig.session), Status::Fresh);
    rig.issuer.then_fails(RefreshFailure::Unusable);
    rig.outcome().await;
    assert_eq!(status(&rig.session), Status::Expired, "rejected");
    rig.session.clear().await.unwrap();
    assert_eq!(status(&rig.session), Status::LoggedOut);
}

/// K-73: `tokens` gives a good one, `current_tokens` whatever there is, `refresh` a new one. A02.
#[tokio::test]
async fn k_73_the_handle_reads_and_refreshes() {
    let rig = Rig::new(Api::friendly());
    let access = |tokens: TokenSet| tokens.access_token().to_owned();
    assert_eq!(access(rig.session.tokens().await.unwrap()), "a0");
    assert_eq!(access(rig.session.tokens().await.unwrap()), "a0");
    assert_eq!(rig.issuer.calls(), 0);
    assert_eq!(access(rig.session.refresh().await.unwrap()), "a1");
    rig.clock.advance(HOUR);
    assert_eq!(access(rig.session.current_tokens().unwrap()), "a1", "as it is");
    assert_eq!(access(rig.session.tokens().await.unwrap()), "a2", "a good one");
    assert_eq!(rig.issuer.sent(), ["r0", "r1"]);
    rig.session.clear().await.unwrap();
    assert!(rig.session.current_tokens().is_none());
    assert!(rig.session.tokens().await.unwrap_err().is_login_required());
    assert!(rig.session.refresh().await.unwrap_err().is_login_required());
}

/// K-73: tokens that cannot be sent are refused, and nothing has changed. A09.
#[tokio::test]
async fn k_73_tokens_that_cannot_be_sent_are_refused() {
    let rig = Rig::new(Api::friendly());
    for bad in ["", "two\r\nlines", "spa ce", "ümlaut"] {
        let error = rig.session.set_tokens(TokenSet::new(bad)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{bad:?}");
    }
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0"]);
}

/// K-73: a logout forgets, clears and revokes; `clear` revokes nothing. A04, X24.
#[tokio::test]
async fn k_73_a_logout_forgets_clears_and_revokes() {
    for (case, log_out, revoked) in [("log out", true, vec!["a0"]), ("clear", false, vec![])] {
        let store = ScriptedStore::holding(Rig::tokens(3600)).await;
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
        rig.get().await.unwrap();
        match log_out {
            true => rig.session.log_out().await.unwrap(),
            false => rig.session.clear().await.unwrap(),
        }
        assert_eq!(rig.issuer.revoked(), revoked, "{case}");
        assert_eq!(store.access_token().await, None, "{case}");
        assert_eq!(rig.session.status(), Status::LoggedOut, "{case}");
        assert_eq!(rig.outcome().await, "login required", "{case}");
        assert_eq!(rig.issuer.calls(), 0, "{case}");
    }
}

/// K-73: what is revoked is what the server knows: the newest pair, wherever it is.
#[tokio::test]
async fn k_73_a_logout_revokes_the_newest_pair() {
    // A program that starts only to log out has read nothing yet.
    let stored = TokenSet::new("stored").with_refresh_token("rs");
    let store = ScriptedStore::holding(stored.clone()).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.session.log_out().await.unwrap();
    assert_eq!((rig.issuer.revoked(), store.access_token().await), (vec!["stored".into()], None));

    // Another process has rotated since.
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    store.memory.save(&stored).await.unwrap();
    rig.session.log_out().await.unwrap();
    assert_eq!(rig.issuer.revoked(), ["stored"]);

    // What could not be saved is newer than what is stored.
    let store = ScriptedStore::holding(stored).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.fail(&["save"]);
    let session = rig.session.clone();
    let set = tokio::spawn(async move { session.set_tokens(TokenSet::new("u1")).await });
    while !set.is_finished() {
        everybody_waits().await;
        rig.clock.advance(SECOND);
    }
    rig.session.log_out().await.unwrap();
    assert_eq!(rig.issuer.revoked(), ["u1"]);

    // A store that cannot be read does not keep anybody logged in.
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.fail(&["load"]);
    rig.session.log_out().await.unwrap();
    assert_eq!(
        (rig.issuer.revoked(), rig.session.status()),
        (vec!["a0".into()], Status::LoggedOut)
    );
}

/// A server whose revocation fails in some way.
pub(crate) struct Stubborn(pub(crate) &'static str);

#[async_trait]
impl Refresh for Stubborn {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        unreachable!()
    }

    async fn revoke(&self, _: &TokenSet) -> Result<(), RefreshError> {
        match self.0 {
            "fails" => Err(RefreshError::new(RefreshFailure::Unusable, "no")),
            "hangs" => std::future::pending().await,
            _ => panic!("scripted panic"),
        }
    }

    fn endpoints(&self) -> Vec<Url> {
        vec![Url::parse("https://api.test/oauth/token").unwrap()]
    }
}

/// K-73: a server that does not follow is an error; the session has forgotten all the same.
#[tokio::test]
async fn k_73_a_logout_that_the_server_does_not_follow_is_an_error_and_a_logout() {
    for (case, expected) in [
        ("fails", "authorization server unavailable"),
        ("hangs", "authorization server unavailable"),
        ("panics", "refresh interrupted"),
    ] {
        let store = ScriptedStore::holding(Rig::tokens(3600)).await;
        let clock = reqwest_refresh::ManualClock::new();
        let session = Session::builder(Stubborn(case))
            .clock(clock.clone())
            .store(store.clone())
            .build()
            .unwrap();
        session.tokens().await.unwrap();
        let handle = session.clone();
        let out = tokio::spawn(async move { handle.log_out().await });
        everybody_waits().await;
        assert_eq!((session.status(), store.access_token().await), (Status::LoggedOut, None));
        clock.advance(30 * SECOND);
        let error = out.await.unwrap().unwrap_err();
        assert_eq!(error.kind().to_string(), expected, "{case}");
    }
}

/// K-73: clones are one session.
#[tokio::test]
async fn k_73_clones_are_the_same_session() {
    let rig = Rig::new(Api::friendly());
    rig.session.clone().set_tokens(TokenSet::new("u1")).await.unwrap();
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens(), ["u1"]);
}
