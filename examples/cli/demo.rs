//! The client, watched: every line is a run of this program, or eight at once.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::loopback;
use crate::server::Server;

pub(crate) async fn run() -> Result<()> {
    let server = Server::default();
    let (url, _) = loopback::serve(server.clone().router()).await?;
    let folder = tempfile::tempdir()?;
    let shell = Shell { url, file: folder.path().join("tokens.json") };

    shell.run("get /orders", 1, "exit code 4: log in").await?;
    shell.run("login", 1, "exit code 0").await?;
    println!("… the access token of the login lives for a second …");
    sleep(Duration::from_millis(1100)).await;
    shell.run("get /orders", 8, "exit code 0").await?;
    loopback::tell("what the server saw", &server.told(), "1 refresh, 0 tokens that came twice")?;
    shell.run("logout", 1, "exit code 0").await?;
    shell.run("get /orders", 1, "exit code 4: log in").await
}

/// Runs this program.
struct Shell {
    url: String,
    file: PathBuf,
}

impl Shell {
    /// So many copies at once, all with the same outcome.
    async fn run(&self, command: &str, copies: usize, promised: &str) -> Result<()> {
        let mut runs = Vec::new();
        for _ in 0..copies {
            let mut program = Command::new(env::current_exe()?);
            program.args(["--server", &self.url, "--file"]).arg(&self.file);
            program.args(command.split(' ')).kill_on_drop(true);
            runs.push(tokio::spawn(timeout(Duration::from_secs(30), program.output())));
        }
        for (copy, run) in runs.into_iter().enumerate() {
            let output = run.await?.context("this takes too long")??;
            let outcome = match output.status.code() {
                Some(0) => "exit code 0".into(),
                Some(4) => "exit code 4: log in".into(),
                _ => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
            };
            let said = [output.stdout, output.stderr].concat();
            ensure!(!String::from_utf8_lossy(&said).contains("SECRET"), "a token was printed");
            let which = if copies > 1 { format!(", copy {}", copy + 1) } else { String::new() };
            loopback::tell(&format!("cli {command}{which}"), &outcome, promised)?;
        }
        Ok(())
    }
}
