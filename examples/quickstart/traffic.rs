//! The requests of the example.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::Session;
use tokio::task::JoinSet;

use crate::timeline::Timeline;

/// Many requests at once.
pub(crate) const BURST: usize = 200;

/// Between two waves.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends requests, many at once, and counts what comes back.
pub(crate) struct Traffic {
    session: Session,
    client: ClientWithMiddleware,
    base: String,
    timeline: Timeline,
    reported: usize,
    outcome: Outcome,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    /// Of the first request that failed.
    pub(crate) failure: Option<String>,
}

impl Traffic {
    pub(crate) fn new(
        session: Session,
        client: ClientWithMiddleware,
        base: String,
        timeline: Timeline,
    ) -> Self {
        Self { session, client, base, timeline, reported: 0, outcome: Outcome::default() }
    }

    /// Sends so many requests at once and waits for all of them. In a burst every fourth is to a
    /// slow API, which answers when a refresh for the others is long over.
    pub(crate) async fn wave(&mut self, size: usize) {
        let mut requests = JoinSet::new();
        for number in 0..size {
            let is_slow = size >= BURST && number % 4 == 0;
            let path = if is_slow { "/slow/orders" } else { "/api/orders" };
            let request = self.client.get(format!("{}{path}", self.base));
            requests.spawn(async move {
                let response = request.send().await?.error_for_status()?;
                response.bytes().await?;
                Ok::<_, Error>(())
            });
        }
        while let Some(result) = requests.join_next().await {
            match result.map_err(Error::from).and_then(|result| result) {
                Ok(()) => self.outcome.answered += 1,
                Err(error) => self.outcome.note(format!("{error:#}")),
            }
        }
    }

    /// Sends wave after wave until `done` says that `what` has happened, for a bounded time.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        const LONGEST: Duration = Duration::from_secs(12);
        let start = Instant::now();
        while !done() {
            if start.elapsed() > LONGEST {
                self.report().await?;
                bail!("waited {LONGEST:?} in vain for {what}");
            }
            self.wave(10).await;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Ends a chapter: prints what came back since the last one, after what the session says.
    pub(crate) async fn report(&mut self) -> Result<()> {
        self.session.settle().await?;
        tokio::time::sleep(PAUSE).await;
        let Outcome { answered, failed, .. } = self.outcome;
        let new = answered + failed - self.reported;
        self.reported += new;
        let text = format!("{new} requests; of all {} so far, {failed} failed", self.reported);
        self.timeline.say(&text);
        Ok(())
    }

    /// Lets go of the client and the session.
    pub(crate) fn finish(self) -> Outcome {
        self.outcome
    }
}

impl Outcome {
    fn note(&mut self, failure: String) {
        self.failed += 1;
        self.failure.get_or_insert(failure);
    }
}
