//! The same session, with a real gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Error, Result};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{Session, TokenEndpoint, TokenSet};
use tokio::task::JoinSet;

use crate::options::Options;
use crate::timeline::{Timeline, watch};

/// So many requests are under way at once.
const AT_ONCE: usize = 10;

/// Sends requests, forces a refresh, sends the rest. Whether all of it went well: whatever the API
/// answers is well, but for 401 and 403.
pub(crate) async fn run(options: &Options) -> Result<bool> {
    let timeline = Timeline::start();
    let secret = options.secret.as_deref();
    let endpoint = TokenEndpoint::digirunner(&options.url, &options.client_id, secret)?;
    let tokens = TokenSet::new(&*options.access).with_refresh_token(&*options.refresh);
    let session = Session::builder(endpoint).tokens(tokens).build()?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20));
    let client =
        reqwest_middleware::ClientBuilder::new(http.build()?).with(session.clone()).build();
    let seen = watch(session.events(), timeline.clone());
    let url = format!("{}{}", options.url.trim_end_matches('/'), options.path);

    let mut outcomes = BTreeMap::new();
    let first_half = options.count.div_ceil(2);
    get(&client, &url, first_half, &mut outcomes).await;
    timeline.say(&format!("{first_half} requests sent"));
    let refreshed = session.refresh().await;
    match &refreshed {
        Ok(_) => timeline.say("a refresh was forced, and the gateway gave new tokens"),
        Err(error) => timeline.say(&format!("a refresh was forced: {error}")),
    }
    let second_half = options.count - first_half;
    get(&client, &url, second_half, &mut outcomes).await;
    timeline.say(&format!("{second_half} requests sent"));
    session.settle().await?;
    drop((session, client));
    let seen = seen.await?;

    println!();
    let mut broken = Vec::new();
    for (outcome, times) in &outcomes {
        let outcome = timeline.checked(outcome);
        println!("{times:5} x {outcome}");
        let is_answer = outcome.as_bytes().first().is_some_and(u8::is_ascii_digit);
        if !is_answer || outcome.starts_with("401") || outcome.starts_with("403") {
            broken.push(format!("{times} requests ended with: {outcome}"));
        }
    }
    println!("{:5} x new tokens", seen.refreshed);
    if let Err(error) = refreshed {
        let error = format!("the forced refresh failed: {error}");
        broken.push(timeline.checked(&error).to_owned());
    } else if seen.refreshed == 0 {
        broken.push("the session did not announce the forced refresh".to_owned());
    }
    if timeline.leaks() > 0 {
        broken.push(format!("{} texts had a token in them", timeline.leaks()));
    }
    if broken.is_empty() {
        println!("\nAll is well.");
        return Ok(true);
    }
    eprintln!("\nIt broke:");
    for line in &broken {
        eprintln!("- {line}");
    }
    Ok(false)
}

/// Sends `count` requests, and notes how often each ended how: with a status, or with an error.
async fn get(
    client: &ClientWithMiddleware,
    url: &str,
    count: usize,
    outcomes: &mut BTreeMap<String, usize>,
) {
    let mut requests = JoinSet::new();
    for number in 0..count {
        if number >= AT_ONCE {
            note(requests.join_next().await, outcomes);
        }
        let request = client.get(url);
        requests.spawn(async move {
            match request.send().await {
                Ok(response) => response.status().to_string(),
                Err(error) => format!("{:#}", Error::from(error)),
            }
        });
    }
    while !requests.is_empty() {
        note(requests.join_next().await, outcomes);
    }
}

fn note(
    ended: Option<Result<String, tokio::task::JoinError>>,
    outcomes: &mut BTreeMap<String, usize>,
) {
    let outcome = match ended {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => error.to_string(),
        None => return,
    };
    *outcomes.entry(outcome).or_default() += 1;
}
