use std::fs;
use std::path::Path;
use std::sync::mpsc::Sender;

use serde_json::{Map, Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::store::file::disk::Disk;
use crate::store::file::disk::faults::{Fault, Faults};
use crate::store::format::{self, LIMIT, Unread};

impl FileStore {
    fn with(path: &Path, faults: &Faults) -> Self {
        let mut place = Place::new(path.to_owned());
        place.disk = Disk { faults: faults.clone() };
        Self { place: Arc::new(place) }
    }
}

fn set(name: &str) -> TokenSet {
    let long = format!("{name}-{}", "x".repeat(10_000));
    TokenSet::new(format!("access-{long}")).with_refresh_token(format!("refresh-{long}"))
}

/// A change of the file, and what is there before and after it.
#[derive(Clone, Copy, Debug)]
enum Change {
    Clear,
    FirstSave,
    Replace,
    Save,
    SaveWhereNoDirectoryIs,
}

impl Change {
    fn before(self) -> Option<TokenSet> {
        match self {
            Self::FirstSave | Self::SaveWhereNoDirectoryIs => None,
            _ => Some(set("old")),
        }
    }

    fn after(self) -> Option<TokenSet> {
        match self {
            Self::Clear => None,
            _ => Some(set("new")),
        }
    }

    async fn make(self, store: &FileStore) -> Result<(), StoreError> {
        match self {
            Self::Clear => store.clear().await,
            Self::Replace => {
                let replaced = store.replace(self.before().as_ref(), &set("new")).await?;
                assert!(replaced, "nobody else has written");
                Ok(())
            }
            _ => store.save(&set("new")).await,
        }
    }

    /// What the store says, and the system calls that it made.
    async fn make_with(self, path: &Path, faults: Faults) -> (Result<(), StoreError>, Faults) {
        if let Some(before) = self.before() {
            FileStore::new(path).save(&before).await.unwrap();
        }
        (self.make(&FileStore::with(path, &faults)).await, faults)
    }

    fn path(self, folder: &Path) -> PathBuf {
        match self {
            Self::SaveWhereNoDirectoryIs => folder.join("a/b/tokens.json"),
            _ => folder.join("tokens.json"),
        }
    }
}

const CHANGES: [Change; 5] = [
    Change::Clear,
    Change::FirstSave,
    Change::Replace,
    Change::Save,
    Change::SaveWhereNoDirectoryIs,
];

/// The names in a directory, and whether others may do something with one of them.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let mode = entry.metadata().unwrap().mode();
            assert_eq!(mode & 0o077, 0, "K-62: {entry:?} has mode {mode:o}");
        }
        entry.file_name().into_string().unwrap()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort_unstable();
    names
}

fn is_same(one: Option<&TokenSet>, other: Option<&TokenSet>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.same_tokens(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// K-62: every system call of every change, failing and being the last one.
#[tokio::test]
async fn k_62_whichever_system_call_fails_or_is_the_last_old_or_new_is_there() {
    let faults = [
        Fault::DiesAfter,
        Fault::DiesBefore,
        Fault::DiesHalfway,
        Fault::FailsDone,
        Fault::FailsUndone,
    ];
    // All at once: most of the time is spent waiting for the disk.
    let mut tasks = JoinSet::new();
    for (fault, change) in faults.into_iter().flat_map(|f| CHANGES.map(|change| (f, change))) {
        tasks.spawn(async move {
            let mut number = 0;
            while fails_well(change, number, fault).await {
                number += 1;
            }
            assert!(number >= 8, "{change:?} has more system calls than {number}");
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Whether there was a system call of this number.
async fn fails_well(change: Change, number: usize, fault: Fault) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = change.path(folder.path());
    let (result, faults) = change.make_with(&path, Faults::at(number, fault)).await;
    let calls = faults.calls();
    let case = format!("{change:?}, {fault:?} at {number}: {calls:?}");
    let was_there = number < calls.len();

    let directory = path.parent().unwrap();
    let left = names(directory);
    let drafts = left.iter().filter(|name| name.ends_with(".tmp")).count();
    assert!(drafts <= 1, "{case}: {left:?}");
    let is_alive = matches!(fault, Fault::FailsDone | Fault::FailsUndone);
    assert!(!is_alive || drafts == 0, "{case}: who lives cleans up: {left:?}");

    let found = FileStore::new(&path).load().await;
    let found = found.unwrap_or_else(|error| panic!("{case}: torn: {error}"));
    let is_after = is_same(found.as_ref(), change.after().as_ref());
    assert!(is_after || is_same(found.as_ref(), change.before().as_ref()), "{case}");
    assert!(is_after || result.is_err(), "{case}: not done, and not said");
    assert!(was_there || result.is_ok(), "{case}: {result:?}");

    // It is no hindrance to whoever comes next, and nothing of it is left then.
    FileStore::new(&path).save(&set("next")).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    let found = FileStore::new(&path).load().await.unwrap();
    assert!(is_same(found.as_ref(), Some(&set("next"))), "{case}");
    assert_eq!(names(directory), ["tokens.json", "tokens.json.write-lock"], "{case}");
    was_there
}

/// K-60, K-62: no name leads to what is not on the disk yet; and when the call returns, the name is
/// on the disk too.
#[cfg(unix)]
#[tokio::test]
async fn k_62_the_content_is_synced_before_it_gets_the_name_and_the_name_before_anybody_uses_it() {
    let writes = ["created", "written", "synced", "replaced", "synced"];
    for (change, expected) in [
        (Change::Save, writes.as_slice()),
        (Change::FirstSave, &writes),
        (Change::Replace, &writes),
        (Change::Clear, &["removed", "synced"]),
        // Both directories, and the names of both.
        (Change::SaveWhereNoDirectoryIs, &[&["created", "synced", "synced"], &writes[..]].concat()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = change.path(folder.path());
        let (result, faults) = change.make_with(&path, Faults::default()).await;
        result.unwrap();
        let is_change = |what: &&str| !["looked at", "read", "listed", "locked"].contains(what);
        let changes: Vec<_> = faults.calls().into_iter().filter(is_change).collect();
        assert_eq!(changes, expected, "{change:?}");
    }
}

/// A store whose next write waits before it creates its new file, and that write.
async fn held_write<F, T>(
    path: &Path,
    write: impl FnOnce(FileStore) -> F,
) -> (JoinHandle<T>, Sender<()>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (faults, release) = Faults::holding("created");
    let task = tokio::spawn(write(FileStore::with(path, &faults)));
    while faults.calls().last() != Some(&"created") {
        tokio::task::yield_now().await;
    }
    (task, release)
}

/// K-60, K-21.
#[tokio::test]
async fn k_60_a_save_whose_caller_goes_away_is_finished_and_the_next_one_comes_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    let save = async |name: &'static str| {
        held_write(&path, |store| async move { store.save(&set(name)).await }).await
    };
    let (first, release) = save("first").await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = tokio::spawn({
        let store = FileStore::new(&path);
        async move { store.save(&set("second")).await }
    });
    release.send(()).unwrap();
    second.await.unwrap().unwrap();
    let found = FileStore::new(&path).load().await.unwrap();
    assert!(is_same(found.as_ref(), Some(&set("second"))));

    let (third, release) = save("third").await;
    third.abort();
    release.send(()).unwrap();
    let waiting = async {
        while !is_same(FileStore::new(&path).load().await.unwrap().as_ref(), Some(&set("third"))) {}
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it is lost");
}

/// K-25, K-61: a login does not wait for a refresh elsewhere, and is not undone by it.
#[tokio::test]
async fn k_61_nobody_writes_between_the_look_and_the_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    FileStore::new(&path).save(&set("old")).await.unwrap();
    let replace = |store: FileStore| async move {
        store.replace(Some(&set("old")), &set("refreshed")).await.unwrap()
    };
    let (replacing, release) = held_write(&path, replace).await;
    let faults = Faults::default();
    let login = tokio::spawn({
        let store = FileStore::with(&path, &faults);
        async move { store.save(&set("login")).await }
    });
    let has_waited = || faults.calls().iter().filter(|call| **call == "locked").count() > 1;
    while !has_waited() && !login.is_finished() {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!(replacing.await.unwrap());
    login.await.unwrap().unwrap();
    let found = FileStore::new(&path).load().await.unwrap();
    assert!(is_same(found.as_ref(), Some(&set("login"))), "the login is lost");
}

/// K-62: and nobody else's file.
#[tokio::test]
async fn k_62_what_dead_writers_left_is_removed_with_the_next_change() {
    let others = [
        ".other.json.abcdefghijkl.tmp",
        ".tokens.json.abcdefghijk-.tmp",
        ".tokens.json.abcdefghijkl.bak",
        ".tokens.json.old.abcdefghijkl.tmp",
        ".tokens.json.short.tmp",
        "tokens.json.abcdefghijkl.tmp",
    ];
    for clears in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("tokens.json"));
        store.save(&set("old")).await.unwrap();
        for name in
            others.iter().chain(&[".tokens.json.abcdefghijkl.tmp", ".tokens.json.ABCdef012345.tmp"])
        {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        match clears {
            true => store.clear().await.unwrap(),
            false => store.save(&set("new")).await.unwrap(),
        }
        let left = fs::read_dir(folder.path()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> =
            left.filter(|name| !name.starts_with("tokens.json") || name.ends_with("tmp")).collect();
        left.sort_unstable();
        assert_eq!(left, others);
    }
}

/// K-62, K-63: what is not whole and ours is an error, which quotes nothing.
#[test]
fn k_62_what_is_not_understood_is_told_apart_and_not_quoted() {
    let ours = |version: Value, tokens: Value| {
        json!({"format": "reqwest-refresh", "version": version, "tokens": tokens}).to_string()
    };
    let whole = String::from_utf8(format::write(&TokenSet::new("CANARY")).unwrap()).unwrap();
    let cut: Vec<String> = (1..whole.trim_end().len()).map(|end| whole[..end].to_owned()).collect();
    let mut cases: Vec<(String, &str)> =
        cut.into_iter().map(|text| (text, "it is not a whole JSON object")).collect();
    let tokens = json!({"access_token": "CANARY"});
    cases.extend([
        (String::new(), "it is empty"),
        (" ".repeat(LIMIT + 1), "it is too large"),
        ("access_token=CANARY\n".into(), "it is not a whole JSON object"),
        ("[\"CANARY\"]".into(), "it is not a whole JSON object"),
        ("\0".repeat(4096), "it is not a whole JSON object"),
        (format!("{whole}CANARY"), "it is not a whole JSON object"),
        ("{}".into(), "it does not say that it is one"),
        (json!({"access_token": "CANARY"}).to_string(), "it does not say that it is one"),
        (json!({"format": 1, "version": 1}).to_string(), "it does not say that it is one"),
        (whole.replace("reqwest-refresh", "CANARY"), "it does not say that it is one"),
        (ours(Value::Null, tokens.clone()), "it has no version that there ever was"),
        (ours(json!(0), tokens.clone()), "it has no version that there ever was"),
        (ours(json!(-1), tokens.clone()), "it has no version that there ever was"),
        (ours(json!(1.5), tokens.clone()), "it has no version that there ever was"),
        (ours(json!("CANARY"), tokens), "it has no version that there ever was"),
        (ours(json!(1), Value::Null), "its tokens are damaged"),
        (ours(json!(1), json!("CANARY")), "its tokens are damaged"),
        (ours(json!(1), json!({"refresh_token": "CANARY"})), "its tokens are damaged"),
        (ours(json!(1), json!({"access_token": 4711})), "its tokens are damaged"),
    ]);
    for (text, expected) in cases {
        let error = format::read(text.as_bytes()).expect_err(&text);
        assert_eq!(error, Unread::NotOurs(expected), "{text:.200}");
    }
    let newer = ours(json!(2), json!({"sealed": "CANARY"}));
    assert_eq!(format::read(newer.as_bytes()).unwrap_err(), Unread::Newer(2));
    assert_eq!(
        format::read(b"\xff\xfe").unwrap_err(),
        Unread::NotOurs("it is not a whole JSON object")
    );
}

/// What is on disks already: a change here needs a new version, and a reader for this one.
#[test]
fn the_format_is_this() {
    let end = std::time::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let tokens = TokenSet::new("a").with_refresh_token("r").with_expires_at(end);
    let written: Value = serde_json::from_slice(&format::write(&tokens).unwrap()).unwrap();
    let expected = json!({
        "format": "reqwest-refresh",
        "version": 1,
        "tokens": {"access_token": "a", "refresh_token": "r", "expires_at": 2_000_000_000},
    });
    assert_eq!(written, expected);
    let mut more = expected;
    more["comment"] = json!("by hand");
    assert!(format::read(more.to_string().as_bytes()).unwrap().same_tokens(&tokens));
}

/// K-60: rather an error now than a file that nobody can read later.
#[test]
fn what_could_not_be_read_again_is_not_written() {
    let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| json!([inner]));
    let with = |value: Value| {
        let members: Map<_, _> = [("x".to_owned(), value)].into_iter().collect();
        format::write(&TokenSet::new("a").with_members(members)).is_some()
    };
    assert!(with(nested(120)));
    assert!(!with(nested(130)), "deeper than serde_json reads");
    assert!(with("x".repeat(LIMIT / 2).into()));
    assert!(!with("x".repeat(LIMIT).into()));
}

#[test]
fn debug_shows_the_path_alone() {
    let store = FileStore::new("/tokens/of/me.json");
    assert_eq!(format!("{store:?}"), r#"FileStore("/tokens/of/me.json")"#);
}
