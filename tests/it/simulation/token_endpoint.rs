use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use reqwest::Url;
use reqwest_refresh::{Provider, Refresh, RefreshError, RefreshFailure, TokenSet};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::simulation::faults::Fault;
use crate::simulation::machine::EPOCH;
use crate::simulation::oracle::SessionId;
use crate::simulation::server::{Redeemed, Rt, access_token, number, refresh_token};
use crate::simulation::world::World;

/// The token endpoint as one session sees it: no wire, but all that can go wrong on one. The answers
/// are read by the crate.
pub struct TokenEndpoint {
    pub world: Arc<World>,
    pub session: SessionId,
    pub account: usize,
}

/// What comes back.
#[derive(Debug)]
enum Wire {
    Answer {
        status: u16,
        headers: HeaderMap,
        body: String,
        /// The pause that the server asks for.
        wish: Option<Duration>,
        /// The refresh token that is in it.
        gave: Option<Rt>,
        /// Whether the server has really refused the refresh token.
        refuses: bool,
    },
    Lost,
    NoConnection,
}

/// Whoever answers first.
#[derive(Clone)]
struct Reply(Arc<Mutex<Option<oneshot::Sender<Wire>>>>);

/// For how long one attempt waits.
const PATIENCE: Duration = Duration::from_secs(15);

#[async_trait]
impl Refresh for TokenEndpoint {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        let world = &self.world;
        let attempt = world.sends_refresh_token(self.session, tokens);
        world.stumble().await;
        let (sender, answer) = oneshot::channel();
        self.send(number(tokens.refresh_token().unwrap_or_default()), Reply::new(sender));
        let failed = |failure, why| (Err(RefreshError::new(failure, why)), None, None, false);
        let (result, wish, gave, refuses) = match answer.await.unwrap_or(Wire::Lost) {
            Wire::Answer { status, headers, body, wish, gave, refuses } => {
                let status = StatusCode::from_u16(status).unwrap();
                let secrets = [tokens.access_token(), tokens.refresh_token().unwrap_or_default()];
                let read = self.provider().read_answer(status, &headers, body.as_bytes(), &secrets);
                (read, wish, gave, refuses)
            }
            Wire::Lost => failed(RefreshFailure::Lost, "no answer"),
            Wire::NoConnection => failed(RefreshFailure::NotSent, "unreachable"),
        };
        attempt.ends(&result, wish, gave, refuses);
        result
    }

    async fn revoke(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        let world = &self.world;
        world.stumble().await;
        world.sleep(world.millis(1, 200)).await;
        let is_reached = !world.server().is_down && !world.strikes(Fault::Unreachable);
        if !is_reached {
            return Err(RefreshError::new(RefreshFailure::NotSent, "unreachable"));
        }
        if let Some(token) = tokens.refresh_token() {
            world.server().revoke(number(token));
        }
        Ok(())
    }

    fn endpoints(&self) -> Vec<Url> {
        vec!["https://login.test/token".parse().unwrap()]
    }

    fn provider(&self) -> Provider {
        match self.world.plan.accounts[self.account].is_digirunner {
            true => Provider::digirunner(),
            false => Provider::rfc6749(),
        }
    }
}

impl TokenEndpoint {
    fn send(&self, sent: usize, reply: Reply) {
        let world = &self.world;
        let late = reply.clone();
        world.later(PATIENCE, move || late.send(Wire::Lost));
        world.disturb(self.session);
        let there = self.latency();
        if world.strikes(Fault::Unreachable) {
            return world.later(there, move || reply.send(Wire::NoConnection));
        }
        if world.strikes(Fault::RequestLost) {
            return;
        }
        let (account, arrived) = (self.account, Arc::clone(world));
        let back = self.latency();
        world.later(there, move || {
            let starts = arrived.server().starts;
            let Some(answer) = arrive(&arrived, account, sent) else { return };
            let on_its_way = Arc::clone(&arrived);
            arrived.later(back, move || {
                // A server that ends takes its connections along.
                let is_cut = on_its_way.server().starts != starts;
                reply.send(if is_cut { Wire::Lost } else { answer });
            });
        });
    }

    fn latency(&self) -> Duration {
        match self.world.strikes(Fault::SlowServer) {
            true => self.world.millis(1_000, 12_000),
            false => self.world.millis(1, 150),
        }
    }
}

/// What the server does with a refresh token. `None`: it never answers.
fn arrive(world: &Arc<World>, account: usize, sent: usize) -> Option<Wire> {
    if world.server().is_down {
        return Some(Wire::NoConnection);
    }
    if let Some(answer) = refuse_to_look(world) {
        return Some(answer);
    }
    let plan = &world.plan.accounts[account];
    let redeemed = world.server().redeem(sent, plan, world.now());
    world.note(format_args!("server: rt-{sent} -> {redeemed:?}"));
    world.server_has_redeemed(sent, redeemed);
    match redeemed {
        Redeemed::Refused | Redeemed::Reused => Some(invalid_grant(world, sent)),
        Redeemed::Traded(at, rt) => traded(world, account, at, rt),
    }
}

/// What a server, or what stands before it, answers without having looked at the token.
fn refuse_to_look(world: &World) -> Option<Wire> {
    let dead = json!({"error": "invalid_grant"}).to_string();
    let busy = || {
        let status = world.choose(&[429, 503, 503, 408, 425]);
        let (headers, wish) = retry_after(world);
        let body = world.choose(&["", "<h1>Back soon</h1>", "{\"error\":\"invalid_grant\"}"]);
        Wire::Answer { status, headers, body: body.to_owned(), wish, gave: None, refuses: false }
    };
    Some(match world.first_of(BEFORE)? {
        Fault::Busy => busy(),
        Fault::BadGateway => answer(world.choose(&[502, 504]), dead),
        Fault::ServerError => answer(world.choose(&[500, 501, 599]), dead),
        Fault::Html => answer(world.choose(&[200, 400, 403, 404]), "<html>proxy</html>"),
        Fault::ErrorInSuccess => answer(200, json!({"error": "server_error"}).to_string()),
        _ => answer(401, json!({"error": "invalid_client"}).to_string()),
    })
}

const BEFORE: &[Fault] = &[
    Fault::Busy,
    Fault::BadGateway,
    Fault::ServerError,
    Fault::Html,
    Fault::ErrorInSuccess,
    Fault::ClientRefused,
];

/// In seconds, or as a date.
fn retry_after(world: &World) -> (HeaderMap, Option<Duration>) {
    let mut headers = HeaderMap::new();
    let wish = Duration::from_secs(world.below(90) as u64);
    if world.strikes(Fault::RetryAfter) {
        headers.insert("retry-after", HeaderValue::from(wish.as_secs()));
    } else if world.strikes(Fault::RetryAfterDate) {
        let now = SystemTime::UNIX_EPOCH + EPOCH + Duration::from_secs(world.now().as_secs());
        let date = |time| HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap();
        headers.insert("date", date(now));
        headers.insert("retry-after", date(now + wish));
    } else {
        return (headers, None);
    }
    (headers, Some(wish))
}

fn invalid_grant(world: &World, sent: usize) -> Wire {
    let description = match world.strikes(Fault::EchoedToken) {
        true => format!("Invalid refresh token: {}", refresh_token(sent)),
        false => "Token is not active".to_owned(),
    };
    let body = json!({"error": "invalid_grant", "error_description": description}).to_string();
    let headers = HeaderMap::new();
    Wire::Answer { status: 400, headers, body, wish: None, gave: None, refuses: true }
}

fn traded(world: &World, account: usize, at: usize, rt: usize) -> Option<Wire> {
    let plan = &world.plan.accounts[account];
    let lifetime = plan.lifetime.as_secs();
    let mut body = json!({
        "access_token": access_token(at),
        "token_type": "Bearer",
        "expires_in": lifetime,
    });
    if plan.rotates {
        body["refresh_token"] = refresh_token(rt).into();
    }
    if world.strikes(Fault::NoLifetime) {
        body["expires_in"] = Value::Null;
    } else if world.strikes(Fault::OddLifetime) {
        body["expires_in"] = world.choose(&["", "soon", "0"]).into();
    }
    Some(match world.first_of(AFTERWARDS) {
        None => answer(200, body.to_string()),
        Some(Fault::AnswerHangs) => return None,
        Some(Fault::AnswerLost) => Wire::Lost,
        Some(Fault::BadGatewayAfterwards) => answer(world.choose(&[502, 504]), "bad gateway"),
        Some(Fault::UnusableWithToken) => {
            body["access_token"] = Value::Null;
            let (headers, body) = (HeaderMap::new(), body.to_string());
            let gave = plan.rotates.then_some(rt);
            Wire::Answer { status: 200, headers, body, wish: None, gave, refuses: false }
        }
        Some(_) => {
            let whole = body.to_string();
            let half = whole.len() / 2;
            answer(200, &whole[..half])
        }
    })
}

const AFTERWARDS: &[Fault] = &[
    Fault::AnswerHangs,
    Fault::AnswerLost,
    Fault::BadGatewayAfterwards,
    Fault::UnusableWithToken,
    Fault::Garbage,
];

fn answer(status: u16, body: impl Into<String>) -> Wire {
    let (headers, body) = (HeaderMap::new(), body.into());
    Wire::Answer { status, headers, body, wish: None, gave: None, refuses: false }
}

impl Reply {
    fn new(sender: oneshot::Sender<Wire>) -> Self {
        Self(Arc::new(Mutex::new(Some(sender))))
    }

    fn send(&self, wire: Wire) {
        if let Some(sender) = self.0.lock().take() {
            let _ = sender.send(wire);
        }
    }
}
