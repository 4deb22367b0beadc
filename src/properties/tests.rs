use std::fs;
use std::path::{Path, PathBuf};

use super::*;

type Property = fn(&[u8]);

/// Every fuzz target, by its name in `fuzz/`.
const TARGETS: &[(&str, Property)] = &[
    ("answer", answer),
    ("challenge", challenge),
    ("jwt", jwt),
    ("provider", provider),
    ("redact", redact),
    ("retry_after", retry_after),
    #[cfg(feature = "file")]
    ("stored", stored),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort_unstable();
    files
}

/// What a fuzzer has kept, and with it everything that it has ever found.
#[test]
fn everything_that_the_fuzzers_have_kept_still_holds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        println!("not a checkout: the inputs are not part of the package");
        return;
    }
    for (target, property) in TARGETS {
        assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).exists(), "{target}");
        let kept = files(&fuzz.join("corpus").join(target));
        assert!(!kept.is_empty(), "{target}: nothing is kept");
        for file in kept {
            println!("{}", file.display()); // seen if it does not hold
            property(&fs::read(file).unwrap());
        }
        property(&[]);
    }
    let targets = files(&fuzz.join("fuzz_targets")).len();
    assert_eq!(targets, TARGETS.len() + usize::from(cfg!(not(feature = "file"))), "all of them");
}

/// K-33, K-34: the answers of `docs/providers.md`, each as if every provider had refused with it.
#[test]
fn k_34_every_cited_answer_holds_for_every_provider() {
    const BAD_REQUEST: u8 = 1;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers");
    for file in files(&fixtures) {
        let body = fs::read(file).unwrap();
        for (index, _) in (0..).zip(provider::PROVIDERS) {
            answer(&[&[index, BAD_REQUEST, 0], &body[..]].concat());
        }
    }
}
