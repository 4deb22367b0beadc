//! What must hold whatever the bytes are: one function for each fuzz target, which panics where it
//! does not.
//!
//! Compiled for tests and for fuzzing only. `fuzz/README.md` says how to run them for long; the test
//! below replays what the long runs have kept.

mod answer;
mod challenge;
mod input;
mod jwt;
mod provider;
mod redact;
mod retry_after;
mod secrets;
#[cfg(feature = "file")]
mod stored;

pub use self::answer::answer;
pub use self::challenge::challenge;
pub use self::jwt::jwt;
pub use self::provider::provider;
pub use self::redact::redact;
pub use self::retry_after::retry_after;
#[cfg(feature = "file")]
pub use self::stored::stored;

#[cfg(test)]
mod tests;
