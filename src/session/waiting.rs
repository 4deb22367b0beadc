//! Waiting for the flight: how far it is, and who may not wait for it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::proto::credential::Credential;
use crate::session::{Inner, Patience};

tokio::task_local! {
    /// Which session's flight this task is: who waits for that flight in here waits for itself.
    static INSIDE: usize;
}

/// How far a flight is.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Landed(Arrival),
    LoggingIn,
    Refreshing,
}

/// What those who waited for a flight get.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Failed(Error),
    /// Tokens were set or cleared: look again.
    Moved,
    /// The store was read: look again.
    Read,
    Refreshed(Arc<Credential>),
}

impl Progress {
    pub(super) fn is_logging_in(&self) -> bool {
        matches!(self, Self::LoggingIn)
    }
}

impl Inner {
    /// Waits for a flight, or until somebody says that it is better to look again.
    pub(super) async fn wait(
        &self,
        flight: &mut watch::Receiver<Progress>,
        patience: &mut Patience,
    ) -> Result<Arrival, Error> {
        self.refuse_reentry()?;
        // NOTE: not `borrow_and_update`: a wake-up between `ask` and here must not be swallowed.
        let is_logging_in = match &*flight.borrow() {
            Progress::Landed(arrival) => return Ok(arrival.clone()),
            Progress::LoggingIn => true,
            Progress::Refreshing => false,
        };
        // The channel cannot close before it has said that the flight landed.
        match is_logging_in {
            true => drop(flight.changed().await),
            false => drop(patience.within(&self.settings.clock, flight.changed()).await?),
        }
        Ok(match &*flight.borrow() {
            Progress::Landed(arrival) => arrival.clone(),
            // Tokens were set or cleared; or it waits for a person now, as only who has no token
            // that is alive does.
            Progress::LoggingIn | Progress::Refreshing => Arrival::Moved,
        })
    }

    /// Runs a part of a flight, or what a flight may have to wait for.
    pub(super) fn inside<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        INSIDE.scope(self.address(), work)
    }

    /// Whether this is called by user code that the session's flight runs: the login hook above all.
    pub(super) fn is_inside(&self) -> bool {
        INSIDE.try_with(|inside| *inside == self.address()).unwrap_or(false)
    }

    /// An error for who would wait, within a flight, for that flight.
    pub(super) fn refuse_reentry(&self) -> Result<(), Error> {
        match self.is_inside() {
            true => {
                let message = "a hook, store or Refresh used the client that waits for it";
                Err(Error::new(ErrorKind::Reentrant, message))
            }
            false => Ok(()),
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
