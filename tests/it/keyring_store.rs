//! `KeyringStore`, on a secret store in memory that has the limit of a real one, and fails on demand.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use keyring_core::api::{CredentialApi, CredentialStoreApi};
use keyring_core::{Credential, Entry, Error};
use parking_lot::{Condvar, Mutex};
use reqwest_refresh::store::contract;
use reqwest_refresh::{
    ErrorKind, KeyringStore, KeyringStoreError, StoreError, TokenSet, TokenStore,
};

use crate::support::{Api, Issuer, Rig, everybody_waits, until};

type Secrets = BTreeMap<String, Vec<u8>>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// A secret store. Its clones are the same one.
#[derive(Clone, Default)]
struct Vault(Arc<Inside>);

#[derive(Default)]
struct Inside {
    secrets: Mutex<Secrets>,
    limit: Option<u32>,
    writes: Mutex<usize>,
    /// The writes that fail, by their number.
    failing: Mutex<Range<usize>>,
    /// Whether a write that fails is done all the same.
    lies: Mutex<bool>,
    /// What the next read fails with.
    error: Mutex<Option<Error>>,
    /// What another process does before the next read of a part.
    meanwhile: Mutex<Option<Secrets>>,
    panics: Mutex<bool>,
    threads: Mutex<Vec<ThreadId>>,
    is_shut: Mutex<bool>,
    opened: Condvar,
}

const WINDOWS: u32 = 2560;

impl Vault {
    fn limited(limit: u32) -> Self {
        Self(Arc::new(Inside { limit: Some(limit), ..Inside::default() }))
    }

    /// As another process opens it.
    fn open(&self) -> KeyringStore {
        KeyringStore::in_store(Arc::new(self.clone()), "app", "alice").unwrap()
    }

    /// From now on these writes fail, counted from now on.
    fn fail(&self, writes: Range<usize>) {
        *self.0.writes.lock() = 0;
        *self.0.failing.lock() = writes;
    }

    fn writes(&self) -> usize {
        *self.0.writes.lock()
    }

    fn secrets(&self) -> Secrets {
        self.0.secrets.lock().clone()
    }

    fn put(&self, secret: &str) {
        self.0.secrets.lock().insert("app/alice".into(), secret.into());
    }

    /// From now on every call waits until [`unlock`](Self::unlock).
    fn shut(&self) {
        *self.0.is_shut.lock() = true;
    }

    fn unlock(&self) {
        *self.0.is_shut.lock() = false;
        self.0.opened.notify_all();
    }

    fn called(&self) -> usize {
        self.0.threads.lock().len()
    }

    fn enter(&self) {
        self.0.threads.lock().push(thread::current().id());
        assert!(!*self.0.panics.lock(), "CANARY");
        let mut is_shut = self.0.is_shut.lock();
        self.0.opened.wait_while(&mut is_shut, |is_shut| *is_shut);
    }

    fn write(&self, change: impl FnOnce(&mut Secrets)) -> Result<()> {
        self.enter();
        let mut writes = self.0.writes.lock();
        let fails = self.0.failing.lock().contains(&*writes);
        *writes += 1;
        if !fails || *self.0.lies.lock() {
            change(&mut self.0.secrets.lock());
        }
        match fails {
            true => Err(Error::PlatformFailure("scripted".into())),
            false => Ok(()),
        }
    }
}

impl CredentialStoreApi for Vault {
    fn vendor(&self) -> String {
        "test".into()
    }

    fn id(&self) -> String {
        "test".into()
    }

    fn build(&self, service: &str, user: &str, _: Option<&HashMap<&str, &str>>) -> Result<Entry> {
        if user.is_empty() {
            return Err(Error::Invalid("user".into(), "cannot be empty".into()));
        }
        let slot = Slot { vault: self.clone(), name: format!("{service}/{user}") };
        Ok(Entry::new_with_credential(Arc::new(slot)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Slot {
    vault: Vault,
    name: String,
}

impl CredentialApi for Slot {
    fn set_secret(&self, secret: &[u8]) -> Result<()> {
        match self.vault.0.limit {
            Some(limit) if secret.len() > limit as usize => {
                Err(Error::TooLong("secret".into(), limit))
            }
            _ => self.vault.write(|secrets| drop(secrets.insert(self.name.clone(), secret.into()))),
        }
    }

    fn get_secret(&self) -> Result<Vec<u8>> {
        self.vault.enter();
        if let Some(error) = self.vault.0.error.lock().take() {
            return Err(error);
        }
        let meanwhile = &mut *self.vault.0.meanwhile.lock();
        if let Some(secrets) = meanwhile.take_if(|_| self.name.contains('#')) {
            *self.vault.0.secrets.lock() = secrets;
        }
        self.vault.0.secrets.lock().get(&self.name).cloned().ok_or(Error::NoEntry)
    }

    fn delete_credential(&self) -> Result<()> {
        if !self.vault.0.secrets.lock().contains_key(&self.name) {
            return Err(Error::NoEntry);
        }
        self.vault.write(|secrets| drop(secrets.remove(&self.name)))
    }

    fn get_credential(&self) -> Result<Option<Arc<Credential>>> {
        Ok(None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn small(name: &str) -> TokenSet {
    TokenSet::new(name).with_refresh_token(name)
}

/// Needs three parts in the Credential Manager.
fn large(name: &str) -> TokenSet {
    TokenSet::new(name.repeat(2000)).with_refresh_token(name.repeat(1500))
}

fn is(found: Option<&TokenSet>, expected: Option<&TokenSet>) -> bool {
    match (found, expected) {
        (Some(found), Some(expected)) => found.same_tokens(expected),
        (found, expected) => found.is_none() && expected.is_none(),
    }
}

fn printed(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text += &format!("{error} {error:?} {error:#?}\n");
        next = error.source();
    }
    text
}

/// K-60, K-61: with and without a limit; clones exclude each other.
#[tokio::test]
async fn k_61_the_keyring_store_keeps_the_contract() {
    for vault in [Vault::default(), Vault::limited(WINDOWS), Vault::limited(200)] {
        contract::check(|| vault.open(), false).await;
        let store = vault.open();
        contract::check(|| store.clone(), true).await;
        assert!(vault.secrets().is_empty(), "nothing is left after the last `clear`");
    }
    let mock = keyring_core::mock::Store::new().unwrap();
    let open = || KeyringStore::in_store(mock.clone(), "app", "alice").unwrap();
    contract::check(open, false).await;
}

/// K-62: whoever is interrupted after any write leaves the old set or the new one; and what comes
/// next is not hindered by it.
#[tokio::test]
async fn k_62_a_crash_at_any_instant_leaves_the_old_set_or_the_new_one() {
    let sets = [None, Some(small("s")), Some(large("l"))];
    let next = [None, Some(small("n")), Some(large("m"))];
    for before in &sets {
        for after in &next {
            let mut is_done = false;
            for crash in 0.. {
                let vault = Vault::limited(WINDOWS);
                change(&vault.open(), before.as_ref()).await.unwrap();
                vault.fail(crash..usize::MAX);
                let _ = change(&vault.open(), after.as_ref()).await;
                let has_crashed = vault.writes() > crash;
                vault.fail(0..0);
                let case = format!("{before:?}, {after:?}, after {crash} writes");

                let found = vault.open().load().await.expect(&case);
                assert!(
                    is(found.as_ref(), before.as_ref()) || is(found.as_ref(), after.as_ref()),
                    "{case}"
                );
                let was_done = std::mem::replace(&mut is_done, is(found.as_ref(), after.as_ref()));
                assert!(is_done || !was_done, "there is one step that does it: {case}");
                vault.open().save(&large("z")).await.expect(&case);
                assert!(is(vault.open().load().await.unwrap().as_ref(), Some(&large("z"))));
                if !has_crashed {
                    break;
                }
            }
            assert!(is_done);
        }
    }
}

async fn change(store: &KeyringStore, tokens: Option<&TokenSet>) -> Result<(), StoreError> {
    match tokens {
        Some(tokens) => store.save(tokens).await,
        None => store.clear().await,
    }
}

/// K-60: an error of `save` before the step that counts leaves everything as it was.
#[tokio::test]
async fn k_60_a_save_that_fails_leaves_the_old_set_and_no_parts() {
    for before in [small("s"), large("l")] {
        for failing in 0.. {
            let vault = Vault::limited(WINDOWS);
            let store = vault.open();
            store.save(&before).await.unwrap();
            let secrets = vault.secrets();
            vault.fail(failing..failing + 1);
            let Err(error) = store.save(&large("n")).await else {
                assert!(failing > 2, "three writes or more come first");
                break;
            };
            let why = error.downcast_ref();
            assert!(
                matches!(why, Some(KeyringStoreError::Refused(Error::PlatformFailure(_)))),
                "{error:?}"
            );
            assert_eq!(vault.secrets(), secrets, "{before:?}, write {failing}");
        }
    }
}

/// K-62: an error does not say that nothing was written.
#[tokio::test]
async fn k_62_a_write_that_fails_and_was_done_loses_nothing() {
    for failing in 0..10 {
        let vault = Vault::limited(WINDOWS);
        let store = vault.open();
        store.save(&large("l")).await.unwrap();
        *vault.0.lies.lock() = true;
        vault.fail(failing..failing + 1);
        let saved = store.save(&large("n")).await;
        let found = store.load().await.unwrap();
        let is_new = is(found.as_ref(), Some(&large("n")));
        assert!(is_new || is(found.as_ref(), Some(&large("l"))), "write {failing}");
        assert!(is_new || saved.is_err());
        vault.fail(0..0);
        store.save(&large("n")).await.unwrap();
        assert!(is(store.load().await.unwrap().as_ref(), Some(&large("n"))));
    }
}

/// A logout that fails halfway is finished by the next try; nobody reads what is still there.
#[tokio::test]
async fn clearing_that_fails_can_be_repeated_and_leaves_nothing() {
    for failing in 0.. {
        let vault = Vault::limited(WINDOWS);
        let store = vault.open();
        store.save(&large("l")).await.unwrap();
        let parts = vault.secrets().len() - 1;
        vault.fail(failing..failing + 1);
        if store.clear().await.is_ok() {
            assert_eq!(failing, 1 + parts + 1, "the head is marked, parts and head are deleted");
            break;
        }
        let found = store.load().await.unwrap();
        assert_eq!(found.is_some(), failing == 0, "write {failing}");
        store.clear().await.unwrap();
        assert!(vault.secrets().is_empty(), "write {failing}");
    }
}

/// K-62: another process replaces the parts while they are read.
#[tokio::test]
async fn k_62_parts_that_are_replaced_while_they_are_read_are_read_again() {
    for after in [None, Some(small("n")), Some(large("n"))] {
        let vault = Vault::limited(WINDOWS);
        change(&vault.open(), after.as_ref()).await.unwrap();
        let meanwhile = vault.secrets();
        vault.open().save(&large("l")).await.unwrap();
        *vault.0.meanwhile.lock() = Some(meanwhile);
        let found = vault.open().load().await.unwrap();
        assert!(is(found.as_ref(), after.as_ref()), "{after:?}");
    }
}

/// A set that cannot be kept at all is refused by the limit's name, before anything is changed.
#[tokio::test]
async fn a_limit_that_is_too_low_even_for_parts_is_an_error_that_says_so() {
    for limit in [0, 1, 40] {
        let vault = Vault::limited(limit);
        let error = vault.open().save(&large("l")).await.expect_err("too long");
        let Some(KeyringStoreError::Refused(Error::TooLong(_, told))) = error.downcast_ref() else {
            panic!("{error:?}");
        };
        assert_eq!(*told, limit);
        assert!(vault.secrets().is_empty(), "limit {limit}");
    }
}

/// K-63: the secret store's own errors carry what was in the entry.
#[tokio::test]
async fn k_63_errors_are_typed_and_quote_nothing() {
    let canary = || b"CANARY".to_vec();
    let entry = |vault: &Vault| vault.build("app", "alice", None).unwrap();
    let vault = Vault::default();
    let no_access = || Error::NoStorageAccess("no password".into());
    for (says, error) in [
        ("Locked(", no_access()),
        ("the secret store is locked", no_access()),
        ("no password", no_access()),
        ("Refused(PlatformFailure(", Error::PlatformFailure("no D-Bus".into())),
        ("Refused(TooLong(", Error::TooLong("user".into(), 3)),
        ("NotOurs {", Error::BadEncoding(canary())),
        ("NotOurs {", Error::BadDataFormat(canary(), "CANARY".into())),
        ("2 entries", Error::Ambiguous(vec![entry(&vault), entry(&vault)])),
    ] {
        *vault.0.error.lock() = Some(error);
        let error = vault.open().load().await.expect_err(says);
        let text = printed(&*error);
        assert!(text.contains(says), "{says}: {text}");
        assert!(!text.contains("CANARY") && !text.contains("67, 65"), "{text}");
        assert!(error.is::<KeyringStoreError>());
    }
    let store = vault.open();
    store.save(&small("CANARY")).await.unwrap();
    assert_eq!(format!("{store:?}"), "KeyringStore { .. }", "K-63");
}

/// What somebody else has put there is neither taken for a logout nor quoted; a login replaces it.
#[tokio::test]
async fn k_63_what_is_not_ours_is_an_error_until_somebody_logs_in() {
    let newer =
        r#"{"format": "reqwest-refresh", "version": 2, "parts": {"id": "CANARY", "count": 1}}"#;
    let lost =
        r#"{"format": "reqwest-refresh", "version": 1, "parts": {"id": "CANARY", "count": 1}}"#;
    let endless = lost.replace("1}}", "18446744073709551615}}");
    for (says, secret) in [
        ("a whole JSON object", "CANARY"),
        ("it is empty", ""),
        ("format version 2", newer),
        ("missing", lost),
        ("damaged", &endless),
        ("damaged", &lost.replace("\"count\": 1", "\"count\": \"1\"")),
    ] {
        let vault = Vault::limited(WINDOWS);
        vault.put(secret);
        let store = vault.open();
        let error = store.load().await.expect_err(secret);
        let text = printed(&*error);
        assert!(text.contains(says) && !text.contains("CANARY"), "{secret}: {text}");
        assert!(store.replace(None, &small("n")).await.is_err(), "{secret}: it is not overwritten");
        store.save(&large("n")).await.unwrap();
        assert!(is(store.load().await.unwrap().as_ref(), Some(&large("n"))));
        vault.put(secret);
        store.clear().await.unwrap();
        assert!(store.load().await.unwrap().is_none());
    }
}

#[test]
fn without_a_secret_store_or_a_good_name_there_is_no_token_store() {
    let no_store = KeyringStore::new("app", "alice").expect_err("nobody has set one");
    let no_name = KeyringStore::in_store(Arc::new(Vault::default()), "app", "").expect_err("empty");
    for (error, says) in [(no_store, "No default store"), (no_name, "cannot be empty")] {
        assert!(matches!(error.kind(), ErrorKind::Configuration));
        assert!(error.source().is_some_and(|source| source.is::<KeyringStoreError>()));
        assert!(printed(&error).contains(says), "{error:?}");
    }
}

/// K-24, K-63: a panic is an error, and what it says is not repeated.
#[tokio::test]
async fn k_24_a_secret_store_that_panics_is_an_error_each_time() {
    let vault = Vault::default();
    let store = vault.open();
    *vault.0.panics.lock() = true;
    for _ in 0..2 {
        let error = store.save(&small("s")).await.expect_err("it panicked");
        assert!(matches!(error.downcast_ref(), Some(KeyringStoreError::Interrupted)), "{error:?}");
        assert!(!printed(&*error).contains("CANARY"));
    }
    *vault.0.panics.lock() = false;
    store.save(&small("s")).await.unwrap();
}

/// What could not be read again is refused before anything is written.
#[tokio::test]
async fn members_that_are_nested_too_deep_are_an_error() {
    let nested = (0..200).fold(serde_json::json!(1), |value, _| serde_json::json!([value]));
    let members = [("deep".to_owned(), nested)].into_iter().collect();
    let vault = Vault::default();
    let error = vault.open().save(&small("s").with_members(members)).await.expect_err("too deep");
    assert!(matches!(error.downcast_ref(), Some(KeyringStoreError::Unwritable)), "{error:?}");
    assert_eq!(vault.called(), 0);
}

/// The secret store blocks, for as long as a person needs to unlock it: not the runtime. And who
/// gives up does not write over what comes later.
#[tokio::test]
async fn k_25_a_save_that_was_given_up_does_not_win_over_a_later_one() {
    let vault = Vault::default();
    let store = vault.open();
    vault.shut();
    let saving = store.clone();
    let first = tokio::spawn(async move { saving.save(&small("1")).await });
    until(|| vault.called() == 1).await;
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    let saving = store.clone();
    let second = tokio::spawn(async move { saving.save(&small("2")).await });
    everybody_waits().await;
    assert_eq!(vault.called(), 1, "the second waits for the first");
    vault.unlock();
    second.await.unwrap().unwrap();
    assert!(is(store.load().await.unwrap().as_ref(), Some(&small("2"))));
    let threads = vault.0.threads.lock().clone();
    assert!(!threads.contains(&thread::current().id()), "{threads:?}");
}

/// K-60: what a session got is there for the next run, which begins with it.
#[tokio::test]
async fn k_60_a_session_keeps_large_tokens_in_the_keyring() {
    let vault = Vault::limited(WINDOWS);
    let rig = |store| Rig::with(Api::friendly(), Issuer::new(), |builder| builder.store(store));
    let first = rig(vault.open());
    first.issuer.then(Ok(large("l")));
    first.session.refresh().await.unwrap();
    first.session.settle().await.unwrap();
    let next = rig(vault.open());
    assert!(is(Some(&next.session.tokens().await.unwrap()), Some(&large("l"))));
    next.session.clear().await.unwrap();
    assert!(vault.secrets().is_empty());
}
