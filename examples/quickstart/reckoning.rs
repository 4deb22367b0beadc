//! What the client saw, beside what the gateway counted.

use crate::gateway::Counters;
use crate::timeline::{Seen, Timeline};
use crate::traffic::Outcome;

/// A table of comparisons.
#[derive(Default)]
pub(crate) struct Reckoning {
    rows: Vec<Row>,
    remarks: Vec<String>,
}

struct Row {
    what: &'static str,
    expected: String,
    found: usize,
    agrees: bool,
}

impl Reckoning {
    pub(crate) fn equal(&mut self, what: &'static str, expected: usize, found: usize) {
        self.row(what, expected.to_string(), found, found == expected);
    }

    fn at_least(&mut self, what: &'static str, expected: usize, found: usize) {
        self.row(what, format!(">= {expected}"), found, found >= expected);
    }

    pub(crate) fn at_most(&mut self, what: &'static str, expected: usize, found: usize) {
        self.row(what, format!("<= {expected}"), found, found <= expected);
    }

    fn row(&mut self, what: &'static str, expected: String, found: usize, agrees: bool) {
        self.rows.push(Row { what, expected, found, agrees });
    }

    /// Notes something else that broke.
    pub(crate) fn remark(&mut self, text: &str) {
        self.remarks.push(text.to_owned());
    }

    /// Compares the whole run.
    pub(crate) fn compare(
        &mut self,
        gateway: &Counters,
        outcome: &Outcome,
        seen: &Seen,
        timeline: &Timeline,
    ) {
        let refreshes = gateway.refreshes();
        self.equal("requests that failed", 0, outcome.failed);
        self.equal("requests answered here, served there", outcome.answered, gateway.served);
        self.equal("logins: the first, and one by the hook", 2, gateway.logins);
        self.equal("times the session asked for a login", 1, seen.login_required);
        self.at_least("refreshes", 6, refreshes);
        self.equal(
            "new tokens seen here, refreshes and the hook's login there",
            seen.refreshed,
            refreshes + 1,
        );
        self.equal(
            "most refreshes in one access token's life",
            1,
            gateway.most_refreshes_of_one_life(),
        );
        self.equal(
            "access tokens that were never refreshed: the last of each session",
            2,
            gateway.lives.iter().filter(|refreshes| **refreshes == 0).count(),
        );
        self.equal(
            "access tokens revoked by the administrator",
            1,
            gateway.revoked_by_administrator,
        );
        self.equal(
            "access tokens revoked by a refresh: all others that had one",
            refreshes.saturating_sub(1),
            gateway.revoked_by_refresh,
        );
        self.equal("tokens revoked by logging out", 2, gateway.revoked_by_client);
        self.equal("API calls with a token that was over", 0, gateway.rejected_as_expired);
        self.at_least(
            "API calls with a revoked token, all sent again",
            1,
            gateway.rejected_as_revoked,
        );
        self.equal("API calls without a token of the gateway's", 0, gateway.rejected_otherwise);
        self.at_least("refreshes that failed in the outage", 1, seen.refresh_failed);
        self.equal(
            "token requests refused: the dead refresh token",
            1,
            gateway.token_requests_refused,
        );
        self.equal("texts with a token in them", 0, timeline.leaks());
        if let Some(failure) = &outcome.failure {
            let failure = timeline.checked(failure);
            self.remark(&format!("the first request that failed: {failure}"));
        }
    }

    /// Prints the table and then what broke. Whether everything agrees.
    pub(crate) fn print(&self) -> bool {
        let width = self.rows.iter().map(|row| row.what.len()).max();
        let width = width.unwrap_or_default();
        println!("\n{:width$}  expected  found", "");
        for row in &self.rows {
            let mark = if row.agrees { "" } else { "  <-- broken" };
            println!("{:width$}  {:>8}  {:>5}{mark}", row.what, row.expected, row.found);
        }
        let broken: Vec<_> = self.rows.iter().filter(|row| !row.agrees).collect();
        if broken.is_empty() && self.remarks.is_empty() {
            println!("\nEverything agrees.");
            return true;
        }
        eprintln!("\nIt broke:");
        for row in broken {
            eprintln!("- {}: expected {}, found {}", row.what, row.expected, row.found);
        }
        for remark in &self.remarks {
            eprintln!("- {remark}");
        }
        false
    }
}
