//! The command line.

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) const USAGE: &str = "\
Without options: the whole story, with a gateway that is part of the example.

With a real gateway:
  --url URL         scheme and host, such as https://gateway.example.com
  --client-id ID    the client
  --secret PASSWORD its password as it was registered; leave it out for a public client
  --access TOKEN    an access token; it may be over
  --refresh TOKEN   the refresh token that came with it
  --path PATH       what to GET (default: /)
  --count N         how often, 1 to 1000 (default: 40)";

/// What to do.
pub(crate) enum Choice {
    Embedded,
    Help,
    Real(Options),
}

/// A real gateway, and what to do there.
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) client_id: String,
    pub(crate) secret: Option<String>,
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) path: String,
    pub(crate) count: usize,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Choice> {
        let (mut url, mut client_id, mut secret) = (None, None, None);
        let (mut access, mut refresh, mut path, mut count) = (None, None, None, None);
        let mut is_empty = true;
        while let Some(name) = arguments.next() {
            is_empty = false;
            let place = match name.as_str() {
                "--url" => &mut url,
                "--client-id" => &mut client_id,
                "--secret" => &mut secret,
                "--access" => &mut access,
                "--refresh" => &mut refresh,
                "--path" => &mut path,
                "--count" => &mut count,
                "--help" | "-h" => return Ok(Choice::Help),
                // Not repeated here: it may be a token in the wrong place.
                _ => bail!("an option that does not exist; --help lists those that do"),
            };
            *place = Some(arguments.next().with_context(|| format!("{name} needs a value"))?);
        }
        if is_empty {
            return Ok(Choice::Embedded);
        }
        let count = match count {
            Some(count) => count.parse().context("--count needs a number")?,
            None => 40,
        };
        ensure!((1..=1000).contains(&count), "--count goes from 1 to 1000");
        let path = path.unwrap_or_else(|| "/".into());
        ensure!(path.starts_with('/'), "--path begins with /");
        Ok(Choice::Real(Self {
            url: url.context("--url is missing")?,
            client_id: client_id.context("--client-id is missing")?,
            secret,
            access: access.context("--access is missing")?,
            refresh: refresh.context("--refresh is missing")?,
            path,
            count,
        }))
    }
}
