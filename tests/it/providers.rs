//! The built-in providers are made from answers that can be cited: which of them there are.

use std::fs;
use std::path::Path;

/// The answers for which no source was found, or whose body is not JSON.
const NOT_CITED: [(&str, &str); 18] = [
    ("amazon_sp_api", "limit"),
    ("box", "limit"), // a 409 without a body is in the table of `known/tests.rs`
    ("cognito", "limit"),
    ("entra_id", "limit"), // AADSTS50196 came without its code and status
    ("gitlab", "limit"),
    ("google", "limit"),   // a 403 with a page of HTML is in the table
    ("hubspot", "client"), // only a client's test double
    ("keycloak", "limit"),
    ("openai", "client"),
    ("openai", "limit"),
    ("quickbooks", "limit"),
    ("salesforce", "limit"),
    ("spotify", "limit"),
    ("spring_security_oauth", "limit"),
    ("x", "limit"),
    ("xero", "limit"),
    ("zoom", "success"), // cut within the access token
    ("zoom", "limit"),
];

/// K-33, K-34: success, dead refresh token, wrong client, rate limit: each is a fixture, or known to
/// be missing; and each fixture is read by a test.
#[test]
fn k_34_every_provider_has_its_four_answers_or_they_could_not_be_cited() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("src/proto/provider/known/tests.rs")).unwrap();
    let mut missing = Vec::new();
    for provider in names(&root.join("tests/fixtures/providers")) {
        let answers = names(&root.join("tests/fixtures/providers").join(&provider));
        for kind in ["success", "dead", "client", "limit"] {
            if !answers.contains(&format!("{kind}.json")) {
                missing.push((provider.clone(), kind));
            }
        }
        for answer in answers {
            let name = format!("{provider}/{}", answer.trim_end_matches(".json"));
            assert!(table.contains(&format!("fixture!(\"{name}\")")), "{name} is not read");
        }
    }
    let missing: Vec<_> = missing.iter().map(|(provider, kind)| (&**provider, *kind)).collect();
    assert_eq!(missing, NOT_CITED);
}

/// What is in a folder, in the order of the names.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
