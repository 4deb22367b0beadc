//! A file of tokens and several processes: this test binary starts itself again, and kills itself.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use reqwest_refresh::{FileStore, TokenSet, TokenStore};

use crate::file_store::TokenFile;

const ROLE: &str = "REQWEST_REFRESH_TEST_ROLE";
const PATH: &str = "REQWEST_REFRESH_TEST_PATH";

/// What another process does with the file.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Adds [`ROUNDS`] to the number in the file, one by one, each under the lock.
    Counts,
    /// Takes the lock, and keeps it.
    HoldsTheLock,
    /// Saves set after set.
    Saves,
}

const ROUNDS: u64 = 40;

impl Role {
    const ALL: [Self; 3] = [Self::Counts, Self::HoldsTheLock, Self::Saves];

    /// Starts a process that says a line when it is under way.
    fn start(self, path: &Path) -> Other {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "file_processes::another_process", "--ignored", "--nocapture"])
            .env(ROLE, format!("{self:?}"))
            .env(PATH, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(UNDER_WAY)), "{self:?} did not start");
        // Read to its end, or the other process would have to wait for us.
        thread::spawn(move || lines.for_each(drop));
        Other(child)
    }

    async fn play(self, store: FileStore) {
        match self {
            Self::Counts => {
                println!("{UNDER_WAY}");
                for _ in 0..ROUNDS {
                    let _lease = store.lock().await.unwrap();
                    let before = store.load().await.unwrap().unwrap();
                    let next = numbered(number(&before) + 1);
                    assert!(store.replace(Some(&before), &next).await.unwrap());
                }
            }
            Self::HoldsTheLock => {
                let _lease = store.lock().await.unwrap();
                println!("{UNDER_WAY}");
                std::future::pending().await
            }
            Self::Saves => {
                for round in 0.. {
                    store.save(&numbered(round)).await.unwrap();
                    if round == 0 {
                        println!("{UNDER_WAY}");
                    }
                }
            }
        }
    }
}

const UNDER_WAY: &str = "[under way]";

/// A process that does not outlive its test.
struct Other(Child);

impl Other {
    /// As `kill -9`.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A large set, of which every part says the same number.
fn numbered(number: u64) -> TokenSet {
    TokenSet::new(format!("{number} a").repeat(5_000))
        .with_refresh_token(format!("{number} r").repeat(5_000))
        .with_scope(number.to_string())
}

/// The number, if the set is whole.
fn number(tokens: &TokenSet) -> u64 {
    let number = tokens.scope().unwrap().parse().unwrap();
    assert!(tokens.same_tokens(&numbered(number)), "two sets in one");
    number
}

#[tokio::test]
#[ignore = "the part of another process"]
async fn another_process() {
    let (Ok(role), Some(path)) = (env::var(ROLE), env::var_os(PATH)) else { return };
    let role = Role::ALL.into_iter().find(|known| format!("{known:?}") == role);
    role.unwrap().play(FileStore::new(path)).await;
}

/// K-62: `kill -9` at any instant, fifty times.
#[tokio::test]
async fn k_62_a_process_that_is_killed_while_it_writes_leaves_a_whole_file() {
    let file = TokenFile::new();
    let store = file.store();
    let mut found = BTreeSet::new();
    for _ in 0..50 {
        let mut other = Role::Saves.start(&file.path);
        thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        other.kill();
        found.insert(number(&store.load().await.unwrap().unwrap()));
        let names = fs::read_dir(file.folder.path()).unwrap();
        let drafts =
            names.filter(|name| name.as_ref().unwrap().path().extension() == Some("tmp".as_ref()));
        assert!(drafts.count() <= 1, "they pile up");
    }
    assert!(found.len() > 1, "killed at the same instant each time: {found:?}");
    store.save(&numbered(0)).await.unwrap();
    let mut names: Vec<_> =
        fs::read_dir(file.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["tokens.json", "tokens.json.write-lock"]);
}

/// K-61: nobody's step is lost, so nobody was there between another's look and its change.
#[tokio::test]
async fn k_61_processes_take_turns() {
    let file = TokenFile::holding(&numbered(0)).await;
    let mut others: Vec<_> = (0..3).map(|_| Role::Counts.start(&file.path)).collect();
    for other in &mut others {
        assert!(other.0.wait().unwrap().success());
    }
    let tokens = file.store().load().await.unwrap().unwrap();
    assert_eq!(number(&tokens), 3 * ROUNDS);
}

/// K-61: a lock does not outlive its holder.
#[tokio::test]
async fn k_61_a_process_that_is_killed_gives_its_lock_back() {
    let file = TokenFile::new();
    let mut other = Role::HoldsTheLock.start(&file.path);
    let store = file.store();
    let locked = tokio::spawn(async move { store.lock().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!locked.is_finished(), "two leases at once");
    other.kill();
    tokio::time::timeout(Duration::from_secs(60), locked).await.unwrap().unwrap().unwrap();
}
