//! A session whose tokens are in a file.

use std::error::Error as _;
use std::fs;
use std::time::Duration;

use reqwest_refresh::{
    Error, FileStore, FileStoreError, RefreshFailure, Status, TokenSet, TokenStore,
};
use tokio::task::JoinHandle;

use crate::file_store::TokenFile;
use crate::support::{Api, Hook, Issuer, Reply, Rig, SECOND, outcome, told, until};

const HOUR: Duration = Duration::from_secs(3600);

/// A session that has read the file, which holds `a0`/`r0`.
async fn rig_of(file: &TokenFile) -> Rig {
    file.store().save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(file.store()));
    assert_eq!(rig.outcome().await, "200");
    rig
}

fn why(error: &Error) -> Option<&FileStoreError> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Lets the pauses between the tries of a write pass, and nothing else: the disk needs real time,
/// in which the deadlines of the store must not run out.
async fn through_the_tries<T>(rig: &Rig, task: JoinHandle<T>) -> T {
    until(|| {
        let next = rig.clock.sleepers().first().copied();
        if let Some(pause) = next.filter(|pause| *pause < SECOND) {
            rig.clock.advance(pause);
        }
        task.is_finished()
    })
    .await;
    task.await.unwrap()
}

/// K-60: the API sees no token that is not on the disk.
#[tokio::test]
async fn k_60_the_new_pair_is_in_the_file_before_the_api_sees_the_new_token() {
    let file = TokenFile::new();
    let path = file.path.clone();
    let api = Api::new(move |seen| {
        let text = fs::read_to_string(&path).unwrap();
        let token = seen.token().unwrap();
        let refresh_token = token.replace('a', "r");
        let is_kept = |token: &str| text.contains(&format!("\"{token}\""));
        Reply::status(if is_kept(token) && is_kept(&refresh_token) { 200 } else { 500 })
    });
    file.store().save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(api, Issuer::new(), |b| b.store(file.store()));
    for _ in 0..3 {
        assert_eq!(rig.outcome().await, "200");
        rig.clock.advance(HOUR);
    }
    assert_eq!(rig.api.tokens(), ["a0", "a1", "a2"]);
    let kept = file.store().load().await.unwrap().unwrap();
    assert_eq!(kept.refresh_token(), Some("r2"));
    assert!(kept.expires_at().is_some(), "K-10: an end, which counts for the next process");
    assert!(!file.text().contains("expires_in"));
}

/// K-61: sessions that share nothing but the path.
#[tokio::test]
async fn k_61_two_sessions_on_one_file_share_one_refresh() {
    let file = TokenFile::new();
    let issuer = Issuer::new();
    file.store().save(&Rig::tokens(3600)).await.unwrap();
    let rig = || Rig::with(Api::friendly(), issuer.clone(), |b| b.store(file.store()));
    let rigs = [rig(), rig(), rig()];
    for rig in &rigs {
        assert_eq!(rig.outcome().await, "200");
        rig.clock.advance(HOUR);
    }
    let requests: Vec<_> = rigs.iter().map(Rig::spawn_get).collect();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(issuer.sent(), ["r0"]);
    for rig in &rigs {
        assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    }
}

/// K-53: the refusal was for a pair that is not the stored one any more: that one is used, and stays.
#[tokio::test]
async fn k_53_a_refusal_takes_what_another_process_has_put_into_the_file() {
    let file = TokenFile::new();
    let hook = Hook::declining();
    file.store().save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(file.store())));
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let request = rig.spawn_get();
    until(|| rig.issuer.calls() == 1).await;
    let end = rig.clock.wall() + HOUR;
    let sibling = TokenSet::new("s1").with_refresh_token("s2").with_expires_at(end);
    file.store().save(&sibling).await.unwrap();
    let text = file.text();
    rig.issuer.release();
    assert_eq!(outcome(request.await.unwrap()), "200");
    assert_eq!((rig.api.tokens().pop().unwrap(), hook.calls()), ("s1".into(), 0));
    assert_eq!(file.text(), text);
}

/// K-50, K-53: and where it is the stored one, the file is not wiped either.
#[tokio::test]
async fn k_53_a_dead_session_leaves_the_file_and_finds_a_login_there() {
    let file = TokenFile::new();
    let rig = rig_of(&file).await;
    rig.clock.advance(HOUR);
    let text = file.text();
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "login required");
    assert_eq!(file.text(), text);
    let end = rig.clock.wall() + HOUR;
    file.store().save(&TokenSet::new("s1").with_expires_at(end)).await.unwrap();
    rig.clock.advance(10 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens().pop().unwrap(), "s1");
}

/// K-36: a file that went bad costs nothing while the token in memory lives, and is not touched.
#[tokio::test]
async fn k_36_a_file_that_cannot_be_read_any_more_leaves_the_token_in_memory_usable() {
    let file = TokenFile::new();
    let rig = rig_of(&file).await;
    let whole = file.text();
    file.scribble(&whole[..40]);
    let error = rig.session.refresh().await.unwrap_err();
    assert_eq!(error.kind().to_string(), "token store");
    assert!(matches!(why(&error), Some(FileStoreError::NotOurs { .. })), "{error:?}");
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "token store");
    assert_eq!((rig.issuer.calls(), file.text()), (0, whole[..40].to_owned()));
    file.scribble(whole);
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0", "a0", "a1"]);
}

/// K-28, K-36: the tokens given at build are used while they live, and nothing overwrites the file.
#[tokio::test]
async fn k_28_a_file_that_is_bad_from_the_beginning_is_left_alone() {
    let newer = r#"{"format": "reqwest-refresh", "version": 2, "sealed": "0000"}"#;
    let file = TokenFile::new();
    file.scribble(newer);
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(file.store()));
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0"]);
    rig.clock.advance(HOUR);
    let error = rig.session.tokens().await.unwrap_err();
    assert!(matches!(why(&error), Some(FileStoreError::Newer { version: 2, .. })), "{error:?}");
    assert_eq!(rig.issuer.calls(), 0);

    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(file.store()));
    let session = rig.session.clone();
    let set = tokio::spawn(async move { session.set_tokens(TokenSet::new("u1")).await });
    let error = through_the_tries(&rig, set).await.unwrap_err();
    assert!(matches!(why(&error), Some(FileStoreError::Newer { .. })), "{error:?}");
    assert_eq!(file.text(), newer);
}

/// K-60: what could not be written is used, told, and written later.
#[cfg(unix)]
#[tokio::test]
async fn k_60_a_directory_that_others_open_meanwhile_costs_nothing_in_memory() {
    use crate::file_store::set_mode;

    let file = TokenFile::new();
    let rig = rig_of(&file).await;
    let mut events = rig.session.events();
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    let request = rig.spawn_get();
    until(|| rig.issuer.calls() == 1).await;
    set_mode(file.folder.path(), 0o777);
    rig.issuer.release();
    assert_eq!(outcome(through_the_tries(&rig, request).await), "200");
    assert_eq!(rig.session.status(), Status::Fresh);
    assert_eq!(told(&mut events).await[0], "not saved: token store");
    assert!(file.text().contains("\"a0\""));
    set_mode(file.folder.path(), 0o700);
    rig.session.settle().await.unwrap();
    assert!(FileStore::new(&file.path).load().await.unwrap().unwrap().access_token() == "a1");
}
