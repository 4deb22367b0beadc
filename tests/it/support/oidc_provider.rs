use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Url;
use reqwest_refresh::{ClientAuth, TokenEndpoint, TokenSet};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::OnceCell;

/// An authorization server that nobody here wrote, in a process of its own:
/// `tests/oidc-provider/server.mjs`.
///
/// The process ends when this is dropped, and when the test's process does.
pub struct OidcProvider {
    origin: String,
    http: reqwest::Client,
    _process: Child,
    /// Kept open: whoever writes to a closed pipe dies of it.
    _output: BufReader<ChildStdout>,
}

impl OidcProvider {
    /// For how long an access token lives.
    pub const ACCESS_TOKEN: Duration = Duration::from_secs(60);
    /// For how long a refresh token lives.
    pub const REFRESH_TOKEN: Duration = Duration::from_secs(24 * 3600);

    /// A server that knows these clients, by their metadata (RFC 7591 §2).
    pub async fn start(clients: &[Value]) -> Self {
        let settings = json!({
            "clients": clients,
            "ttl": {
                "AccessToken": Self::ACCESS_TOKEN.as_secs(),
                "ClientCredentials": Self::ACCESS_TOKEN.as_secs(),
                "Grant": 30 * 24 * 3600,
                "IdToken": 3600,
                "RefreshToken": Self::REFRESH_TOKEN.as_secs(),
            },
        });
        let mut process = Command::new("node")
            .args(["server.mjs", &settings.to_string()])
            .current_dir(installed().await)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs Node ≥ 20");
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        bounded(output.read_line(&mut port)).await.unwrap();
        let origin = format!("http://127.0.0.1:{}", port.trim().parse::<u16>().unwrap());
        Self { origin, http: reqwest::Client::new(), _process: process, _output: output }
    }

    /// The library's own path, such as `/token` or `/me`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Its token endpoint, with the revocation endpoint.
    pub fn endpoint(&self, auth: ClientAuth) -> TokenEndpoint {
        let endpoint = TokenEndpoint::new(&self.url("/token"), auth).unwrap();
        endpoint.with_revocation_url(&self.url("/token/revocation")).unwrap()
    }

    /// The tokens of a new login of somebody with this client.
    pub async fn log_in(&self, client_id: &str) -> TokenSet {
        let answer = self.door("login", &[("client_id", client_id)]).await;
        TokenSet::from_json(answer.to_string().as_bytes()).unwrap()
    }

    /// Withdraws everything that was granted in the login that this refresh token comes from.
    pub async fn revoke_grant(&self, refresh_token: &str) {
        self.door("revoke_grant", &[("token", refresh_token)]).await;
    }

    /// Takes away one token, of any kind.
    pub async fn revoke_token(&self, token: &str) {
        self.door("revoke_token", &[("token", token)]).await;
    }

    /// Lets time pass for the server.
    pub async fn advance(&self, duration: Duration) {
        self.door("advance", &[("seconds", &duration.as_secs().to_string())]).await;
    }

    /// The private key of a client that signs: `pem` is one, `jwk` the other way to write it.
    pub async fn key(&self, client_id: &str) -> Value {
        self.door("key", &[("client_id", client_id)]).await
    }

    /// What the server saw and did: token requests and their outcome, tokens that its API refused,
    /// grants that it revoked.
    pub async fn log(&self) -> Vec<String> {
        serde_json::from_value(self.door("log", &[]).await).unwrap()
    }

    /// A token request by hand: status and answer.
    pub async fn post(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let url = Url::parse_with_params("form:", form).unwrap();
        let request = self.http.post(self.url("/token"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(url.query().unwrap_or_default().to_owned());
        let response = bounded(request.send()).await.unwrap();
        let status = response.status().as_u16();
        let body = bounded(response.text()).await.unwrap();
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The status with which the API answers to this access token, without a session.
    pub async fn api(&self, access_token: &str) -> u16 {
        let request = self.http.get(self.url("/me")).bearer_auth(access_token);
        bounded(request.send()).await.unwrap().status().as_u16()
    }

    async fn door(&self, name: &str, parameters: &[(&str, &str)]) -> Value {
        let url = Url::parse_with_params(&self.url(&format!("/test/{name}")), parameters).unwrap();
        let response = bounded(self.http.get(url).send()).await.unwrap();
        let status = response.status();
        let body = bounded(response.text()).await.unwrap();
        assert!(status.is_success(), "{name}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// What comes over a real socket or from a real process, or a test that fails.
pub async fn bounded<F: Future>(future: F) -> F::Output {
    let patience = Duration::from_secs(120);
    tokio::time::timeout(patience, future).await.expect("this takes too long")
}

/// The folder with the server and its packages, away from the sources. Made once for these files,
/// also by processes that run at the same time.
async fn installed() -> &'static Path {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let folder = FOLDER.get_or_init(|| async {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider");
        let files = ["package.json", "package-lock.json", "server.mjs"]
            .map(|name| (name, fs::read(source.join(name)).unwrap()));
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = place.join(format!("oidc-provider-{:x}", hasher.finish()));
        if !folder.exists() {
            let ours = folder.with_extension(std::process::id().to_string());
            fs::create_dir_all(&ours).unwrap();
            for (name, content) in files {
                fs::write(ours.join(name), content).unwrap();
            }
            install(&ours).await;
            if fs::rename(&ours, &folder).is_err() {
                // Another process was faster.
                fs::remove_dir_all(&ours).unwrap();
            }
        }
        folder
    });
    folder.await
}

async fn install(folder: &Path) {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    npm.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    let output = bounded(npm.output()).await.expect("this test needs npm");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
