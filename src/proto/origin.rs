//! Who may see the token: origins, and whether the way to them is safe.

use std::hash::{DefaultHasher, Hash, Hasher};

use url::{Host, Url};

use crate::error::{Error, ErrorKind};

/// Where a session's token may go.
#[derive(Debug)]
pub(crate) struct Reach {
    endpoints: Vec<Url>,
    /// `None`: anywhere.
    origins: Option<Vec<Origin>>,
    insecure_http: bool,
}

/// What the URL of a request says about its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    /// The token may go there. With the number of the [origin](Reach::origin), if it is in the list.
    Allowed(Option<u64>),
    /// It may go there, but not over a line that anybody can listen to.
    Insecure,
    /// Nobody said that it may go there.
    Outside,
    /// A token or revocation endpoint: it has a way of its own to know who we are.
    TokenEndpoint,
}

impl Reach {
    pub(crate) fn new(
        endpoints: Vec<Url>,
        origins: &[String],
        any_origin: bool,
        insecure_http: bool,
    ) -> Result<Self, Error> {
        if let Some(url) = endpoints.iter().find(|url| !insecure_http && !is_confidential(url)) {
            return Err(insecure(url));
        }
        let mut allowed = Vec::new();
        for text in origins {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
            let origin = url.as_ref().and_then(Origin::of).ok_or_else(|| {
                Error::configuration(format!(
                    "`{text}` is not an origin such as https://api.example.com"
                ))
            })?;
            allowed.push(origin);
        }
        if allowed.is_empty() {
            allowed.extend(endpoints.first().and_then(Origin::of));
        }
        if allowed.is_empty() && !any_origin {
            let message =
                "nobody knows where the token may go: call allow_origin with the API's origin";
            return Err(Error::configuration(message));
        }
        Ok(Self { endpoints, origins: (!any_origin).then_some(allowed), insecure_http })
    }

    /// What to do about a request to `url`.
    #[inline]
    pub(crate) fn of(&self, url: &Url) -> Within {
        let is_endpoint = |endpoint: &Url| endpoint.path() == url.path() && is_same(endpoint, url);
        if self.endpoints.iter().any(is_endpoint) {
            return Within::TokenEndpoint;
        }
        let (is_confidential, place) = match (&self.origins, self.listed(url)) {
            (Some(_), None) => return Within::Outside,
            (_, Some((origin, place))) => (origin.is_confidential, Some(place)),
            (None, None) => (is_confidential(url), None),
        };
        match self.insecure_http || is_confidential {
            true => Within::Allowed(place),
            false => Within::Insecure,
        }
    }

    /// A number that stands for the origin of `url`, for who cannot keep the URL. Allocates nothing,
    /// and hashes only what is not in the list.
    pub(crate) fn origin(&self, url: &Url) -> u64 {
        self.listed(url).map_or_else(|| fingerprint(url), |(_, place)| place)
    }

    /// The origin of `url` and its place in the list, if it is there.
    #[inline]
    fn listed(&self, url: &Url) -> Option<(&Origin, u64)> {
        self.origins.iter().flatten().zip(0..).find(|(origin, _)| origin.contains(url))
    }
}

/// The URL of an authorization server, or of a part of it; `what` it is called in errors.
pub(crate) fn server_url(what: &str, text: &str) -> Result<Url, Error> {
    let url = Url::parse(text)
        .map_err(|error| Error::configuration(format!("{what} is malformed: {error}")))?;
    let mistake = if !matches!(url.scheme(), "https" | "http") {
        "must begin with https://"
    } else if url.fragment().is_some() {
        "must not have a fragment (RFC 6749 §3.2)"
    } else if !url.username().is_empty() || url.password().is_some() {
        "must not have credentials in it; use ClientAuth"
    } else {
        return Ok(url);
    };
    Err(Error::configuration(format!("{what} {mistake}")))
}

/// The error for a URL that a token may not be sent to over plain `http`.
pub(crate) fn insecure(url: &Url) -> Error {
    let origin = printed(url);
    let message = format!("tokens are not sent to {origin} over plain http; use https");
    Error::new(ErrorKind::Insecure, message)
}

/// The origin of `url`, for a text. Names have "255 octets or less" (RFC 1035 §2.3.4), but whoever
/// sends us somewhere may have written more.
pub(crate) fn printed(url: &Url) -> String {
    let mut origin = url.origin().ascii_serialization();
    origin.truncate(300);
    origin
}

/// Scheme, host and port of a URL (RFC 6454 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
    /// How a URL begins that lies within, as long as it names no user.
    start: String,
    is_confidential: bool,
}

impl Origin {
    /// The origin of `url`; `None` if it has no host.
    fn of(url: &Url) -> Option<Self> {
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default(),
            start: url.origin().ascii_serialization() + "/",
            is_confidential: is_confidential(url),
        })
    }

    /// Whether `url` lies within this origin. Allocates nothing: it is asked for every request.
    #[inline]
    fn contains(&self, url: &Url) -> bool {
        url.as_str().starts_with(&self.start) || self.is_origin_of(url)
    }

    fn is_origin_of(&self, url: &Url) -> bool {
        url.host_str() == Some(&self.host)
            && url.scheme() == self.scheme
            && url.port_or_known_default() == self.port
    }
}

/// Whether two URLs are of one origin.
pub(crate) fn is_same(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

fn fingerprint(url: &Url) -> u64 {
    let mut hasher = DefaultHasher::new();
    (url.scheme(), url.host_str(), url.port_or_known_default()).hash(&mut hasher);
    hasher.finish()
}

/// Whether nobody can listen on the way: TLS, or a connection that never leaves the machine.
///
/// RFC 6750 §5.3: "Clients MUST always use TLS (https) or equivalent transport security when
/// making requests with bearer tokens."
pub(crate) fn is_confidential(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // RFC 6761 §6.3 reserves the whole domain.
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(url: &str) -> Url {
        Url::parse(url).unwrap()
    }

    #[test]
    fn k_03_an_origin_is_scheme_host_and_port() {
        let origin = Origin::of(&url("https://api.test/token")).unwrap();
        for (case, other, expected) in [
            ("path and query do not count", "https://api.test/a?b=c", true),
            ("default port", "https://api.test:443/", true),
            ("case of the host", "https://API.test/", true),
            ("a user", "https://ann@api.test/", true),
            ("another port", "https://api.test:8443/", false),
            ("another scheme", "http://api.test:443/", false),
            ("a subdomain", "https://x.api.test/", false),
            ("a longer name", "https://api.test.evil.test/", false),
            ("in the user part", "https://api.test@evil.test/", false),
            ("a dot at the end", "https://api.test./", false),
        ] {
            assert_eq!(origin.contains(&url(other)), expected, "{case}");
            assert_eq!(is_same(&url("https://api.test/"), &url(other)), expected, "{case}");
            assert_eq!(
                fingerprint(&url("https://api.test/")) == fingerprint(&url(other)),
                expected,
                "{case}"
            );
        }
        assert_eq!(Origin::of(&url("data:text/plain,x")), None);
    }

    #[test]
    fn k_63_an_endless_host_is_printed_in_few_words() {
        let long = url(&format!("http://{}.test/", "a".repeat(500_000)));
        assert!(insecure(&long).to_string().len() < 400);
        assert_eq!(printed(&url("https://api.test:8443/a?b=c")), "https://api.test:8443");
    }

    #[test]
    fn k_04_only_tls_and_loopback_are_confidential() {
        for (case, other, expected) in [
            ("https", "https://api.test/", true),
            ("http", "http://api.test/", false),
            ("127.0.0.0/8", "http://127.8.0.1/", true),
            ("IPv6 loopback", "http://[::1]/", true),
            ("localhost", "http://localhost:80/", true),
            ("below localhost", "http://a.localhost/", true),
            ("a name that only begins so", "http://127.0.0.1.evil.test/", false),
            ("a name that only ends so", "http://notlocalhost/", false),
            ("private network", "http://192.168.0.1/", false),
        ] {
            assert_eq!(is_confidential(&url(other)), expected, "{case}");
        }
    }

    /// URLs that are nearly alike, in every spelling.
    fn urls() -> impl Strategy<Value = Url> {
        let parts = (
            "(https|http|HTTPS)",
            "(://|:/|:|:\\\\\\\\)",
            "(|u@|u:p@|api\\.test@|api\\.test:443@|%2F@|@)",
            "(api\\.test|API\\.test|api\\.test\\.|x\\.api\\.test|api\\.tes|api\\.test\\.evil|[.]{0,1}api。test|\
             ａpi\\.test|b\u{fc}cher\\.test|xn--bcher-kva\\.test|\\[::1\\]|\\[0:0::1\\]|127\\.1|127\\.0\\.0\\.1)",
            "(|:|:80|:443|:0443|:8443|:44)",
            "(|/|/a|//|\\\\|\\?q|#f|/@evil\\.test/|@evil\\.test/)",
        );
        parts
            .prop_map(|(scheme, slashes, user, host, port, rest)| {
                Url::parse(&format!("{scheme}{slashes}{user}{host}{port}{rest}"))
            })
            .prop_filter_map("no URL", Result::ok)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// K-03, K-04: an origin contains what is of this origin by the URL standard, and nothing
        /// else, whatever a URL looks like.
        #[test]
        fn k_03_an_origin_contains_what_the_url_standard_says(one in urls(), other in urls()) {
            let is_one = one.origin() == other.origin();
            let origin = Origin::of(&one).unwrap();
            prop_assert_eq!(origin.contains(&other), is_one, "{} {}", one, other);
            prop_assert_eq!(is_same(&one, &other), is_one, "{} {}", one, other);
            prop_assert!(!is_one || origin.is_confidential == is_confidential(&other));
        }
    }
}
