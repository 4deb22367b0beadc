//! Opening a session: once for everybody who waits for it.

use std::hash::Hash;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::accounts::Inner;
use crate::error::{Error, ErrorKind};
use crate::session::Session;

/// How the opening of a session ended, if it has.
pub(crate) type Opened = Option<Result<Session, Error>>;

tokio::task_local! {
    /// What this task opens: who waits for it in here waits for itself.
    static INSIDE: watch::Receiver<Opened>;
}

/// An error for who would wait, while a session is being `opened`, for that session.
pub(super) fn refuse_reentry(opened: &watch::Receiver<Opened>) -> Result<(), Error> {
    match INSIDE.try_with(|inside| inside.same_channel(opened)) {
        Ok(true) => {
            let message = "opening the account's session waits for itself";
            Err(Error::new(ErrorKind::Reentrant, message))
        }
        _ => Ok(()),
    }
}

/// A session that is being opened. Ends, and makes room, whatever happens to its task.
pub(super) struct Opening<K: Clone + Eq + Hash> {
    inner: Arc<Inner<K>>,
    account: K,
    outcome: watch::Sender<Opened>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Opening<K> {
    pub(super) fn new(inner: Arc<Inner<K>>, account: K) -> (Self, watch::Sender<Opened>) {
        let outcome = watch::Sender::new(None);
        (Self { inner, account, outcome: outcome.clone() }, outcome)
    }

    /// Goes on in a task: who is the first to need the session may go away.
    pub(super) fn start(self) {
        // Without a runtime it is dropped, and thereby ends with an error.
        if let Ok(runtime) = Handle::try_current() {
            let inside = self.outcome.subscribe();
            runtime.spawn(INSIDE.scope(inside, async move {
                let result = self.open().await;
                self.end(result);
            }));
        }
    }

    async fn open(&self) -> Result<Session, Error> {
        let (inner, settings) = (&self.inner, &self.inner.settings);
        let error = |why, source| {
            let message = format!("the account's session could not be opened{why}");
            Error::with_source(ErrorKind::Store, message, source)
        };
        let opening = (inner.open)(self.account.clone(), inner.sessions.clone());
        match settings.clock.timeout(settings.store_timeout(), opening).await {
            Some(Ok(builder)) => builder.build(),
            Some(Err(source)) => Err(error("", Some(source.into()))),
            None => Err(error(" in time", None)),
        }
    }
}

impl<K: Clone + Eq + Hash> Opening<K> {
    fn end(&self, result: Result<Session, Error>) {
        let _evicted = match &result {
            Ok(session) => self.inner.open(self.account.clone(), session.clone()),
            Err(_) => {
                self.inner.shard(&self.account).lock().entries.remove(&self.account);
                Vec::new()
            }
        };
        self.outcome.send_replace(Some(result));
    }
}

impl<K: Clone + Eq + Hash> Drop for Opening<K> {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            let message = "opening the account's session panicked, or there is no Tokio runtime";
            self.end(Err(Error::new(ErrorKind::Interrupted, message)));
        }
    }
}
