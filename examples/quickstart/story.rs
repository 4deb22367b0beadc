//! What the gateway does to the session, chapter by chapter.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::gateway::Gateway;
use crate::reckoning::Reckoning;
use crate::timeline::Timeline;
use crate::traffic::{BURST, Traffic};

const SECOND: Duration = Duration::from_secs(1);

/// How long access tokens live that are there to be refreshed.
pub(crate) const SHORT: Duration = Duration::from_secs(3);

/// How long access tokens live that must outlast something.
const LONG: Duration = Duration::from_secs(9);

/// Everybody who takes part.
pub(crate) struct Story<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) traffic: &'a mut Traffic,
    pub(crate) timeline: &'a Timeline,
    pub(crate) reckoning: &'a mut Reckoning,
}

impl Story<'_> {
    /// All chapters; the first that does not come to its end ends the story.
    pub(crate) async fn tell(&mut self) -> Result<()> {
        self.several_lives().await?;
        self.expiry().await?;
        self.revocation().await?;
        self.outage().await?;
        self.end_of_the_refresh_token().await
    }

    async fn several_lives(&mut self) -> Result<()> {
        let title = "Several lives of 3 seconds: refreshed behind the requests";
        self.timeline.chapter(title);
        let done = || self.gateway.counters().refreshes() >= 3;
        self.traffic.until("three refreshes", done).await?;
        self.traffic.report().await
    }

    async fn expiry(&mut self) -> Result<()> {
        let title = "Nobody asks for a while; then 200 requests at once find a token that is over";
        self.timeline.chapter(title);
        self.gateway.set_access_validity(LONG);
        tokio::time::sleep(SHORT - SECOND / 2).await;
        let what = "refreshes for 200 requests with a token that is over";
        self.burst_of_one_refresh(what).await
    }

    async fn revocation(&mut self) -> Result<()> {
        let title = "An administrator revokes the access token; then 200 requests at once";
        self.timeline.chapter(title);
        self.gateway.revoke_access_tokens();
        let what = "refreshes for 200 requests with a revoked token";
        self.burst_of_one_refresh(what).await
    }

    async fn outage(&mut self) -> Result<()> {
        let title = "The token endpoint is down; requests go on with the token they have";
        self.timeline.chapter(title);
        let turned_away = || self.gateway.counters().token_requests_turned_away;
        self.gateway.set_outage(true);
        let done = || turned_away() >= 3;
        self.traffic.until("three attempts to refresh", done).await?;
        let start = Instant::now();
        self.traffic.wave(BURST).await;
        // Three attempts, and after them at least a second of peace.
        let most = 3 * (1 + start.elapsed().as_secs() as usize);
        let what = "attempts to refresh before the session leaves the gateway alone";
        self.reckoning.at_most(what, most, turned_away());

        self.gateway.set_outage(false);
        self.timeline.say("the token endpoint is up again");
        self.gateway.set_access_validity(SHORT);
        let before = self.gateway.counters().refreshes();
        let done = || self.gateway.counters().refreshes() > before;
        self.traffic.until("a refresh after the outage", done).await?;
        self.traffic.report().await
    }

    async fn end_of_the_refresh_token(&mut self) -> Result<()> {
        let title = "The refresh token comes to its end; the login hook begins a new session";
        self.timeline.chapter(title);
        self.gateway.shorten_refresh_life(SECOND);
        let done = || self.gateway.counters().logins >= 2;
        self.traffic.until("the hook's login", done).await?;
        self.traffic.wave(BURST).await;
        self.traffic.report().await
    }

    /// Many requests that need a new token, and one refresh for all of them.
    async fn burst_of_one_refresh(&mut self, what: &'static str) -> Result<()> {
        let before = self.gateway.counters().refreshes();
        self.traffic.wave(BURST).await;
        let refreshes = self.gateway.counters().refreshes() - before;
        self.reckoning.equal(what, 1, refreshes);
        self.traffic.report().await
    }
}
