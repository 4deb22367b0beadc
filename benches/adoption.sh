#!/usr/bin/env bash
# What it costs a project to adopt this crate: crates, time to build, size of the program.
#
#     benches/adoption.sh          everything; builds reqwest three times, which takes minutes
#     benches/adoption.sh crates   the crates alone, in seconds
#
# The project has reqwest with its default features, reqwest-middleware and tokio already. It is made
# in a temporary folder, with the versions of this checkout's Cargo.lock, and removed at the end.
set -euo pipefail
checkout="$(cd "$(dirname "$0")/.." && pwd)"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
unset CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG

# A project with this crate, or without: project NAME [FEATURES]; FEATURES is a list for TOML.
project() {
    local name="$1" ours=""
    if [[ $# == 2 ]]; then
        ours="reqwest-refresh = { path = \"$checkout\", features = [$2] }"
    fi
    mkdir -p "$folder/$name/src"
    cp "$checkout/Cargo.lock" "$folder/$name/"
    cat >"$folder/$name/Cargo.toml" <<TOML
[package]
name = "program"
edition = "2024"

[dependencies]
reqwest = "0.13"
reqwest-middleware = "0.5"
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
$ours

[profile.release]
strip = true
TOML
    program "$#" >"$folder/$name/src/main.rs"
}

# The least that a program does: one request, through a session where there is one.
program() {
    local with="" session=""
    if [[ $1 == 2 ]]; then
        session='let endpoint = TokenEndpoint::new("https://as.test/token", ClientAuth::none("id")).unwrap();
    let tokens = TokenSet::new("access").with_refresh_token("refresh");
    let session = Session::builder(endpoint).tokens(tokens).build().unwrap();'
        with='.with(session)'
        echo 'use reqwest_refresh::{ClientAuth, Session, TokenEndpoint, TokenSet};'
    fi
    cat <<RUST
#[tokio::main]
async fn main() {
    $session
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())$with.build();
    println!("{:?}", client.get("https://as.test/orders").send().await.map(|answer| answer.status()));
}
RUST
}

# Its crates for this host, one a line: crates NAME
crates() {
    cargo tree --quiet --manifest-path "$folder/$1/Cargo.toml" \
        --edges normal,build --prefix none --format '{p}' |
        sed 's/ (.*//' | grep -v '^program ' | sort -u
}

# The seconds that a clean build takes, by the clock and of the processors: build NAME
build() {
    local manifest="$folder/$1/Cargo.toml"
    cargo fetch --quiet --manifest-path "$manifest"
    local TIMEFORMAT='%R %U %S'
    { time cargo build --quiet --manifest-path "$manifest" 2>&3; } 3>&2 2>&1 |
        awk '{ printf "%.1f %.1f\n", $1, $2 + $3 }'
}

# The bytes of the stripped program: bytes NAME
bytes() {
    # What both have in common is built once.
    CARGO_TARGET_DIR="$folder/release" \
        cargo build --quiet --release --manifest-path "$folder/$1/Cargo.toml"
    stat --format %s "$folder/release/release/program"
}

# Two numbers and their ratio, as the end of a row: compared BEFORE AFTER UNIT
compared() {
    awk -v before="$1" -v after="$2" -v unit="$3" \
        'BEGIN { printf "%s%s | %s%s | %.3f |\n", before, unit, after, unit, after / before }'
}

project before
project after ''
crates before >"$folder/before.txt"
features="$(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z0-9-]*\) = .*/\1/p' "$checkout/Cargo.toml")"

echo "| features | crates before | after | added |"
echo "|---|---|---|---|"
cp "$folder/before.txt" "$folder/known.txt"
for feature in $features; do
    case "$feature" in
    default) wanted='' shown="none (default)" more="" ;;
    *) wanted="\"$feature\"" shown="\`$feature\`" more=" more" ;;
    esac
    project after "$wanted"
    crates after >"$folder/after.txt"
    added="$(comm -13 "$folder/known.txt" "$folder/after.txt" | paste -sd, | sed 's/ v/ /g; s/,/, /g')"
    count="$(comm -13 "$folder/known.txt" "$folder/after.txt" | wc -l)"
    echo "| $shown | $(wc -l <"$folder/before.txt") | $(wc -l <"$folder/after.txt") | $count$more${added:+: $added} |"
    # What the default brings is named once.
    if [[ "$feature" == default ]]; then cp "$folder/after.txt" "$folder/known.txt"; fi
done
if [[ "${1:-}" == crates ]]; then exit; fi

project after ''
before="$(build before) $(bytes before)"
after="$(build after) $(bytes after)"
read -r clock_before processors_before bytes_before <<<"$before"
read -r clock_after processors_after bytes_after <<<"$after"
echo
echo "| | before | after | ratio |"
echo "|---|---|---|---|"
echo "| clean \`cargo build\`, by the clock | $(compared "$clock_before" "$clock_after" " s")"
echo "| the same, of the processors | $(compared "$processors_before" "$processors_after" " s")"
echo "| stripped release binary | $(compared "$bytes_before" "$bytes_after" " bytes")"
