//! A file imports only from files above it; the pure core does no I/O.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of `src`, each below everything that it may import.
const LAYERS: &[&str] = &[
    "clock.rs",
    "secret.rs",
    "error/refresh.rs",
    "error.rs",
    "token.rs",
    "token/serde.rs",
    "proto/redact.rs",
    "proto/jwt.rs",
    "proto/challenge.rs",
    "proto/origin.rs",
    "proto/policy.rs",
    "proto/credential.rs",
    "proto/state/flight.rs",
    "proto/state/request.rs",
    "proto/state.rs",
    "proto/state/tests.rs",
    "proto/jws/jwk.rs",
    "proto/jws.rs",
    "proto/jws/tests.rs",
    "proto/assertion.rs",
    "proto/client_auth.rs",
    "proto/provider.rs",
    "proto/provider/known.rs",
    "proto/grant.rs",
    "proto/grant/tests.rs",
    "token/oauth2.rs",
    "proto/metadata.rs",
    "proto/provider/tests.rs",
    "proto/provider/known/tests.rs",
    "proto.rs",
    "store.rs",
    "store/contract.rs",
    "store/envelope.rs",
    "store/pauses.rs",
    "store/file/error.rs",
    "store/file/disk/faults.rs",
    "store/file/disk.rs",
    "store/file/place.rs",
    "store/file.rs",
    "store/file/tests.rs",
    "store/keyring/error.rs",
    "store/keyring/entries.rs",
    "store/keyring.rs",
    "store/memory.rs",
    "store/redis/error.rs",
    "store/redis/link.rs",
    "store/redis/claim.rs",
    "store/redis.rs",
    "store/resources.rs",
    "http_client.rs",
    "refresh.rs",
    "token_endpoint.rs",
    "discovery.rs",
    "session/events.rs",
    "session/waiting.rs",
    "session/flight.rs",
    "session/flight/outcome.rs",
    "session/keeping.rs",
    "session/builder.rs",
    "session.rs",
    "accounts/opening.rs",
    "accounts/shard.rs",
    "accounts.rs",
    "middleware/held.rs",
    "middleware.rs",
    "properties/input.rs",
    "properties/secrets.rs",
    "properties/redact.rs",
    "properties/provider.rs",
    "properties/stored.rs",
    "properties/answer.rs",
    "properties/challenge.rs",
    "properties/jwt.rs",
    "properties/retry_after.rs",
    "properties/tests.rs",
    "properties.rs",
    "lib.rs",
];

const IO: [&str; 9] =
    ["async ", "::now(", "tokio", "reqwest", "std::fs", "std::net", "fastrand", "rand::", ".await"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The code of a file: without comments, and without the tests at its end.
fn code(file: &str) -> String {
    let text = fs::read_to_string(source().join(file)).unwrap();
    let code = text.split("#[cfg(test)]\n").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|l| format!("{l}\n"))
        .collect()
}

fn layer(file: &str) -> usize {
    let layer = LAYERS.iter().position(|known| *known == file);
    layer.unwrap_or_else(|| panic!("{file} has no place in the layers: give it one"))
}

/// The file in which `crate::a::b::Item` is: the longest path that is one.
fn imported(path: &str) -> Option<String> {
    let parts: Vec<_> =
        path.split("::").take_while(|part| part.starts_with(char::is_lowercase)).collect();
    (1..=parts.len())
        .rev()
        .map(|length| format!("{}.rs", parts[..length].join("/")))
        .find(|file| LAYERS.contains(&file.as_str()))
}

#[test]
fn every_file_has_a_place() {
    let root = source();
    for path in files(&root) {
        layer(path.strip_prefix(&root).unwrap().to_str().unwrap());
    }
}

#[test]
fn nobody_imports_upward() {
    for file in LAYERS.iter().filter(|file| **file != "lib.rs") {
        for import in code(file).split("crate::").skip(1) {
            let end = import.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = &import[..end.unwrap_or(import.len())];
            let Some(other) = imported(path) else {
                continue;
            };
            // A folder's files know the type whose parts they are.
            let is_own_folder = Path::new(file).starts_with(other.trim_end_matches(".rs"));
            assert!(
                layer(&other) <= layer(file) || is_own_folder,
                "{file} imports {other}, which stands above it"
            );
        }
    }
}

#[test]
fn the_pure_core_does_no_io() {
    for file in LAYERS.iter().filter(|file| file.starts_with("proto")) {
        let code = code(file);
        for word in IO {
            assert!(!code.contains(word), "{file} says `{word}`");
        }
    }
}
