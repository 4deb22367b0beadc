//! A command-line client: log in once, then use it from as many shells at once as you like.
//!
//! ```text
//! cargo run --features file --example cli             # shows it, with a server of its own
//! cargo run --features file --example cli -- serve    # only that server, until Ctrl-C; then, elsewhere:
//! cargo run --features file --example cli -- login
//! cargo run --features file --example cli -- get /orders
//! ```
//!
//! Each run is a process of its own. They share the tokens by a file, and so they share the refresh.
//! This file is the client; `server.rs` and `demo.rs` are what it takes to watch it.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use reqwest_refresh::{
    ClientAuth, Error, FileStore, Provider, RefreshFailure, Session, TokenEndpoint, TokenStore,
};
use serde::Deserialize;
use tokio::time::sleep;

mod demo;
#[path = "../support/loopback.rs"]
#[allow(dead_code)] // there is more in it than this needs
mod loopback;
mod server;

const USAGE: &str = "\
usage: cli [--server URL] [--file PATH] COMMAND

  login      log in, with a browser
  get PATH   GET a path of the API
  status     tell whether somebody is logged in
  logout     revoke the tokens and forget them
  serve      be the server, on loopback, until Ctrl-C
  demo       show all of it; this is what happens without a command

--server  defaults to http://127.0.0.1:8087, where `serve` listens
--file    where the tokens are; defaults to a file in your data directory

Exit codes: 0 done, 1 failed, 2 used wrongly, 4 somebody must log in.";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::parse(env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if Error::find(error.as_ref()).is_some_and(Error::is_login_required) => {
            eprintln!("You are not logged in. Run `cli login`.");
            ExitCode::from(LOGIN_REQUIRED)
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// For scripts.
const LOGIN_REQUIRED: u8 = 4;

async fn run(options: Options) -> Result<()> {
    match &options.command {
        Command::Demo => demo::run().await,
        Command::Get(path) => get(&options, path).await,
        Command::LogIn => log_in(&options).await,
        Command::LogOut => Ok(options.session()?.log_out().await?),
        Command::Serve => server::serve().await,
        Command::Status => status(&options).await,
    }
}

async fn get(options: &Options, path: &str) -> Result<()> {
    let session = options.session()?;
    let url = format!("{}{path}", options.server);
    let outcome = loopback::client(session.clone())?.get(url).send().await;
    // First, whatever came of it: a refresh that is still running would end with the process.
    session.settle().await?;
    let response = outcome?;
    let status = response.status();
    println!("{}", response.text().await?);
    ensure!(status.is_success(), "the API answers {status}");
    Ok(())
}

/// Looks, and does nothing: it neither refreshes nor asks the server.
async fn status(options: &Options) -> Result<()> {
    let stored = options.store()?.load().await;
    match stored.map_err(anyhow::Error::from_boxed)? {
        Some(_) => println!("logged in"),
        None => println!("logged out"),
    }
    Ok(())
}

/// The device authorization grant (RFC 8628): the person says yes in a browser, on any machine.
async fn log_in(options: &Options) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let answer = http.post(format!("{}/device", options.server)).send().await?;
    let device: Device = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
    println!("Open {} and enter {}", device.verification_uri, device.user_code);
    let endpoint = options.endpoint()?;
    let tokens = loop {
        sleep(Duration::from_secs(device.interval)).await;
        match endpoint.request(DEVICE_CODE, &[("device_code", &device.device_code)]).await {
            Err(error) if error.failure() == RefreshFailure::Busy => {}
            answer => break answer?,
        }
    };
    options.session()?.set_tokens(tokens).await?;
    println!("You are logged in.");
    Ok(())
}

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// RFC 8628 §3.5: "the client MUST wait" in the meantime.
const PROVIDER: Provider =
    Provider::rfc6749().with_codes(&[("authorization_pending", RefreshFailure::Busy)]);

/// RFC 8628 §3.2.
#[derive(Deserialize)]
struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default = "five")]
    interval: u64,
}

fn five() -> u64 {
    5
}

struct Options {
    server: String,
    file: Option<PathBuf>,
    command: Command,
}

enum Command {
    Demo,
    Get(String),
    LogIn,
    LogOut,
    Serve,
    Status,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut server, mut file) = (format!("http://{}", server::ADDRESS), None);
        let command = loop {
            break match arguments.next().as_deref() {
                Some("--server") => {
                    server = arguments.next()?;
                    continue;
                }
                Some("--file") => {
                    file = Some(arguments.next()?.into());
                    continue;
                }
                None | Some("demo") => Command::Demo,
                Some("get") => Command::Get(arguments.next().filter(|path| path.starts_with('/'))?),
                Some("login") => Command::LogIn,
                Some("logout") => Command::LogOut,
                Some("serve") => Command::Serve,
                Some("status") => Command::Status,
                Some(_) => return None,
            };
        };
        arguments.next().is_none().then_some(Self { server, file, command })
    }

    fn session(&self) -> Result<Session> {
        Ok(Session::builder(self.endpoint()?).store(self.store()?).build()?)
    }

    fn endpoint(&self) -> Result<TokenEndpoint> {
        let url = |path| format!("{}{path}", self.server);
        let endpoint = TokenEndpoint::new(&url("/token"), ClientAuth::none("cli"))?;
        Ok(endpoint.with_revocation_url(&url("/revoke"))?.with_provider(PROVIDER))
    }

    fn store(&self) -> Result<FileStore> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => data_directory()?.join("reqwest-refresh-cli/tokens.json"),
        };
        Ok(FileStore::new(file))
    }
}

/// Where programs keep what is the user's. There are crates that know more systems.
fn data_directory() -> Result<PathBuf> {
    let named = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(directory) = named("XDG_DATA_HOME").or_else(|| named("LOCALAPPDATA")) {
        return Ok(directory);
    }
    let Some(home) = env::home_dir() else { bail!("there is no home directory; use --file") };
    Ok(home.join(if cfg!(target_os = "macos") {
        "Library/Application Support"
    } else {
        ".local/share"
    }))
}
