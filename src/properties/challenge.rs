//! `WWW-Authenticate` by the grammar of RFC 9110 §11.6.1.

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use crate::properties::input::Input;
use crate::proto::challenge::{Challenge, is_about_the_token};
use crate::proto::provider::{Judgement, Provider};

/// A header by the grammar is read as it was meant, however it is written; what is no header by the
/// grammar, and by chance is one after all, too.
pub fn challenge(input: &[u8]) {
    let mut input = Input::new(input);
    if input.flag() {
        let meant: Vec<Vec<Meant>> = lines(&mut input);
        let printed = meant.iter().map(|line| print(line, &mut input)).collect::<Vec<_>>();
        let Some(headers) = headers(&printed) else { return };
        let meant = meant.into_iter().flatten().collect::<Vec<_>>();
        assert_read(&headers, &meant);
        // RFC 9110 §5.3: several lines may be combined "by appending each subsequent field line
        // value to the initial field line value in order, separated by a comma".
        if let Some(headers) = self::headers(&[printed.join(&b", "[..])]) {
            assert_read(&headers, &meant);
        }
    } else {
        let lines: Vec<Vec<u8>> =
            input.rest().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let Some(headers) = headers(&lines) else { return };
        let read: Option<Vec<Vec<Meant>>> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .map(|line| Grammar::read(line.as_bytes()))
            .collect();
        match read {
            Some(lines) => assert_read(&headers, &lines.concat()),
            None => drop(Challenge::all(&headers)),
        }
        judge(&headers);
    }
}

fn assert_read(headers: &HeaderMap, meant: &[Meant]) {
    let read = Challenge::all(headers);
    assert_eq!(read, meant.iter().map(Meant::challenge).collect::<Vec<_>>(), "{headers:?}");
    // K-41: a refresh is of no use if `Bearer` challenges name errors, and none of them is about
    // the token.
    let bearers = meant.iter().filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"));
    let errors = bearers.map(Meant::error).collect::<Vec<_>>();
    let expected = errors.is_empty()
        || errors.iter().any(|error| error.is_empty() || error == "invalid_token");
    assert_eq!(is_about_the_token(headers), expected, "{headers:?}");
    judge(headers);
}

/// K-42: a 401 alone rejects by its headers.
fn judge(headers: &HeaderMap) {
    let provider = Provider::rfc6749();
    let is_rejected = |status| matches!(provider.judge(status, headers), Judgement::Rejected);
    assert_eq!(is_rejected(StatusCode::UNAUTHORIZED), is_about_the_token(headers));
    assert!(!is_rejected(StatusCode::FORBIDDEN));
}

fn headers(lines: &[Vec<u8>]) -> Option<HeaderMap> {
    lines.iter().map(|line| Some((WWW_AUTHENTICATE, HeaderValue::from_bytes(line).ok()?))).collect()
}

/// A challenge as it was meant. Its values are bytes: `obs-text` need not be UTF-8.
#[derive(Clone, Debug, PartialEq)]
struct Meant {
    scheme: String,
    credentials: Credentials,
}

#[derive(Clone, Debug, PartialEq)]
enum Credentials {
    None,
    Token68(String),
    Parameters(Vec<(String, Vec<u8>)>),
}

impl Meant {
    fn parameters(&self) -> impl Iterator<Item = (&String, String)> {
        let parameters = match &self.credentials {
            Credentials::Parameters(parameters) => &parameters[..],
            Credentials::None | Credentials::Token68(_) => &[],
        };
        parameters.iter().map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()))
    }

    /// The value of the first `error`, without one the empty text.
    fn error(&self) -> String {
        let mut parameters = self.parameters();
        let error = parameters.find(|(name, _)| name.eq_ignore_ascii_case("error"));
        error.map(|(_, value)| value).unwrap_or_default()
    }

    fn challenge(&self) -> Challenge {
        let parameters = self.parameters().map(|(name, value)| (name.clone(), value));
        Challenge { scheme: self.scheme.clone(), parameters: parameters.collect() }
    }
}

fn lines(input: &mut Input<'_>) -> Vec<Vec<Meant>> {
    (0..=input.below(3)).map(|_| (0..input.below(4)).map(|_| meant(input)).collect()).collect()
}

fn meant(input: &mut Input<'_>) -> Meant {
    let scheme = token(input, &["Bearer", "bEARER", "Basic", "DPoP", "Negotiate"]);
    let credentials = match input.below(5) {
        0 => Credentials::None,
        1 => Credentials::Token68(token68(input)),
        more => Credentials::Parameters((0..more - 1).map(|_| parameter(input)).collect()),
    };
    Meant { scheme, credentials }
}

fn parameter(input: &mut Input<'_>) -> (String, Vec<u8>) {
    let name = token(input, &["error", "realm", "ERROR", "scope", "claims"]);
    let value = match input.below(5) {
        0 => "invalid_token".into(),
        1 => "insufficient_scope".into(),
        more => (2..more * more).map(|_| text_byte(input)).collect(),
    };
    (name, value)
}

/// A usual token, or 1 to 8 characters of one's own.
fn token(input: &mut Input<'_>, usual: &[&str]) -> String {
    match usize::from(input.byte()) {
        choice @ 0..128 => usual[choice % usual.len()].into(),
        length => (0..=length % 8).map(|_| char::from(input.one_of(TCHAR))).collect(),
    }
}

fn token68(input: &mut Input<'_>) -> String {
    let (length, padding) = (input.below(8), input.below(3));
    let characters = (0..=length).map(|_| char::from(input.one_of(TOKEN68)));
    characters.collect::<String>() + &"=".repeat(padding)
}

fn text_byte(input: &mut Input<'_>) -> u8 {
    Some(input.byte()).filter(|byte| is_text(*byte)).unwrap_or(b'"')
}

/// A line, with all the freedom that the grammar leaves to whoever writes one.
fn print(challenges: &[Meant], input: &mut Input<'_>) -> Vec<u8> {
    let mut line = commas(input, 0);
    for (index, challenge) in challenges.iter().enumerate() {
        if index > 0 {
            line.extend(commas(input, 1));
        }
        line.extend(challenge.scheme.bytes());
        let spaces = b" ".repeat(1 + input.below(2));
        match &challenge.credentials {
            Credentials::None => {}
            Credentials::Token68(token68) => line.extend([&spaces, token68.as_bytes()].concat()),
            Credentials::Parameters(parameters) => {
                line.extend([spaces, commas(input, 0)].concat());
                for (index, parameter) in parameters.iter().enumerate() {
                    if index > 0 {
                        line.extend(commas(input, 1));
                    }
                    line.extend(print_parameter(parameter, input));
                }
            }
        }
    }
    line.extend(commas(input, 0));
    line
}

fn print_parameter((name, value): &(String, Vec<u8>), input: &mut Input<'_>) -> Vec<u8> {
    let mut printed = [name.as_bytes(), &space(input), b"=", &space(input)].concat();
    if !value.is_empty() && value.iter().all(|byte| TCHAR.contains(byte)) && input.flag() {
        printed.extend(value);
        return printed;
    }
    printed.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') || input.flag() {
            printed.push(b'\\');
        }
        printed.push(*byte);
    }
    printed.push(b'"');
    printed
}

/// RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list
/// elements". At least so many commas.
fn commas(input: &mut Input<'_>, least: usize) -> Vec<u8> {
    let empty = input.below(8).saturating_sub(5);
    (0..least + empty).flat_map(|_| [space(input), b",".to_vec(), space(input)].concat()).collect()
}

/// `OWS` and `BWS` (RFC 9110 §5.6.3).
fn space(input: &mut Input<'_>) -> Vec<u8> {
    input.one_of(&[&b""[..], b"", b" ", b"\t", b" \t "]).to_vec()
}

/// RFC 9110 §5.6.2 `tchar`.
const TCHAR: &[u8] =
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
/// RFC 9110 §11.2 `token68`, without the padding.
const TOKEN68: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/";

/// What may stand in a quoted string, perhaps behind a backslash (RFC 9110 §5.6.4).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// RFC 9110 §11.6.1, rule by rule: `WWW-Authenticate = #challenge`. Forgives nothing.
#[derive(Clone, Copy)]
struct Grammar<'a>(&'a [u8]);

impl<'a> Grammar<'a> {
    /// The challenges of a line, if the grammar has it.
    fn read(line: &'a [u8]) -> Option<Vec<Meant>> {
        let mut grammar = Self(line);
        let mut challenges = Vec::new();
        grammar.commas();
        while !grammar.0.is_empty() {
            challenges.push(grammar.challenge()?);
            if !grammar.commas() && !grammar.0.is_empty() {
                return None;
            }
        }
        Some(challenges)
    }

    /// `challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]`
    fn challenge(&mut self) -> Option<Meant> {
        let scheme = self.token()?;
        let mut credentials = Credentials::None;
        if !self.many(|byte| byte == b' ').is_empty() {
            if let Some(token68) = self.attempt(Self::token68) {
                credentials = Credentials::Token68(token68);
            } else if let Some(parameters) = self.attempt(Self::parameters) {
                credentials = Credentials::Parameters(parameters);
            }
        }
        Some(Meant { scheme, credentials })
    }

    /// `token68 = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`, up to the next
    /// element.
    fn token68(&mut self) -> Option<String> {
        let characters = self.many(|byte| TOKEN68.contains(&byte));
        let padding = self.many(|byte| byte == b'=');
        let mut next = *self;
        let is_whole = !characters.is_empty() && (next.commas() || next.0.is_empty());
        is_whole.then(|| text([characters, padding].concat()))
    }

    fn parameters(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        self.commas();
        let mut parameters = vec![self.parameter()?];
        while let Some(parameter) =
            self.attempt(|grammar| if grammar.commas() { grammar.parameter() } else { None })
        {
            parameters.push(parameter);
        }
        Some(parameters)
    }

    /// `auth-param = token BWS "=" BWS ( token / quoted-string )`
    fn parameter(&mut self) -> Option<(String, Vec<u8>)> {
        let name = self.token()?;
        self.many(is_space);
        self.one(b'=')?;
        self.many(is_space);
        let value = match self.attempt(Self::token) {
            Some(token) => token.into_bytes(),
            None => self.quoted()?,
        };
        Some((name, value))
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        self.one(b'"')?;
        let mut value = Vec::new();
        loop {
            match self.any()? {
                b'"' => return Some(value),
                b'\\' => value.push(self.any()?),
                byte => value.push(byte),
            }
        }
    }

    /// `token = 1*tchar`
    fn token(&mut self) -> Option<String> {
        let token = self.many(|byte| TCHAR.contains(&byte));
        (!token.is_empty()).then(|| text(token))
    }

    /// `OWS "," OWS`, at least once?
    fn commas(&mut self) -> bool {
        self.many(|byte| byte == b',' || is_space(byte)).contains(&b',')
    }

    /// A rule, or nothing at all.
    fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = *self;
        let read = rule(self);
        if read.is_none() {
            *self = before;
        }
        read
    }

    fn any(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn one(&mut self, wanted: u8) -> Option<()> {
        (self.any()? == wanted).then_some(())
    }

    fn many(&mut self, wanted: impl Fn(u8) -> bool) -> Vec<u8> {
        let length = self.0.iter().take_while(|byte| wanted(**byte)).count();
        let (many, rest) = self.0.split_at(length);
        self.0 = rest;
        many.to_vec()
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn text(ascii: Vec<u8>) -> String {
    ascii.into_iter().map(char::from).collect()
}
