//! Every test that `SECURITY.md` names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The tests of a file, as the test runner calls them: `file_store::unix::k_62_…`.
fn tests_in(file: &Path, crate_root: &Path) -> Vec<String> {
    let module = file.strip_prefix(crate_root).unwrap().with_extension("");
    let file_modules = module.iter().map(|part| part.to_str().unwrap());
    let mut modules: Vec<(usize, &str)> = file_modules.map(|module| (0, module)).collect();
    let text = fs::read_to_string(file).unwrap();
    let (mut tests, mut is_test) = (Vec::new(), false);
    for line in text.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let word = |after: &str| {
            let (_, rest) = code.split_once(after)?;
            rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()
        };
        if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
            is_test = true;
        } else if code.starts_with("mod ") && code.ends_with('{') {
            modules.extend(word("mod ").map(|module| (indent + 1, module)));
        } else if code == "}" && modules.last().is_some_and(|(inner, _)| *inner == indent + 1) {
            modules.pop();
        } else if is_test && let Some(name) = word("fn ") {
            let path = modules.iter().map(|(_, module)| *module).chain([name]);
            tests.push(path.collect::<Vec<_>>().join("::"));
            is_test = false;
        }
    }
    tests
}

fn tests() -> BTreeSet<String> {
    let (library, tests) = (root().join("src"), root().join("tests"));
    let inner = tests.join("it");
    let of_folder = |folder: &Path| -> Vec<_> {
        files(folder).iter().flat_map(|file| tests_in(file, folder)).collect()
    };
    let memory = tests_in(&tests.join("memory.rs"), &tests);
    of_folder(&library).into_iter().chain(of_folder(&inner)).chain(memory).collect()
}

/// What stands between backticks and could be the path of a test.
fn named() -> Vec<String> {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let code = text.split('`').skip(1).step_by(2);
    let is_path = |code: &&str| code.contains("::") && code.starts_with(char::is_lowercase);
    code.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn every_test_that_is_named_is_there() {
    let (tests, named) = (tests(), named());
    assert!(named.len() > 50, "these are not all: {named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
