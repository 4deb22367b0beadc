//! What the small examples share: a server on loopback, requests to it, and promises kept.

use anyhow::{Result, ensure};
use axum::Router;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use reqwest_middleware::{ClientWithMiddleware, Middleware, RequestBuilder};
use reqwest_refresh::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves this on a port of loopback. Its URL, and its task.
pub(crate) async fn serve(router: Router) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let serving = async move { axum::serve(listener, router).await.unwrap_or_default() };
    Ok((url, tokio::spawn(serving)))
}

/// A client with a session, or many, as its middleware.
pub(crate) fn client(sessions: impl Middleware) -> Result<ClientWithMiddleware> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(reqwest_middleware::ClientBuilder::new(http).with(sessions).build())
}

/// What so many requests at once come to.
pub(crate) async fn get(client: &ClientWithMiddleware, url: &str, count: usize) -> String {
    outcomes((0..count).map(|_| client.get(url))).await
}

/// What these requests at once come to: their statuses, or what kind of error.
pub(crate) async fn outcomes(requests: impl Iterator<Item = RequestBuilder>) -> String {
    let requests: Vec<_> = requests.map(|request| tokio::spawn(request.send())).collect();
    let mut outcomes = Vec::new();
    for request in requests {
        outcomes.push(match request.await {
            Ok(Ok(response)) => response.status().as_u16().to_string(),
            Ok(Err(error)) => match Error::find(&error) {
                Some(error) => error.kind().to_string(),
                None => error.to_string(),
            },
            Err(error) => error.to_string(),
        });
    }
    outcomes.join(" ")
}

/// What an API answers whose only good token is this.
pub(crate) fn judge(headers: &HeaderMap, good: &str) -> StatusCode {
    let expected = format!("Bearer {good}");
    match headers.get(AUTHORIZATION).is_some_and(|value| *value == expected) {
        true => StatusCode::OK,
        false => StatusCode::UNAUTHORIZED,
    }
}

/// Says what happened, and fails if it is not what was promised.
pub(crate) fn tell(when: &str, then: &str, promised: &str) -> Result<()> {
    println!("{when:<46}{then}");
    ensure!(then == promised, "promised was: {promised}");
    Ok(())
}
