//! `WWW-Authenticate` (RFC 9110 §11.6.1): what a server wants to be told.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One challenge: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// All challenges of a response, from all its header lines.
    ///
    /// RFC 9110 §11.6.1: "a server … MAY generate more than one challenge …, and each challenge
    /// can contain multiple comma-separated parameters": so a comma may end either.
    pub(crate) fn all(headers: &HeaderMap) -> Vec<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter();
        lines.flat_map(|line| Parser::new(line.as_bytes()).challenges()).collect()
    }

    /// Schemes are "case-insensitive" (RFC 9110 §11.1).
    pub(crate) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter; the first one where a server repeats it.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let (_, value) = parameters.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// Whether a 401 with these challenges says that another token could help.
///
/// RFC 6750 §3.1: a resource server SHOULD NOT name an error where no credentials were sent, and
/// many name none at all, or send no challenge. Only an error that is *not* about the token's
/// validity (`insufficient_scope`, RFC 9470's `insufficient_user_authentication`, Entra's
/// `insufficient_claims`) says that a refresh is of no use.
pub(crate) fn is_about_the_token(headers: &HeaderMap) -> bool {
    let challenges = Challenge::all(headers);
    let errors = challenges
        .iter()
        .filter(|challenge| challenge.is("Bearer"))
        .map(|challenge| challenge.parameter("error").unwrap_or_default());
    let mut named = false;
    for error in errors {
        if error.is_empty() || error == "invalid_token" {
            return true;
        }
        named = true;
    }
    !named
}

/// Reads one header line. What it does not understand, it steps over.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn challenges(mut self) -> Vec<Challenge> {
        let mut challenges: Vec<Challenge> = Vec::new();
        loop {
            let word = self.take(is_token);
            if word.is_empty() {
                if self.rest.is_empty() {
                    return challenges;
                }
                self.rest = &self.rest[1..];
                continue;
            }
            self.skip(is_space);
            match challenges.last_mut() {
                // `name = value`; a scheme is never followed by `=`.
                Some(challenge) if self.rest.first() == Some(&b'=') => {
                    self.rest = &self.rest[1..];
                    self.skip(is_space);
                    challenge.parameters.push((word, self.value()));
                }
                _ => {
                    challenges.push(Challenge { scheme: word, parameters: Vec::new() });
                    self.skip_token68();
                }
            }
        }
    }

    /// A token or a quoted string; a quote that is never closed ends with the line.
    fn value(&mut self) -> String {
        if self.rest.first() != Some(&b'"') {
            return self.take(|byte| byte != b',' && !is_space(byte));
        }
        let mut value = Vec::new();
        let mut bytes = self.rest[1..].iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'"' => break,
                b'\\' => value.extend(bytes.next()),
                _ => value.push(byte),
            }
        }
        self.rest = bytes.as_slice();
        String::from_utf8_lossy(&value).into_owned()
    }

    /// `token68` stands where parameters would: it runs to a comma or the end, and unlike
    /// a parameter has nothing behind its `=` signs.
    fn skip_token68(&mut self) {
        let mut ahead = Self::new(self.rest);
        ahead.skip(|byte| is_token(byte) || byte == b'/');
        ahead.skip(|byte| byte == b'=');
        ahead.skip(is_space);
        let is_alone = matches!(ahead.rest.first(), None | Some(&b','));
        if is_alone {
            self.rest = ahead.rest;
        }
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> String {
        let (word, rest) = self.split(wanted);
        self.rest = rest;
        String::from_utf8_lossy(word).into_owned()
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        self.rest = self.split(unwanted).1;
    }

    fn split(&self, wanted: impl Fn(u8) -> bool) -> (&'a [u8], &'a [u8]) {
        let end = self.rest.iter().position(|byte| !wanted(*byte));
        self.rest.split_at(end.unwrap_or(self.rest.len()))
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// RFC 9110 §5.6.2 `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn printed(lines: &[&str]) -> String {
        let challenges = Challenge::all(&headers(lines)).into_iter().map(|challenge| {
            let parameters = challenge.parameters.iter().map(|(n, v)| format!(" {n}={v}"));
            challenge.scheme.clone() + &parameters.collect::<String>()
        });
        challenges.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn k_41_challenges_are_parsed_by_rfc_9110() {
        for (case, lines, expected) in [
            ("none", &[][..], ""),
            ("scheme alone", &["Bearer"], "Bearer"),
            (
                "one",
                &[r#"Bearer realm="a", error="invalid_token""#],
                "Bearer realm=a error=invalid_token",
            ),
            (
                "RFC 9110's own",
                &[
                    r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#,
                ],
                r#"Basic realm=simple | Newauth realm=apps type=1 title=Login to "apps""#,
            ),
            (
                "several lines",
                &["Basic realm=x", "bearer error=y"],
                "Basic realm=x | bearer error=y",
            ),
            ("token68", &["Negotiate abc==, Bearer error=x"], "Negotiate | Bearer error=x"),
            ("token68 without padding", &["NTLM abc/d, Bearer"], "NTLM | Bearer"),
            ("schemes without parameters", &["Negotiate, Bearer"], "Negotiate | Bearer"),
            (
                "comma inside quotes",
                &[r#"Bearer realm="a, Basic b=c", error=e"#],
                "Bearer realm=a, Basic b=c error=e",
            ),
            ("leading separators", &[" ,, Bearer realm=x"], "Bearer realm=x"),
            ("spaces around =", &["Bearer realm = x , error= \"y\""], "Bearer realm=x error=y"),
            ("missing comma", &[r#"Bearer realm="x" error="y""#], "Bearer realm=x error=y"),
            ("missing closing quote", &[r#"Bearer realm="x, error=y"#], "Bearer realm=x, error=y"),
            ("a backslash at the end", &[r#"Bearer realm="x\"#], "Bearer realm=x"),
            ("repeated keys", &["Bearer error=a, error=b"], "Bearer error=a error=b"),
            (
                "an empty value is a token68 by the grammar",
                &["Bearer error=, realm=x"],
                "Bearer realm=x",
            ),
            ("no scheme", &["=x, Bearer"], "x | Bearer"),
            ("punctuation", &["@@@(); Bearer"], "Bearer"),
        ] {
            assert_eq!(printed(lines), expected, "{case}");
        }
    }

    /// K-41, Q-93.
    #[test]
    fn k_41_only_an_error_that_is_not_about_the_token_forbids_a_refresh() {
        for (case, lines, expected) in [
            ("no challenge", &[][..], true),
            ("no error", &["Bearer realm=x"], true),
            ("empty error", &["Bearer error=\"\""], true),
            ("invalid_token", &["Bearer error=invalid_token"], true),
            ("scheme and name without case", &["bEARER ERROR=insufficient_scope"], false),
            ("insufficient_scope", &["Bearer error=\"insufficient_scope\""], false),
            (
                "RFC 9470",
                &["Bearer error=\"insufficient_user_authentication\", max_age=\"5\""],
                false,
            ),
            ("Entra CAE (Q-93)", &["Bearer error=\"insufficient_claims\", claims=\"e30\""], false),
            ("another scheme only", &["Basic realm=x, error=insufficient_scope"], true),
            ("Bearer second", &["Basic realm=x, Bearer error=insufficient_scope"], false),
            ("second line", &["Basic realm=x", "Bearer error=insufficient_scope"], false),
            ("two, one about the token", &["Bearer error=other, Bearer error=invalid_token"], true),
            ("first of a repeated key", &["Bearer error=invalid_token, error=other"], true),
        ] {
            assert_eq!(is_about_the_token(&headers(lines)), expected, "{case}");
        }
    }

    #[test]
    fn k_41_bytes_that_are_not_text_do_not_hurt() {
        let mut headers = HeaderMap::new();
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_bytes(b"Bearer \xff=\xfe\", error").unwrap(),
        );
        assert!(is_about_the_token(&headers));
    }
}
