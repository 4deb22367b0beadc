use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::error::{Error, LoginReason};
use crate::token::Generation;

/// Something that happened to a session. None of it contains a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The refresh token ends soon: a good moment to ask for a login. Told once per refresh token,
    /// at least [some time](crate::SessionBuilder::login_notice) before its end, where that is
    /// known.
    #[non_exhaustive]
    LoginDue {
        /// When the refresh token ends.
        at: SystemTime,
    },
    /// The session is dead, and the login hook, if there is one, is being called.
    #[non_exhaustive]
    LoginRequired {
        /// Why.
        reason: LoginReason,
    },
    /// The tokens are in use but could not be saved: if the process ends now, they are lost.
    #[non_exhaustive]
    NotSaved {
        /// Why.
        error: Error,
    },
    /// A refresh failed. [`Error::retry_after`] says when the next one is tried at the earliest.
    #[non_exhaustive]
    RefreshFailed {
        /// Why.
        error: Error,
    },
    /// There is a new token set: refreshed, adopted from another process, or from the login hook.
    #[non_exhaustive]
    Refreshed {
        /// Its number.
        generation: Generation,
        /// When its access token ends, if that is known.
        expires_at: Option<SystemTime>,
    },
    /// The store holds the current token set.
    Saved,
}

/// What happens to a session, as it happens. Made by [`Session::events`](crate::Session::events).
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver }
    }

    /// Waits for the next event; `None` when the session is gone. A receiver that is more than 64
    /// events behind misses the oldest.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
