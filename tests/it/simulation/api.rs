use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::simulation::faults::Fault;
use crate::simulation::oracle::Told;
use crate::simulation::server::{At, access_token};
use crate::simulation::world::World;
use crate::support::fed_body;

pub const API: &str = "https://api.test/orders/";
pub const STRANGER: &str = "https://stranger.test/orders/";

/// The API, and all other hosts: what stands below a session.
pub struct Api {
    pub world: Arc<World>,
    pub account: usize,
}

/// What goes wrong with a connection.
#[derive(Debug)]
struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// An answer on its way back.
struct Reply {
    told: Told,
    status: u16,
    challenge: Option<&'static str>,
    json: bool,
    body: String,
    from: Url,
}

#[async_trait]
impl Middleware for Api {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        let world = &self.world;
        let id = request.url().path().rsplit('/').next().unwrap().parse().unwrap();
        let brought = {
            let server = world.server();
            world.oracle().arrives(id, &request, &server)
        };
        world.note(format_args!("request {id} goes out with {brought:?}"));
        world.stumble().await;
        let patience = request.timeout().copied().unwrap_or(Duration::from_secs(60));
        let broken = |why| Err(Error::middleware(Broken(why)));
        if world.strikes(Fault::ApiUnreachable) {
            world.sleep(world.millis(1, 2_000).min(patience)).await;
            return broken("unreachable");
        }
        let latency = self.latency();
        if world.strikes(Fault::ApiHangs) || latency >= patience {
            world.sleep(patience).await;
            return broken("timeout");
        }
        let there = latency.mul_f64(0.5);
        world.sleep(there).await;
        if world.server().is_down {
            return broken("reset");
        }
        let reply = self.answer(&request, brought);
        world.sleep(latency - there).await;
        world.note(format_args!("request {id} is told {:?}", reply.told));
        world.oracle().is_told(id, reply.told, brought);
        Ok(self.response(reply))
    }
}

impl Api {
    fn latency(&self) -> Duration {
        match self.world.strikes(Fault::SlowApi) {
            true => self.world.millis(500, 20_000),
            false => self.world.millis(1, 200),
        }
    }

    fn answer(&self, request: &Request, brought: Option<At>) -> Reply {
        let world = &self.world;
        let (is_accepted, is_storm) = {
            let server = world.server();
            let is_accepted = brought.is_some_and(|at| server.accepts(at, world.now()));
            (is_accepted, server.is_storm)
        };
        let status = |status| Reply {
            told: Told::Status(status),
            status,
            challenge: None,
            json: false,
            body: String::new(),
            from: request.url().clone(),
        };
        if brought.is_none() || request.url().as_str().starts_with(STRANGER) {
            return status(world.choose(&[200, 401]));
        }
        if is_storm || !is_accepted || world.strikes(Fault::SpuriousRejection) {
            return self.rejection(status(401), brought.unwrap_or_default());
        }
        match world.first_of(&[
            Fault::ApiDown,
            Fault::Forbidden,
            Fault::OtherChallenge,
            Fault::Redirected,
        ]) {
            Some(Fault::ApiDown) => status(world.choose(&[500, 503])),
            Some(Fault::Forbidden) => {
                let body = r#"{"error":"not_yours"}"#.to_owned();
                Reply { body, json: true, ..status(403) }
            }
            Some(Fault::OtherChallenge) => {
                let challenge = Some(r#"Bearer error="insufficient_scope""#);
                Reply { challenge, ..status(401) }
            }
            Some(_) => Reply { from: STRANGER.parse().unwrap(), ..status(401) },
            None => status(200),
        }
    }

    /// The token is not accepted; digiRunner may say it by a 403.
    fn rejection(&self, reply: Reply, brought: At) -> Reply {
        let world = &self.world;
        let body = format!(r#"{{"error":"invalid_token","token":"{}"}}"#, access_token(brought));
        let says_403 = world.plan.accounts[self.account].is_digirunner && world.chance(50);
        match says_403 {
            true => Reply { told: Told::Rejected(403), status: 403, body, json: true, ..reply },
            false => {
                let challenge = world.chance(50).then_some(r#"Bearer error="invalid_token""#);
                Reply { told: Told::Rejected(401), challenge, body, ..reply }
            }
        }
    }

    fn response(&self, reply: Reply) -> Response {
        let mut response = http::Response::builder().status(reply.status).url(reply.from);
        if let Some(challenge) = reply.challenge {
            response = response.header("www-authenticate", challenge);
        }
        if reply.json {
            response = response.header("content-type", "application/json");
        }
        let is_endless = !reply.json && self.world.strikes(Fault::SlowApi);
        let body = match is_endless {
            true => {
                let (feed, body) = fed_body();
                self.world.later(Duration::from_secs(3600), move || drop(feed));
                body
            }
            false => Body::from(reply.body),
        };
        response.body(body).unwrap().into()
    }
}
