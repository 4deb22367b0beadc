//! Scripted peers: an API and an issuer of tokens that a test answers for by hand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

mod api;
mod body;
mod crowd;
mod events;
mod issuer;
mod log;
mod oidc_provider;
mod redis;
mod rig;
mod rotating_server;
mod server;
mod store;
mod tls;
mod wire;

pub use self::api::{Api, Reply, Seen};
pub use self::body::{Feed, fed_body};
pub use self::crowd::{Crowd, Place, Went, play};
pub use self::events::told;
pub use self::issuer::Issuer;
pub use self::log::Log;
pub use self::oidc_provider::{OidcProvider, bounded};
pub use self::redis::RedisServer;
pub use self::rig::{Hook, Rig, outcome, unused_client};
pub use self::rotating_server::{Moment, Outcome, RotatingServer, TokenRequest, access_token};
pub use self::server::{Answer, Server, answer, redirect};
pub use self::store::ScriptedStore;
pub use self::tls::{Authority, Tls, identity};
pub use self::wire::{ClosedPort, Then, Wire, http};

/// Lets every task run until it waits for something that only the test can give.
///
/// On a current-thread runtime a task runs until it waits; a few rounds let tasks that wake each
/// other come to rest.
pub async fn everybody_waits() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets everybody run until `is_true`; for what comes over a real socket. A test that would wait for
/// ever fails.
pub async fn until(is_true: impl Fn() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    let result = tokio::time::timeout(patience, waiting).await;
    result.expect("this does not happen");
}

/// A second, for counting.
pub const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// A JWT with these claims. Nobody looks at its signature.
pub fn jwt(claims: &serde_json::Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"RS256","typ":"JWT"}"#);
    format!("{header}.{}.c2ln", part(&claims.to_string()))
}
