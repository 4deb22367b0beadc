//! What happened, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use reqwest_refresh::{Event, Events};
use tokio::task::JoinHandle;

/// Prints lines with the time of the run in front of them. The only way to the screen for texts
/// that are not our own: a line with a token in it is kept back and counted.
#[derive(Clone)]
pub(crate) struct Timeline {
    start: Instant,
    leaks: Arc<AtomicUsize>,
}

impl Timeline {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), leaks: Arc::default() }
    }

    pub(crate) fn chapter(&self, text: &str) {
        println!();
        self.say(text);
    }

    pub(crate) fn say(&self, text: &str) {
        let time = seconds(self.start.elapsed());
        println!("{time:>7}  {}", self.checked(text));
    }

    /// The text, if there is no token in it.
    pub(crate) fn checked<'a>(&self, text: &'a str) -> &'a str {
        // So begins the base64 of every JSON object, and thereby every JWT.
        if text.contains("eyJ") {
            self.leaks.fetch_add(1, Ordering::Relaxed);
            return "(a text that had a token in it)";
        }
        text
    }

    /// How many texts had a token in them.
    pub(crate) fn leaks(&self) -> usize {
        self.leaks.load(Ordering::Relaxed)
    }
}

/// How often the session said what.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) refreshed: usize,
    pub(crate) refresh_failed: usize,
    pub(crate) login_required: usize,
}

/// Prints what the session says, until all of its clones are gone.
pub(crate) fn watch(mut events: Events, timeline: Timeline) -> JoinHandle<Seen> {
    tokio::spawn(async move {
        let mut seen = Seen::default();
        while let Some(event) = events.next().await {
            timeline.say(&format!("    {}", seen.note(&event)));
        }
        seen
    })
}

impl Seen {
    /// Counts an event, and says it in words.
    fn note(&mut self, event: &Event) -> String {
        match event {
            Event::LoginDue { at, .. } => {
                format!("a login is due: the refresh token ends in {}", until(*at))
            }
            Event::LoginRequired { reason, .. } => {
                self.login_required += 1;
                format!("login required: {}", reason.explain())
            }
            Event::Refreshed { generation, expires_at, .. } => {
                self.refreshed += 1;
                let end = expires_at.map_or_else(|| "an unknown time".into(), until);
                format!("tokens no. {generation}, good for {end}")
            }
            Event::RefreshFailed { error, .. } => {
                self.refresh_failed += 1;
                let wait = error.retry_after().unwrap_or_default();
                format!("refresh failed: {error}; next try in {}", seconds(wait))
            }
            other => format!("{other:?}"),
        }
    }
}

fn until(end: SystemTime) -> String {
    let left = end.duration_since(SystemTime::now());
    seconds(left.unwrap_or_default())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
