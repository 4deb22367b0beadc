//! Scripted peers: an API and an issuer of tokens that a test answers for by hand.

mod api;
mod issuer;
mod rig;
mod store;

pub use self::api::{Api, Reply, Seen};
pub use self::issuer::Issuer;
pub use self::rig::{Hook, Rig};
pub use self::store::ScriptedStore;

/// Lets every task run until it waits for something that only the test can give.
///
/// On a current-thread runtime a task runs until it waits; a few rounds let tasks that wake each
/// other come to rest.
pub async fn everybody_waits() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// A second, for counting.
pub const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
