//! A session at work, to watch: `cargo run --example quickstart`.
//!
//! Nothing needs to be installed. A gateway that behaves like digiRunner is part of the example; it
//! hands out tokens that live for seconds, revokes them, fails, and ends the session. The client
//! sends requests all the time and must never notice. At the end the gateway's counters are compared
//! with what the client saw: status 0 if everything agrees, 1 and a list if not.
//!
//! Against a real gateway, with tokens that you have:
//!
//! ```text
//! cargo run --example quickstart -- --url https://gateway.example.com --client-id tspclient \
//!     --secret tsp123abcd --access "$ACCESS_TOKEN" --refresh "$REFRESH_TOKEN" --path /api/orders
//! ```

#![allow(clippy::disallowed_methods)] // an application asks the time where it likes

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use reqwest_refresh::{Session, TokenEndpoint};

use crate::gateway::{Config, Gateway};
use crate::login::Login;
use crate::options::{Choice, Options};
use crate::reckoning::Reckoning;
use crate::story::{SHORT, Story};
use crate::timeline::{Timeline, watch};
use crate::traffic::Traffic;

mod gateway;
mod login;
mod options;
mod real;
mod reckoning;
mod story;
mod timeline;
mod traffic;

/// Whatever goes wrong, the run ends.
const LONGEST_RUN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let run = async {
        match Options::parse(std::env::args().skip(1))? {
            Choice::Embedded => embedded().await,
            Choice::Help => {
                println!("{}", options::USAGE);
                Ok(true)
            }
            Choice::Real(options) => real::run(&options).await,
        }
    };
    match tokio::time::timeout(LONGEST_RUN, run).await {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("It broke: {error:#}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("It broke: not done after {LONGEST_RUN:?}; something hangs.");
            ExitCode::FAILURE
        }
    }
}

/// The whole story with the gateway that is part of the example. Whether everything agrees.
async fn embedded() -> Result<bool> {
    let gateway = Gateway::start(Config {
        access_validity: SHORT,
        token_delay: Duration::from_millis(100),
        ..Config::default()
    })
    .await?;
    let timeline = Timeline::start();
    println!("A gateway that behaves like digiRunner listens on {}\n", gateway.url());

    let login = Login::new(gateway.url(), &Config::default())?;
    let first_tokens = login.log_in().await?;
    timeline.say("logged in, with user name and password");

    // ---- This is all that an application has to do. -------------------------------------------
    let endpoint = TokenEndpoint::digirunner(&gateway.url(), "tspclient", Some("tsp123abcd"))?;
    let session = Session::builder(endpoint.with_http(direct())?)
        .tokens(first_tokens)
        .on_login_required(move |_why| login.clone().log_in_again())
        .jitter(0.0) // one process alone: nobody to spread over
        .build()?;
    let client =
        reqwest_middleware::ClientBuilder::new(direct().build()?).with(session.clone()).build();
    // ---- From here on: `client.get(url).send().await?`, and never a thought about tokens. -----

    let seen = watch(session.events(), timeline.clone());
    let mut traffic = Traffic::new(session.clone(), client, gateway.url(), timeline.clone());
    let mut reckoning = Reckoning::default();
    let mut story = Story {
        gateway: &gateway,
        traffic: &mut traffic,
        timeline: &timeline,
        reckoning: &mut reckoning,
    };
    if let Err(error) = story.tell().await {
        reckoning.remark(timeline.checked(&format!("{error:#}")));
    }

    timeline.chapter("The end");
    match session.log_out().await {
        Ok(()) => timeline.say("logged out: both tokens revoked"),
        Err(error) => reckoning.remark(timeline.checked(&format!("logging out: {error}"))),
    }
    let outcome = traffic.finish();
    drop(session);
    reckoning.compare(&gateway.counters(), &outcome, &seen.await?, &timeline);
    Ok(reckoning.print())
}

/// A way to loopback that no proxy in the environment disturbs, and on which nothing can hang.
fn direct() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10))
}
