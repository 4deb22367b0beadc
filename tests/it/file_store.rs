//! Tokens in a file: what is refused, who may look, and that nothing is lost.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest_refresh::store::contract;
use reqwest_refresh::{FileStore, FileStoreError, StoreError, TokenSet, TokenStore};
use tempfile::TempDir;

/// A file of its own, in a folder that only the user can use.
pub struct TokenFile {
    pub folder: TempDir,
    pub path: PathBuf,
}

impl TokenFile {
    /// Not there yet.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        Self { folder, path }
    }

    pub async fn holding(tokens: &TokenSet) -> Self {
        let file = Self::new();
        file.store().save(tokens).await.unwrap();
        file
    }

    /// As another process would open it.
    pub fn store(&self) -> FileStore {
        FileStore::new(&self.path)
    }

    pub fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// Writes into it as an editor or another program does: not atomically, and not privately.
    pub fn scribble(&self, content: impl AsRef<[u8]>) {
        fs::write(&self.path, content).unwrap();
        #[cfg(unix)]
        set_mode(&self.path, 0o600);
    }
}

/// The error in its own type.
pub fn typed(error: &StoreError) -> &FileStoreError {
    error.downcast_ref().expect("a FileStoreError")
}

/// The variant's name, and everything that can be printed of it.
fn told(error: &StoreError) -> (&'static str, String) {
    let name = match typed(error) {
        FileStoreError::Exposed { .. } => "Exposed",
        FileStoreError::Foreign { .. } => "Foreign",
        FileStoreError::Io { .. } => "Io",
        FileStoreError::Newer { .. } => "Newer",
        FileStoreError::NotOurs { .. } => "NotOurs",
        FileStoreError::Symlink { .. } => "Symlink",
        FileStoreError::TooLarge { .. } => "TooLarge",
        _ => "another",
    };
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    (name, format!("{error} {error:?} {error:#?} {source}"))
}

fn set(name: &str) -> TokenSet {
    TokenSet::new(format!("a-{name}")).with_refresh_token(format!("r-{name}"))
}

/// What every operation on the store says that looks at the file.
async fn say_all(store: &FileStore) -> Vec<(&'static str, Result<(), StoreError>)> {
    vec![
        ("load", store.load().await.map(drop)),
        ("replace", store.replace(Some(&set("old")), &set("new")).await.map(drop)),
        ("replace nothing", store.replace(None, &set("new")).await.map(drop)),
        ("save", store.save(&set("new")).await),
        ("clear", store.clear().await),
    ]
}

/// All of them fail like this, and print nothing of the tokens.
async fn all_fail(store: &FileStore, expected: &str, case: &str) {
    for (operation, result) in say_all(store).await {
        let error = result.expect_err(&format!("{case}: {operation}"));
        let (name, printed) = told(&error);
        assert_eq!(name, expected, "{case}: {operation}: {error}");
        assert!(!printed.contains("CANARY"), "K-63: {case}: {operation}: {printed}");
    }
}

/// K-60, K-61.
#[tokio::test]
async fn k_61_the_store_in_a_file_keeps_the_contract() {
    let file = TokenFile::new();
    contract::check(|| file.store(), true).await;
    let deep = file.folder.path().join("not/there/yet/tokens.json");
    contract::check(|| FileStore::new(&deep), true).await;
}

/// K-62, K-63: whatever it is, it stays as it is.
#[tokio::test]
async fn k_62_what_was_not_understood_is_an_error_and_is_never_overwritten() {
    let whole = {
        let file = TokenFile::holding(&TokenSet::new("CANARY").with_refresh_token("r")).await;
        file.text()
    };
    let cases: [(&str, &str, String); 10] = [
        ("empty", "NotOurs", String::new()),
        ("half-written", "NotOurs", whole[..whole.len() / 2].to_owned()),
        ("written twice", "NotOurs", format!("{whole}{whole}")),
        ("zeros after a power cut", "NotOurs", "\0".repeat(whole.len())),
        ("a program's own", "NotOurs", r#"{"access_token": "CANARY"}"#.into()),
        ("no JSON", "NotOurs", "export TOKEN=CANARY\n".into()),
        ("an old version", "NotOurs", whole.replace("\"version\":1", "\"version\":0")),
        ("a newer version", "Newer", whole.replace("\"version\":1", "\"version\":2")),
        ("damaged by hand", "NotOurs", whole.replace("\"CANARY\"", "[\"CANARY\"]")),
        ("endless", "NotOurs", " ".repeat(5 * 1024 * 1024) + &whole),
    ];
    for (case, expected, content) in cases {
        let file = TokenFile::new();
        file.scribble(&content);
        all_fail(&file.store(), expected, case).await;
        assert!(file.text() == content, "{case}: it was overwritten");
        let lease = file.store().lock().await;
        drop(lease.unwrap_or_else(|error| panic!("{case}: {error}")));
        fs::remove_file(&file.path).unwrap();
        file.store().save(&set("new")).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

#[tokio::test]
async fn a_newer_version_is_told_with_its_number() {
    let file = TokenFile::holding(&set("1")).await;
    file.scribble(file.text().replace("\"version\":1", "\"version\":7"));
    let error = file.store().load().await.unwrap_err();
    assert!(matches!(typed(&error), FileStoreError::Newer { version: 7, .. }), "{error}");
    assert!(error.to_string().ends_with("by a newer version, in format version 7"), "{error}");
}

/// Nobody is kept waiting by a pipe, nothing is made of a directory, and a path needs a name.
#[tokio::test]
async fn what_is_no_file_is_not_read() {
    let file = TokenFile::new();
    fs::create_dir(&file.path).unwrap();
    all_fail(&file.store(), "NotOurs", "a directory").await;
    let file = TokenFile::new();
    fs::write(&file.path, "CANARY").unwrap();
    let store = FileStore::new(file.path.join("tokens.json"));
    for (operation, result) in say_all(&store).await {
        assert_eq!(told(&result.expect_err(operation)).0, "Io", "a file as a directory");
    }
    for path in ["", "/", "..", "/tmp/.."] {
        let error = FileStore::new(path).save(&set("1")).await.unwrap_err();
        assert_eq!(told(&error).0, "NotOurs", "{path:?}: {error}");
        FileStore::new(path).lock().await.unwrap_err();
    }
    #[cfg(unix)]
    {
        let file = TokenFile::new();
        let made = std::process::Command::new("mkfifo").arg(&file.path).status();
        assert!(made.unwrap().success());
        all_fail(&file.store(), "NotOurs", "a pipe").await;
    }
}

/// K-60: what would not come back is not written over what does.
#[tokio::test]
async fn tokens_that_are_too_large_leave_the_old_ones() {
    let file = TokenFile::holding(&set("1")).await;
    let large = TokenSet::new("CANARY".repeat(1024 * 1024));
    let error = file.store().save(&large).await.unwrap_err();
    let (name, printed) = told(&error);
    assert_eq!(name, "TooLarge", "{error}");
    assert!(!printed.contains("CANARY"), "K-63");
    assert!(file.store().load().await.unwrap().unwrap().same_tokens(&set("1")));
}

/// K-62: what is too large to be read is not cut to something that can.
#[tokio::test]
async fn k_62_a_file_is_read_to_its_limit_and_not_to_a_part_of_it() {
    const LIMIT: usize = 4 * 1024 * 1024;
    let file = TokenFile::holding(&set("1")).await;
    let padded = |length: usize| file.text() + &" ".repeat(length - file.text().len());
    let (full, too_large) = (padded(LIMIT), padded(LIMIT + 1));
    file.scribble(full);
    assert!(file.store().load().await.unwrap().unwrap().same_tokens(&set("1")));
    file.scribble(too_large);
    assert_eq!(told(&file.store().load().await.unwrap_err()).0, "NotOurs");
}

/// The path of this moment, whatever the program does with its current directory later.
#[test]
fn a_relative_path_counts_from_here() {
    let here = std::env::current_dir().unwrap().join("tokens.json");
    for path in ["tokens.json", "./tokens.json", "tokens.json/"] {
        assert_eq!(format!("{:?}", FileStore::new(path)), format!("FileStore({here:?})"));
    }
}

#[tokio::test]
async fn looking_and_clearing_leave_no_directory_behind() {
    let file = TokenFile::new();
    let store = FileStore::new(file.folder.path().join("a/tokens.json"));
    assert!(store.load().await.unwrap().is_none());
    store.clear().await.unwrap();
    assert!(!file.folder.path().join("a").exists());
}

#[cfg(unix)]
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// K-62.
    #[tokio::test]
    async fn k_62_files_and_missing_directories_are_the_users_alone() {
        let file = TokenFile::new();
        let directory = file.folder.path().join("a/b");
        let store = FileStore::new(directory.join("tokens.json"));
        drop(store.lock().await.unwrap());
        store.save(&set("1")).await.unwrap();
        store.replace(Some(&set("1")), &set("2")).await.unwrap();
        for path in ["a", "a/b"] {
            assert_eq!(mode(&file.folder.path().join(path)), 0o700, "{path}");
        }
        let mut seen = Vec::new();
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{path:?}");
            seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        seen.sort_unstable();
        assert_eq!(seen, ["tokens.json", "tokens.json.lock", "tokens.json.write-lock"]);
    }

    /// K-62: tokens that somebody else has put there. Whoever is not root does not get to see them.
    #[tokio::test]
    async fn k_62_a_file_of_another_user_is_not_loaded() {
        const OTHER: u32 = 12_345;
        let file = TokenFile::holding(&set("theirs")).await;
        let us = fs::metadata(&file.path).unwrap().uid();
        if chown(&file.path, Some(OTHER), None).is_err() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let store = file.store();
        for (operation, result) in [
            ("load", store.load().await.map(drop)),
            ("replace", store.replace(Some(&set("theirs")), &set("1")).await.map(drop)),
        ] {
            let error = result.expect_err(operation);
            let FileStoreError::Foreign { path, owner, .. } = typed(&error) else {
                panic!("{operation}: {error}");
            };
            assert_eq!((path, *owner), (&file.path, OTHER), "{operation}");
        }
        assert!(file.text().contains("a-theirs"));
        store.save(&set("1")).await.unwrap();
        assert_eq!(fs::metadata(&file.path).unwrap().uid(), us);
        assert!(store.load().await.unwrap().unwrap().same_tokens(&set("1")));
        chown(&file.path, Some(OTHER), None).unwrap();
        store.clear().await.unwrap();
        assert!(!file.path.exists());
    }

    /// K-62: others may have read it, or written it. A login makes it private, a logout removes it.
    #[tokio::test]
    async fn k_62_a_file_that_others_can_use_is_not_loaded() {
        for exposed in [0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o601] {
            let file = TokenFile::holding(&set("1")).await;
            set_mode(&file.path, exposed);
            let text = file.text();
            let store = file.store();
            for (operation, result) in [
                ("load", store.load().await.map(drop)),
                ("replace", store.replace(Some(&set("1")), &set("2")).await.map(drop)),
            ] {
                let error = result.expect_err(operation);
                let FileStoreError::Exposed { path, mode, .. } = typed(&error) else {
                    panic!("{operation}: {error}");
                };
                assert_eq!((path, *mode), (&file.path, exposed), "{operation}");
            }
            assert_eq!(file.text(), text, "{exposed:o}");
            store.save(&set("2")).await.unwrap();
            assert_eq!(mode(&file.path), 0o600, "{exposed:o}");
            assert!(store.load().await.unwrap().unwrap().same_tokens(&set("2")));
            set_mode(&file.path, exposed);
            store.clear().await.unwrap();
            assert!(!file.path.exists(), "{exposed:o}");
        }
        let file = TokenFile::holding(&set("1")).await;
        for private in [0o600, 0o400, 0o700] {
            set_mode(&file.path, private);
            file.store().load().await.unwrap();
        }
    }

    /// K-62: who can write in the directory can put another file there.
    #[tokio::test]
    async fn k_62_a_directory_in_which_others_can_write_is_refused() {
        for (open, is_refused) in [
            (0o777, true),
            (0o770, true),
            (0o702, true),
            (0o720, true),
            (0o1777, false),
            (0o755, false),
            (0o700, false),
        ] {
            let file = TokenFile::holding(&set("1")).await;
            set_mode(file.folder.path(), open);
            if is_refused {
                all_fail(&file.store(), "Exposed", &format!("{open:o}")).await;
                assert_eq!(told(&file.store().lock().await.unwrap_err()).0, "Exposed");
                assert!(file.text().contains("a-1"), "{open:o}");
            } else {
                let lease = file.store().lock().await.unwrap();
                file.store().save(&set("2")).await.unwrap();
                assert!(file.store().load().await.unwrap().is_some(), "{open:o}");
                drop(lease);
            }
        }
    }

    /// K-62.
    #[tokio::test]
    async fn k_62_a_link_is_not_followed_but_for_a_directory() {
        let other = TokenFile::holding(&set("1")).await;
        let text = other.text();
        for target in [other.path.clone(), other.folder.path().join("dangling")] {
            let file = TokenFile::new();
            symlink(&target, &file.path).unwrap();
            all_fail(&file.store(), "Symlink", "the file").await;
            assert!(fs::symlink_metadata(&file.path).unwrap().is_symlink());

            for lock in ["tokens.json.lock", "tokens.json.write-lock"] {
                let file = TokenFile::new();
                symlink(&target, file.folder.path().join(lock)).unwrap();
                let error = match lock {
                    "tokens.json.lock" => file.store().lock().await.map(drop).unwrap_err(),
                    _ => file.store().save(&set("2")).await.unwrap_err(),
                };
                assert_eq!(told(&error).0, "Symlink", "{lock}");
            }
        }
        assert_eq!(other.text(), text);
        assert!(!other.folder.path().join("dangling").exists());

        let file = TokenFile::new();
        let directory = file.folder.path().join("link");
        symlink(other.folder.path(), &directory).unwrap();
        let store = FileStore::new(directory.join("tokens.json"));
        assert!(store.load().await.unwrap().unwrap().same_tokens(&set("1")));
        store.save(&set("2")).await.unwrap();
        assert!(other.text().contains("a-2"));
    }
}

#[cfg(target_os = "linux")]
mod disks {
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    /// A small disk in memory, in the place of a folder.
    struct SmallDisk(TokenFile);

    impl SmallDisk {
        fn new() -> Self {
            let disk = Self(TokenFile::new());
            disk.run("mount", &["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"]);
            disk
        }

        fn remount(&self, how: &str) {
            self.run("mount", &["-o", &format!("remount,{how}")]);
        }

        fn run(&self, command: &str, arguments: &[&str]) {
            let status = Command::new(command).args(arguments).arg(self.0.folder.path()).status();
            assert!(status.unwrap().success());
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.folder.path()).status();
        }
    }

    fn kind(error: &StoreError) -> ErrorKind {
        match typed(error) {
            FileStoreError::Io { source, .. } => source.kind(),
            other => panic!("{other}"),
        }
    }

    /// K-60, K-62: real ones; the tests of the system calls show the same without root.
    #[tokio::test]
    #[ignore = "needs root, to mount a disk"]
    async fn k_60_full_and_read_only_disks_leave_the_old_tokens() {
        let disk = SmallDisk::new();
        let (store, path) = (disk.0.store(), &disk.0.path);
        let large = TokenSet::new("x".repeat(10_000));
        store.save(&set("1")).await.unwrap();
        drop(store.lock().await.unwrap());

        let filler = path.with_file_name("filler");
        fs::write(&filler, vec![0; 100_000]).unwrap_err();
        assert_eq!(kind(&store.save(&large).await.unwrap_err()), ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(disk.0.folder.path()).unwrap().count(), 4, "a draft is left");
        drop(store.lock().await.unwrap());
        assert!(store.load().await.unwrap().unwrap().same_tokens(&set("1")));

        disk.remount("ro");
        for result in [
            store.save(&set("2")).await,
            store.replace(Some(&set("1")), &set("2")).await.map(drop),
            store.clear().await,
            store.lock().await.map(drop),
        ] {
            assert_eq!(kind(&result.unwrap_err()), ErrorKind::ReadOnlyFilesystem);
        }
        assert!(store.load().await.unwrap().unwrap().same_tokens(&set("1")));

        disk.remount("rw");
        fs::remove_file(filler).unwrap();
        store.save(&large).await.unwrap();
        assert!(store.load().await.unwrap().unwrap().same_tokens(&large));
    }
}
